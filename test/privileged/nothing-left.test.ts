/** "Nothing left behind" of layers of very many files: no path of them when close() has resolved. */
import assert from 'node:assert/strict';
import { readdirSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { openStore } from '../../src/store/open.js';
import { Disks } from '../faults/support/disks.js';
import { tempDir } from '../support/temp.js';

/** Empty files in directories of a thousand, by a header that is patched for each. */
function* manyFiles(count: number): Generator<Uint8Array> {
  const header = Buffer.alloc(512);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write('00000000000\0', 124);
  header.write('00000000000\0', 136);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  const BLOCKS = 1000;
  for (let at = 0; at < count; at += BLOCKS) {
    const chunk = Buffer.alloc(BLOCKS * 512);
    for (let n = 0; n < BLOCKS; n++) {
      header.fill(0, 0, 100);
      header.write(`d${at}/${n}`, 0);
      header.write('        ', 148);
      let sum = 0;
      for (const byte of header) sum += byte;
      header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
      header.copy(chunk, n * 512);
    }
    yield chunk;
  }
}

const nothingPending = (removals: number): void => assert.fail(`${removals} removals are pending`);

/** The driver's directories below `root` but for its own `l`. */
function trees(root: string): string[] {
  return readdirSync(join(root, 'overlay2')).filter((name) => name !== 'l');
}

for (const [engine, files] of [
  ['native', 8_000],
  ['js', 1_500],
] as const) {
  test(`${engine}: a tar that ends in its ${files}th file leaves no path`, async (t) => {
    const root = join(tempDir(t, 'many'), 'root');
    const store = await openStore({ root, engine, driver: 'overlay2', durability: 'relaxed' });
    const cut = function* (): Generator<Uint8Array> {
      yield* manyFiles(files);
      yield Buffer.alloc(100, 'x');
    };
    await assert.rejects(store.register(Readable.from(cut(), { objectMode: false })), { code: 'ERR_BAD_TAR' });
    await store.close({ onPending: nothingPending });
    assert.deepEqual(trees(root), []);
  });

  test(`${engine}: an abort after ${files} files leaves no path`, async (t) => {
    const root = join(tempDir(t, 'many'), 'root');
    const store = await openStore({ root, engine, driver: 'overlay2', durability: 'relaxed' });
    const abort = new AbortController();
    const reason = new Error('enough');
    const stalling = async function* (): AsyncGenerator<Uint8Array> {
      yield* manyFiles(files);
      setTimeout(() => abort.abort(reason), 300);
      await new Promise(() => undefined);
    };
    await assert.rejects(
      store.register(Readable.from(stalling(), { objectMode: false }), undefined, { signal: abort.signal }),
      (error) => error === reason,
    );
    await store.close({ onPending: nothingPending });
    assert.deepEqual(trees(root), []);
  });
}

test('a disk that ran out of inodes has all of them again', async (t) => {
  const disks = Disks.cloning(t);
  const place = disks.mount(disks.image('ext4', { bytes: 24 * 1024 * 1024, mkfs: ['-N', '3000'] }), 'ext4');
  const root = join(place, 'root');
  await (await openStore({ root, engine: 'native', driver: 'overlay2' })).close();
  const { ffree } = statfsSync(place);
  const store = await openStore({ root, engine: 'native', driver: 'overlay2', limits: { minFreeBytes: 0 } });
  await assert.rejects(store.register(Readable.from(manyFiles(4_000), { objectMode: false })), {
    errnoName: 'ENOSPC',
  });
  await store.close({ onPending: nothingPending });
  assert.deepEqual(trees(root), []);
  assert.equal(statfsSync(place).ffree, ffree);
  disks.unmount(place);
});
