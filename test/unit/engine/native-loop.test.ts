/**
 * No native call works on the event loop's thread. Shown without a clock: each call here can end only when this same
 * thread goes on to feed or to drain the other side of a FIFO, so one that blocked it would never end.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { constants, mkdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { test } from 'node:test';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { directoryGetter } from '../../../src/testing/engine-suite-tars.js';
import { tempDir } from '../../support/temp.js';
import { freshRequest, makeTar } from './native-support.js';

const engine = loadNativeEngine();
const LIMIT = { timeout: 600_000 };

function fifo(directory: string): string {
  const path = join(directory, 'fifo');
  execFileSync('mkfifo', [path]);
  return path;
}

/** Writes all of it from this thread, a piece a turn of the loop. */
async function feed(path: string, bytes: Buffer): Promise<void> {
  let writer;
  while (writer === undefined) {
    try {
      writer = await open(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENXIO', 'nobody reads yet');
      await nextTurn();
    }
  }
  for (let at = 0; at < bytes.length;) {
    try {
      at += (await writer.write(bytes, at, Math.min(16_384, bytes.length - at))).bytesWritten;
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN', 'the FIFO is full');
      await nextTurn();
    }
  }
  await writer.close();
}

test('a layer is taken in from a FIFO that this thread feeds', LIMIT, async (t) => {
  const directory = tempDir(t);
  const bytes = readFileSync(makeTar(directory, 5, 100_000));
  const path = fifo(directory);
  const done = engine.ingest({ path }, freshRequest(t));
  await feed(path, bytes);
  assert.equal((await done).tarSize, bytes.length);
});

test('a layer is given out into a FIFO that this thread drains', LIMIT, async (t) => {
  const directory = tempDir(t);
  const tar = makeTar(directory, 5, 100_000);
  const tree = join(directory, 'layer');
  mkdirSync(tree);
  const record = join(directory, 'record.gz');
  const { diffID } = await engine.ingest(
    { path: tar },
    { directory: tree, whiteouts: 'overlay', tarSplit: { path: record } },
  );
  const path = fifo(directory);
  const reader = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = await open(path, constants.O_WRONLY);
  const state = { over: false };
  const request = { tarSplit: { path: record }, tree: directoryGetter(tree), diffID };
  const done = engine.assembleTo(request, writer.fd).finally(() => void (state.over = true));
  const chunks: Buffer[] = [];
  for (;;) {
    const { over } = state;
    try {
      const { buffer, bytesRead } = await reader.read({ buffer: Buffer.alloc(65_536), position: null });
      chunks.push(buffer.subarray(0, bytesRead));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN', 'the FIFO is empty');
      if (over) break;
      await nextTurn();
    }
  }
  const { bytes } = await done;
  await writer.close();
  await reader.close();
  const expected = readFileSync(tar);
  assert.equal(bytes, expected.length);
  assert.ok(Buffer.concat(chunks).equals(expected));
});

test('every call but features() gives a promise', async (t) => {
  const directory = tempDir(t);
  const diff = { upper: { directories: [directory], whiteouts: 'overlay' as const } };
  const missing = join(directory, 'missing');
  const calls = [
    engine.hashFile(missing),
    engine.changes(diff),
    engine.diffSize(diff),
    engine.usage(directory),
    engine.mounts(directory),
    engine.batch([]),
    engine.syncFs([directory]),
    engine.removeTree(missing),
    engine.unmount(missing),
  ];
  for (const call of calls) assert.ok(call instanceof Promise);
  await Promise.allSettled(calls);
});

test('results that come faster than they are dealt with leave turns of the loop to others', LIMIT, async (t) => {
  const directory = tempDir(t);
  let calls = 0;
  let turns = 0;
  let running = true;
  const count = (): void => {
    turns += 1;
    if (running) setImmediate(count);
  };
  setImmediate(count);
  const worker = async (): Promise<void> => {
    for (let i = 0; i < 30; i++) {
      await engine.batch([{ op: 'unlink', path: join(directory, 'none'), missingOk: true }]);
      calls += 1;
      const end = performance.now() + 0.5;
      while (performance.now() < end); // what a caller does about it, while the next results arrive
    }
  };
  await Promise.all(Array.from({ length: 64 }, worker));
  running = false;
  assert.ok(turns * 32 > calls, `${turns} turns for ${calls} results`);
});
