/** Sources of every kind into the native engine: what comes out, what an error is, and what is let go of. */
import assert from 'node:assert/strict';
import { createReadStream, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { ReadableStream } from 'node:stream/web';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { IngestRequest, Progress, TarSource } from '../../../src/engine/engine.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { LayerStoreError } from '../../../src/errors.js';
import { tempDir } from '../../support/temp.js';
import { addonThreads, addonThreadStatus, eventually, freshRequest, makeTar } from './native-support.js';

const engine = loadNativeEngine();

function chunks(bytes: Buffer, size: number): Uint8Array[] {
  const list: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) list.push(bytes.subarray(at, at + size));
  return list;
}

test('every kind of source gives the same layer', async (t) => {
  const dir = tempDir(t);
  const path = makeTar(dir, 5, 70_000);
  const bytes = readFileSync(path);
  const padded = join(dir, 'padded');
  writeFileSync(padded, Buffer.concat([Buffer.alloc(777, 1), bytes, Buffer.alloc(99, 2)]));
  const { diffID } = await engine.hashFile(path);
  const sources: Record<string, () => TarSource> = {
    path: () => ({ path }),
    range: () => ({ path: padded, offset: 777, length: bytes.length }),
    readable: () => createReadStream(path, { highWaterMark: 1000 }),
    generator: async function* () {
      for (const chunk of chunks(bytes, 511)) yield await Promise.resolve(chunk);
    },
    web: () =>
      new ReadableStream<Uint8Array>({
        start(controller) {
          for (const chunk of chunks(bytes, 100_000)) controller.enqueue(chunk);
          controller.close();
        },
      }),
    gzip: () => Readable.from(chunks(gzipSync(bytes), 1 << 16)),
    one: () => Readable.from([bytes]),
    bytes: () => Readable.from(chunks(bytes.subarray(0, 4096), 1).concat([bytes.subarray(4096)])),
  };
  for (const [name, open] of Object.entries(sources)) {
    const request = freshRequest(t, { diffID });
    const result = await engine.ingest(open(), request);
    assert.equal(result.diffID, diffID, name);
    assert.equal(result.tarSize, bytes.length, name);
    assert.equal(result.size, 350_000, name);
    assert.equal(readFileSync(join(request.directory, 'file-3')).length, 70_000, name);
  }
});

test('a source may be larger than every queue', async (t) => {
  const path = makeTar(tempDir(t), 3, 20_000_000);
  let outstanding = 0;
  const source = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
      outstanding++;
      yield chunk as Uint8Array;
    }
  };
  const result = await engine.ingest(source(), freshRequest(t));
  assert.equal(result.size, 60_000_000);
  assert.ok(outstanding > 50);
});

test('the error of a source comes through unchanged, and nothing keeps running', async (t) => {
  const mine = new RangeError('mine');
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(Buffer.alloc(100));
    throw mine;
  };
  await assert.rejects(engine.ingest(failing(), freshRequest(t)), (error) => error === mine);
  const stream = new PassThrough();
  stream.write(Buffer.alloc(100));
  setTimeout(() => stream.destroy(mine), 20);
  await assert.rejects(engine.ingest(stream, freshRequest(t)), (error) => error === mine);
  // Before the registration reads from it.
  const early = new PassThrough();
  const done = engine.ingest(early, freshRequest(t));
  early.destroy(mine);
  await assert.rejects(done, (error) => error === mine);
});

test('a failure destroys the source and is told by its code', async (t) => {
  const endless = new Readable({
    read() {
      this.push(Buffer.alloc(65_536, 'not a tar '));
    },
  });
  await assert.rejects(engine.ingest(endless, freshRequest(t)), (error) => LayerStoreError.is(error, 'ERR_BAD_TAR'));
  assert.ok(endless.destroyed);

  let cancelled = false;
  const web = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(Buffer.alloc(65_536, 'not a tar ')),
    cancel: () => void (cancelled = true),
  });
  await assert.rejects(engine.ingest(web, freshRequest(t)), (error) => LayerStoreError.is(error, 'ERR_BAD_TAR'));
  assert.ok(cancelled);
});

