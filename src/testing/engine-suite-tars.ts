/** Engines: tars in, tars out. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import * as zlib from 'node:zlib';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { DiffID } from '../digest.js';
import type { Assembled, DiffGetter, Engine, IngestRequest, IngestResult, TarSource } from '../engine/engine.js';
import type { EngineTestContext } from './engine-test-context.js';
import type { TarEntry } from './tar-builder.js';
import { buildTar, gnuLong, storedZstd } from './tar-builder.js';
import { snapshotTree } from './tree-snapshot.js';

const LONG = `${'directory-with-a-long-name/'.repeat(6)}file`;

/** One of everything that needs no privilege. */
export const everyday: readonly TarEntry[] = [
  { name: './', type: '5', mode: 0o755 },
  { name: 'dir/', type: '5', mode: 0o711, mtime: 1_500_000_000 },
  { name: 'dir/file', content: 'hello', mode: 0o640, mtime: 1_500_000_001 },
  { name: 'dir/empty', content: '' },
  { name: 'dir/large', content: 'x'.repeat(300_001) },
  { name: 'sym', type: '2', linkname: 'dir/file', mode: 0o777 },
  // As Docker does, a hard link's header sets mode and time of the inode once more.
  { name: 'hard', type: '1', linkname: 'dir/file', mode: 0o640, mtime: 1_500_000_001 },
  { name: 'no/parents/here', content: 'implied' },
  { name: 'setuid', content: 's', mode: 0o4755 },
  { name: 'pax', content: 'p', pax: { mtime: '1500000002.123456789', path: `pax-${'é'.repeat(80)}` } },
  gnuLong('L', LONG),
  { name: LONG.slice(0, 100), content: 'long name', magic: 'gnu' },
  { name: Buffer.from([0x6e, 0xff, 0xfe]), content: 'no UTF-8' },
];