test('a source that stalls is stopped by its signal', async (t) => {
  const reason = new Error('enough');
  for (const start of [0, 1024]) {
    const stalled = new Readable({ read() {} });
    if (start > 0) stalled.push(Buffer.alloc(start));
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 30);
    await assert.rejects(
      engine.ingest(stalled, freshRequest(t, { signal: controller.signal })),
      (error) => error === reason,
    );
    assert.ok(stalled.destroyed);
  }
  const early = new Readable({ read() {} });
  await assert.rejects(
    engine.ingest(early, freshRequest(t, { signal: AbortSignal.abort(reason) })),
    (error) => error === reason,
  );
  assert.ok(early.destroyed);
});

test('bad sources are refused with a sentence', async (t) => {
  const dir = tempDir(t);
  const short = join(dir, 'short');
  writeFileSync(short, Buffer.alloc(100));
  const cases: [TarSource, string, string?][] = [
    [{ path: join(dir, 'missing') }, 'ERR_SYSTEM', 'ENOENT'],
    [{ path: dir }, 'ERR_SYSTEM', 'EISDIR'],
    [{ path: short, offset: 0, length: 1000 }, 'ERR_BAD_TAR'],
    [{ path: short, offset: 5 } as TarSource, 'ERR_INVALID_ARGUMENT'],
    [{ path: short, offset: -1, length: 3 }, 'ERR_INVALID_ARGUMENT'],
    [Readable.from(['text']), 'ERR_INVALID_ARGUMENT'],
    [42 as unknown as TarSource, 'ERR_INVALID_ARGUMENT'],
    [{} as unknown as TarSource, 'ERR_INVALID_ARGUMENT'],
  ];
  for (const [source, code, errnoName] of cases) {
    await assert.rejects(engine.ingest(source, freshRequest(t)), (error) => {
      assert.ok(LayerStoreError.is(error), String(error));
      assert.equal(error.code, code, error.message);
      assert.equal(error.errnoName, errnoName);
      return true;
    });
  }
});

test('digests and sizes are checked against the bytes as they came', async (t) => {
  const path = makeTar(tempDir(t));
  const packed = `${path}.gz`;
  writeFileSync(packed, gzipSync(readFileSync(path)));
  const { digest, diffID, size } = await engine.hashFile(packed);
  const good = await engine.ingest({ path: packed }, freshRequest(t, { blob: { digest, size }, diffID }));
  assert.equal(good.blobDigest, digest);
  assert.equal(good.compression, 'gzip');
  const wrong = `sha256:${'0'.repeat(64)}` as typeof diffID;
  const expectations: Pick<IngestRequest, 'blob' | 'diffID'>[] = [
    { blob: { digest: wrong, size } },
    { blob: { digest, size: size - 1 } },
    { blob: { digest, size: size + 1 } },
    { diffID: wrong },
  ];
  for (const expected of expectations) {
    for (const source of [{ path: packed }, createReadStream(packed)]) {
      await assert.rejects(engine.ingest(source, freshRequest(t, expected)), (error) =>
        LayerStoreError.is(error, 'ERR_DIGEST_MISMATCH'),
      );
    }
  }
});

test('progress ends with the final counters, and a listener that throws stops the work', async (t) => {
  const path = makeTar(tempDir(t), 10, 100_000);
  const seen: Progress[] = [];
  await engine.ingest({ path }, freshRequest(t, { onProgress: (progress) => seen.push(progress) }));
  const last = seen.at(-1);
  assert.equal(last?.bytesRead, statSync(path).size);
  assert.equal(last.totalBytes, statSync(path).size);
  assert.equal(last.entries, 11);
  const mine = new Error('listener');
  const failing = (): void => {
    throw mine;
  };
  await assert.rejects(engine.ingest({ path }, freshRequest(t, { onProgress: failing })), (error) => error === mine);
});

test('a record goes to a writer as plain JSON lines', async (t) => {
  const path = makeTar(tempDir(t));
  const request = freshRequest(t);
  await engine.ingest({ path }, request);
  const kept = gunzipSync(readFileSync((request.tarSplit as { path: string }).path)).toString();
  const parts: Buffer[] = [];
  let ended = false;
  const writer = new Writable({
    write: (chunk: Buffer, _, done) => {
      parts.push(chunk);
      done();
    },
    final: (done) => {
      ended = true;
      done();
    },
  });
  await engine.ingest({ path }, freshRequest(t, { tarSplit: { writer } }));
  assert.ok(ended);
  assert.equal(Buffer.concat(parts).toString(), kept);
  for (const line of kept.trim().split('\n')) JSON.parse(line);
});

test('a limit names itself and how to raise it', async (t) => {
  const path = makeTar(tempDir(t), 10);
  await assert.rejects(engine.ingest({ path }, freshRequest(t, { limits: { maxEntries: 5 } })), (error) => {
    assert.ok(LayerStoreError.is(error, 'ERR_LIMIT_EXCEEDED'), String(error));
    assert.match(error.message, /maxEntries.*raise it with/);
    return true;
  });
});

test('a tar stream that is dropped ends its thread, and one that is read gives the bytes', async (t) => {
  const path = makeTar(tempDir(t), 20, 1_000_000);
  const request = freshRequest(t);
  const { diffID } = await engine.ingest({ path }, request);
  const assemble = {
    tarSplit: request.tarSplit as { path: string },
    tree: { directory: request.directory, open: never, close: nothing },
    diffID,
  };
  const parts: Buffer[] = [];
  for await (const part of await engine.assemble(assemble)) parts.push(part as Buffer);
  assert.ok(Buffer.concat(parts).equals(readFileSync(path)));

  const dropped = await engine.assemble(assemble);
  for await (const part of dropped) {
    assert.ok((part as Buffer).length > 0);
    break;
  }
  assert.ok(dropped.destroyed);

  const reason = new Error('enough');
  const controller = new AbortController();
  const aborted = await engine.assemble({ ...assemble, signal: controller.signal });
  await assert.rejects(
    async () => {
      for await (const part of aborted) {
        assert.ok(part);
        controller.abort(reason);
      }
    },
    (error) => error === reason,
  );

  writeFileSync(join(request.directory, 'file-19'), Buffer.alloc(1_000_000, 99));
  await assert.rejects(
    async () => {
      for await (const part of await engine.assemble(assemble)) assert.ok(part);
    },
    (error) => LayerStoreError.is(error, 'ERR_LAYER_CORRUPT'),
  );
  assert.ok(existsSync(request.directory));
});

function never(): Promise<Readable> {
  return Promise.reject(new Error('the native engine reads the directory itself'));
}

function nothing(): Promise<void> {
  return Promise.resolve();
}

test('a source that stalls costs no wake-ups', async (t) => {
  const source = new PassThrough();
  const controller = new AbortController();
  const done = engine.ingest(source, freshRequest(t, { signal: controller.signal }));
  const ended = assert.rejects(done, (error) => error === controller.signal.reason);
  source.write(Buffer.alloc(100)); // not a header yet
  await eventually(() => addonThreads().includes('ls-worker'), 'the registration runs');
  await sleep(200);
  const before = wakeUps();
  await sleep(1500);
  const woken = wakeUps() - before;
  controller.abort();
  await ended;
  // Threads of the pool that have nothing to do wake once to end.
  assert.ok(woken < 20, `${String(woken)} wake-ups in 1.5 s`);
});

/** How often threads of the addon went to sleep by themselves. */
function wakeUps(): number {
  return addonThreadStatus().reduce(
    (sum, status) => sum + Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? 0),
    0,
  );
}