export const digestOf = (bytes: Uint8Array): DiffID =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}` as DiffID;

/** The getter of a plain directory, as drivers give it. */
export function directoryGetter(directory: string): DiffGetter {
  return {
    directory,
    open: async (name) => Readable.from([readFileSync(Buffer.concat([Buffer.from(`${directory}/`), name]))]),
    close: async () => undefined,
  };
}

export interface Unpacked {
  tree: string;
  record: string;
  result: IngestResult;
}

/** Unpacks into `<directory>/<name>`, with a tar-split record beside it. */
export async function unpack(
  engine: Engine,
  directory: string,
  source: TarSource,
  request: Partial<IngestRequest> & { name?: string } = {},
): Promise<Unpacked> {
  const { name = 'tree', ...rest } = request;
  const tree = join(directory, name);
  const record = join(directory, `${name}.json.gz`);
  mkdirSync(tree);
  const result = await engine.ingest(source, {
    directory: tree,
    whiteouts: 'overlay',
    tarSplit: { path: record },
    ...rest,
  });
  return { tree, record, result };
}

function* pieces(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

export function engineTarTests({ test }: EngineTestContext): void {
  const tar = buildTar(everyday, { recordSize: 10240 });

  test('unpacks a tar and says what it was', async (engine, directory) => {
    const { tree, record, result } = await unpack(engine, directory, Readable.from([tar]), { hashBlob: true });
    assert.equal(result.diffID, digestOf(tar));
    assert.equal(result.blobDigest, digestOf(tar));
    assert.equal(result.tarSize, tar.length);
    assert.equal(result.blobSize, tar.length);
    assert.equal(result.compression, 'none');
    assert.equal(result.entries, everyday.length - 1); // the GNU long name belongs to the entry after it
    const found = snapshotTree(tree);
    assert.equal(result.size, 5 + 300_001 + 8 + 7 + 1 + 1 + 9 + 8);
    assert.deepEqual(
      ['/dir', '/dir/file', '/sym', '/no/parents', '/setuid'].map(
        (path) => `${found.get(path)?.type} ${found.get(path)?.mode}`,
      ),
      ['directory 711', 'file 640', 'symlink 777', 'directory 755', 'file 4755'],
    );
    assert.equal(found.get('/hard')?.links, '/dir/file');
    assert.equal(found.get('/dir')?.mtime, '1500000000.000000000');
    const pax = found.get(Buffer.from(`/pax-${'é'.repeat(80)}`).toString('latin1'));
    // Not every engine can set times finer than a double holds: the second and its first six digits are for all.
    assert.match(pax?.mtime ?? '', /^1500000002\.12345[67]/);
    assert.equal(found.get(`/${LONG}`)?.size, 9);
    assert.equal(found.get('/n\xff\xfe')?.size, 8);
    assert.equal(statSync(record).mode & 0o777, 0o600);
    const lines = gunzipSync(readFileSync(record))
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { position: number });
    assert.deepEqual(
      lines.map(({ position }) => position),
      [...lines.keys()],
    );
  });

  test('gives the exact tar back, pulled and written', async (engine, directory) => {
    const { tree, record, result } = await unpack(engine, directory, Readable.from([tar]));
    const request = { tarSplit: { path: record }, tree: directoryGetter(tree), diffID: result.diffID };
    assert.ok((await buffer(await engine.assemble(request))).equals(tar));
    const lines = Readable.from([gunzipSync(readFileSync(record))], { objectMode: false });
    assert.ok((await buffer(await engine.assemble({ ...request, tarSplit: lines }))).equals(tar));
    const path = join(directory, 'out.tar');
    const fd = openSync(path, 'wx');
    try {
      assert.deepEqual(await engine.assembleTo(request, fd), { bytes: tar.length, diffID: result.diffID });
    } finally {
      closeSync(fd);
    }
    assert.ok(readFileSync(path).equals(tar));
    assert.equal(await engine.recordedSize({ path: record }), tar.length);
    const { directory: _directory, ...noDirectory } = directoryGetter(tree);
    assert.ok((await buffer(await engine.assemble({ ...request, tree: noDirectory }))).equals(tar));
  });

  test('gives the exact tar compressed, hashed on the way', async (engine, directory) => {
    const { tree, record, result } = await unpack(engine, directory, Readable.from([tar]));
    const request = { tarSplit: { path: record }, tree: directoryGetter(tree), diffID: result.diffID };
    for (const compression of ['gzip', 'zstd'] as const) {
      const path = join(directory, `out.${compression}`);
      const fd = openSync(path, 'wx');
      const seen: number[] = [];
      const write = (): Promise<Assembled> =>
        engine.assembleTo({ ...request, compression, onProgress: ({ bytesRead }) => seen.push(bytesRead) }, fd);
      try {
        if (compression === 'zstd' && engine.name === 'js' && !('createZstdCompress' in zlib)) {
          await assert.rejects(write(), { code: 'ERR_NOT_SUPPORTED' });
          continue;
        }
        const { bytes, diffID, blob } = await write();
        const written = readFileSync(path);
        assert.deepEqual({ bytes, diffID }, { bytes: tar.length, diffID: result.diffID });
        assert.deepEqual(blob, {
          digest: `sha256:${createHash('sha256').update(written).digest('hex')}`,
          size: written.length,
        });
        assert.equal(seen.at(-1), tar.length);
        const read = await engine.hashFile(path);
        assert.deepEqual([read.compression, read.diffID], [compression, result.diffID]);
      } finally {
        closeSync(fd);
      }
    }
  });

  for (const [what, source] of Object.entries({
    gzip: { bytes: gzipSync(tar), compression: 'gzip' },
    'gzip of two members': {
      bytes: Buffer.concat([gzipSync(tar.subarray(0, 5000)), gzipSync(tar.subarray(5000))]),
      compression: 'gzip',
    },
    zstd: { bytes: storedZstd(tar), compression: 'zstd' },
    'zstd of two frames': {
      bytes: Buffer.concat([storedZstd(tar.subarray(0, 700)), storedZstd(tar.subarray(700))]),
      compression: 'zstd',
    },
  })) {
    test(`unpacks ${what}, told by its content, from a file and from chunks`, async (engine, directory) => {
      const path = join(directory, 'layer.misleading-name.txt');
      writeFileSync(path, source.bytes);
      const file = await unpack(engine, directory, { path }, { name: 'file', hashBlob: true });
      const chunks = await unpack(engine, directory, Readable.from(pieces(source.bytes, [1, 7, 4096, 3])), {
        name: 'chunks',
        hashBlob: true,
      });
      for (const { result, tree } of [file, chunks]) {
        assert.equal(result.diffID, digestOf(tar));
        assert.equal(result.compression, source.compression);
        assert.equal(result.blobDigest, digestOf(source.bytes));
        assert.equal(result.blobSize, source.bytes.length);
        assert.equal(readFileSync(join(tree, 'dir/file'), 'utf8'), 'hello');
      }
      const hashed = await engine.hashFile(path);
      assert.deepEqual(hashed, {
        digest: digestOf(source.bytes),
        diffID: digestOf(tar),
        size: source.bytes.length,
        tarSize: tar.length,
        compression: source.compression,
      });
    });
  }

  test('takes any chunking of the same bytes', async (engine, directory) => {
    const trees: string[] = [];
    for (const [i, sizes] of [[tar.length], [512], [511, 513], [1000, 1, 1]].entries()) {
      const { result, tree } = await unpack(engine, directory, Readable.from(pieces(tar, sizes)), { name: `t${i}` });
      assert.equal(result.diffID, digestOf(tar));
      trees.push(JSON.stringify([...snapshotTree(tree, { mtime: false })]));
    }
    assert.equal(new Set(trees).size, 1);
  });

  test('takes an empty source and one that ends between two entries for a whole tar', async (engine, directory) => {
    const empty = await unpack(engine, directory, Readable.from([]), { name: 'empty' });
    assert.equal(empty.result.diffID, digestOf(Buffer.alloc(0)));
    const cut = buildTar([{ name: 'a', content: 'a' }], { end: false });
    const { result, record, tree } = await unpack(engine, directory, Readable.from([cut]), { name: 'cut' });
    assert.equal(result.entries, 1);
    const back = await engine.assemble({
      tarSplit: { path: record },
      tree: directoryGetter(tree),
      diffID: digestOf(cut),
    });
    assert.ok((await buffer(back)).equals(cut));
  });

  test('checks what was promised, keeps limits and stops when told to', async (engine, directory) => {
    const wrong = `sha256:${'0'.repeat(64)}` as DiffID;
    const source = (): Readable => Readable.from([tar]);
    await assert.rejects(unpack(engine, directory, source(), { name: 'a', diffID: wrong }), {
      code: 'ERR_DIGEST_MISMATCH',
    });
    await assert.rejects(
      unpack(engine, directory, source(), { name: 'b', blob: { digest: wrong, size: tar.length } }),
      { code: 'ERR_DIGEST_MISMATCH' },
    );
    await assert.rejects(unpack(engine, directory, source(), { name: 'c', blob: { digest: digestOf(tar), size: 1 } }), {
      code: 'ERR_DIGEST_MISMATCH',
    });
    await unpack(engine, directory, source(), {
      name: 'd',
      diffID: digestOf(tar),
      blob: { digest: digestOf(tar), size: tar.length },
    });
    for (const [i, limits] of [
      { maxEntries: 3 },
      { maxBytes: 2000 },
      { maxPathLength: 50 },
      { maxPathDepth: 2 },
      { maxLinkLength: 3 },
    ].entries()) {
      await assert.rejects(
        unpack(engine, directory, source(), { name: `l${i}`, limits }),
        { code: 'ERR_LIMIT_EXCEEDED' },
        JSON.stringify(limits),
      );
    }
    const reason = new Error('enough');
    await assert.rejects(
      unpack(engine, directory, source(), { name: 'e', signal: AbortSignal.abort(reason) }),
      (error) => error === reason,
    );
    const later = new AbortController();
    const stalling = (async function* () {
      yield tar.subarray(0, 1024);
      later.abort(reason);
      await new Promise((resolve) => setTimeout(resolve, 20));
      yield tar.subarray(1024);
    })();
    await assert.rejects(
      unpack(engine, directory, stalling, { name: 'f', signal: later.signal }),
      (error) => error === reason,
    );
    const failing = (async function* () {
      yield tar.subarray(0, 1024);
      throw reason;
    })();
    await assert.rejects(unpack(engine, directory, failing, { name: 'g' }), (error) => error === reason);
  });

  test('reports progress', async (engine, directory) => {
    const seen: { bytesRead: number; bytesUnpacked: number; entries: number; totalBytes?: number }[] = [];
    const path = join(directory, 'in.tar');
    writeFileSync(path, tar);
    await unpack(engine, directory, { path }, { onProgress: (progress) => seen.push(progress) });
    const last = seen.at(-1);
    assert.ok(
      last !== undefined && last.bytesRead === tar.length && last.totalBytes === tar.length,
      JSON.stringify(last),
    );
    assert.equal(last.entries, everyday.length - 1);
  });

  test('finds what was changed in a layer, and refuses to export it', async (engine, directory) => {
    const { tree, record, result } = await unpack(engine, directory, Readable.from([tar]));
    const request = { tarSplit: { path: record }, tree: directoryGetter(tree), diffID: result.diffID };
    const verify = () => engine.verifyTree({ ...request, whiteouts: 'overlay' });
    assert.deepEqual(
      (await verify()).filter(({ cosmetic }) => !cosmetic),
      [],
    );
    writeFileSync(join(tree, 'dir/file'), 'HELLO');
    const problems = await verify();
    assert.ok(
      problems.some(({ path, what, cosmetic }) => /dir\/file$/.test(path) && what === 'content' && !cosmetic),
      JSON.stringify(problems),
    );
    await assert.rejects(async () => buffer(await engine.assemble(request)), { code: 'ERR_LAYER_CORRUPT' });
    writeFileSync(join(tree, 'dir/file'), 'hell');
    await assert.rejects(async () => buffer(await engine.assemble(request)), { code: 'ERR_LAYER_CORRUPT' });
  });

  test('finds a link that became a directory, also where entries lie behind the link', async (engine, directory) => {
    const linked = buildTar([
      { name: 'usr/', type: '5' },
      { name: 'bin', type: '2', linkname: 'usr' },
      { name: 'bin/tool', content: 'tool' },
    ]);
    const { tree, record, result } = await unpack(engine, directory, Readable.from([linked]));
    rmSync(join(tree, 'bin'));
    mkdirSync(join(tree, 'bin'));
    const problems = await engine.verifyTree({
      tarSplit: { path: record },
      tree: directoryGetter(tree),
      diffID: result.diffID,
      whiteouts: 'overlay',
    });
    assert.ok(
      problems.some(({ path, what }) => /^\/?bin$/.test(path) && what === 'type'),
      JSON.stringify(problems),
    );
  });
}
