/**
 * Every limit stops a layer that exceeds it: in both engines, set for the store and for one call, with an error that
 * names it and says how to raise it, and with nothing left behind. Raised or lifted for the call, the layer is taken.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { UnpackLimits } from '../../src/engine/engine.js';
import { DEFAULT_LIMITS } from '../../src/engine/limits.js';
import { openEngine } from '../../src/engine/select.js';
import { LayerStoreError } from '../../src/errors.js';
import { openStore } from '../../src/store/open.js';
import { buildTar, storedZstd, type TarEntry } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';
import { ENGINES, repeated, streamOf } from './support.js';

interface Over {
  limits: UnpackLimits;
  tar: Uint8Array;
  /** What takes the same layer, where that is not `Infinity`. */
  enough?: number;
}

const one = (entry: TarEntry): Uint8Array => buildTar([entry]);

/** A zstd frame of one block whose header asks for a window of 1 MiB. */
function zstdWithWindow(bytes: Buffer): Buffer {
  const header = Buffer.alloc(3);
  header.writeUIntLE((bytes.length << 3) | 1, 0, 3);
  return Buffer.concat([Buffer.from('28b52ffd0050', 'hex'), header, bytes]);
}

const OVER: Readonly<Record<Exclude<keyof UnpackLimits, 'maxRatio'>, Over>> = {
  maxBytes: { limits: { maxBytes: 4096 }, tar: one({ name: 'a', content: 'x'.repeat(5000) }) },
  maxEntries: { limits: { maxEntries: 2 }, tar: buildTar([{ name: 'a' }, { name: 'b' }, { name: 'c' }]) },
  maxPathLength: { limits: { maxPathLength: 20 }, tar: one({ name: 'p'.repeat(21) }) },
  maxPathDepth: { limits: { maxPathDepth: 3 }, tar: one({ name: 'a/b/c/d' }) },
  maxHeaderBytes: { limits: { maxHeaderBytes: 4096 }, tar: one({ name: 'a', pax: { comment: 'x'.repeat(8000) } }) },
  maxXattrBytes: {
    limits: { maxXattrBytes: 100 },
    tar: one({ name: 'a', pax: { 'SCHILY.xattr.user.a': 'v'.repeat(100) } }),
  },
  maxXattrs: {
    limits: { maxXattrs: 1 },
    tar: one({ name: 'a', pax: { 'SCHILY.xattr.user.a': '1', 'SCHILY.xattr.user.b': '2' } }),
  },
  maxLinkLength: { limits: { maxLinkLength: 10 }, tar: one({ name: 'l', type: '2', linkname: 't'.repeat(11) }) },
  maxWindow: { limits: { maxWindow: 512 << 10 }, tar: zstdWithWindow(buildTar([{ name: 'a', content: 'x' }])) },
  maxKeptBytes: {
    limits: { maxKeptBytes: 5000 },
    tar: buildTar([
      { name: 'a', content: '1'.repeat(6000) },
      { name: 'a', content: '2' },
    ]),
  },
  minFreeBytes: { limits: { minFreeBytes: Number.MAX_SAFE_INTEGER }, tar: one({ name: 'a' }), enough: 0 },
};

function exceeds(name: string): (error: unknown) => true {
  return (error) => {
    if (!LayerStoreError.is(error, 'ERR_LIMIT_EXCEEDED')) throw error;
    assert.equal(error.detail, name);
    assert.match(error.message, new RegExp(`limit ${name}\\b.*raise it with.*${name}`));
    return true;
  };
}

test('every limit is in this table', () => {
  const all = [...Object.keys(DEFAULT_LIMITS), 'minFreeBytes'].filter((name) => name !== 'maxRatio');
  assert.deepEqual(Object.keys(OVER).sort(), all.sort());
});

/** Files below a root; what the background is still unlinking is not there any more for anybody. */
function filesOf(root: string): string[] {
  return execFileSync('find', [root, '-mindepth', '1', '-printf', '%P\n'], { encoding: 'utf8' })
    .split('\n')
    .filter((path) => !path.includes('/.removing-'))
    .sort();
}

for (const engine of ENGINES) {
  test(`directories that no entry names count as entries (${engine})`, async (t) => {
    const run = await openEngine({ engine });
    const take = (depth: number): Promise<unknown> =>
      run.ingest(streamOf([buildTar([{ name: `${'d/'.repeat(depth)}f` }])]), {
        directory: tempDir(t, 'implied'),
        whiteouts: 'overlay',
        limits: { maxEntries: 10 },
      });
    await assert.rejects(take(10), exceeds('maxEntries'));
    await take(9);
  });

  test(`an archive of very many entries costs no more than the limit allows (${engine})`, async (t) => {
    const directory = tempDir(t, 'many');
    const entries = 120_000;
    let given = 0;
    const tar = function* (): Generator<Buffer> {
      const blocks = Array.from({ length: 500 }, (_, n) => buildTar([{ name: `f${n}` }], { end: false }));
      for (; given < entries; given += blocks.length) yield Buffer.concat(blocks);
    };
    const run = await openEngine({ engine });
    const request = { directory, whiteouts: 'overlay', limits: { maxEntries: 1_000 } } as const;
    await assert.rejects(run.ingest(streamOf(tar()), request), exceeds('maxEntries'));
    // The blocks on their way, at most 8 MiB, are read before the limit is known.
    assert.ok(given < entries / 2, `${given} entries were read`);
    assert.ok(readdirSync(directory).length <= 500);
  });

  test(`the reserve of free space is kept in the middle of one large file, too (${engine})`, async (t) => {
    const directory = tempDir(t, 'reserve');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128m', 'tmpfs', directory]);
    const run = await openEngine({ engine });
    const size = 200 << 20; // more than there is: a check between entries would come too late
    const header = buildTar([{ name: 'large', size }], { end: false });
    await assert.rejects(
      run.ingest(streamOf([header, ...repeated(Buffer.alloc(1 << 20, 'x'), 200)]), {
        directory,
        whiteouts: 'overlay',
        limits: { minFreeBytes: 40 << 20 },
      }),
      exceeds('minFreeBytes'),
    );
  });

  test(`limits of a store and of a call, and nothing left behind (${engine})`, async (t) => {
    for (const [name, { limits, tar, enough = Infinity }] of Object.entries(OVER)) {
      const root = join(tempDir(t, 'limits'), 'root');
      const options = { root, engine, driver: 'overlay2', durability: 'relaxed' } as const;
      const source = (): Readable => Readable.from([tar], { objectMode: false });
      const strict = await openStore({ ...options, limits });
      const before = filesOf(root);
      await assert.rejects(strict.register(source()), exceeds(name), `${name} of the store`);
      assert.deepEqual(filesOf(root), before, name);
      const layer = await strict.register(source(), undefined, { limits: { [name]: enough } });
      await strict.release(layer);
      await strict.close();
      const plain = await openStore(options);
      await assert.rejects(plain.register(source(), undefined, { limits }), exceeds(name), `${name} of the call`);
      assert.deepEqual([...plain.map().keys()], []);
      await plain.close();
      assert.deepEqual(
        readdirSync(join(root, 'overlay2')).filter((item) => item !== 'l'),
        [],
        name,
      );
    }
  });

  test(`a bomb of zeros is stopped by its ratio after 4 GiB, a small one is not (${engine})`, async (t) => {
    const directory = tempDir(t, 'bomb');
    const run = await openEngine({ engine });
    const end = gzipSync(buildTar([{ name: 'a', content: 'x' }]));
    const zeros = gzipSync(Buffer.alloc(64 << 20), { level: 9 });
    const bomb = (times: number): Readable => streamOf([end, ...repeated(zeros, times)]);
    // Behind the end of the archive they cost no disk; 64 times 64 MiB are 4 GiB.
    await assert.rejects(
      run.ingest(bomb(72), { directory, whiteouts: 'overlay', limits: { minFreeBytes: 0 } }),
      exceeds('maxRatio'),
    );
    const small = await run.ingest(bomb(2), { directory, whiteouts: 'overlay', limits: { minFreeBytes: 0 } });
    assert.ok(small.tarSize / small.blobSize > 900);
  });

  test(`the window that a zstd frame asks for is refused before anything is unpacked (${engine})`, async (t) => {
    const directory = tempDir(t, 'window');
    const run = await openEngine({ engine });
    const frame = storedZstd(buildTar([{ name: 'a' }]));
    // Exponent 21 over 2^10: 2 GiB.
    const huge = Buffer.concat([Buffer.from('28b52ffd00a8', 'hex'), frame.subarray(13)]);
    await assert.rejects(run.ingest(streamOf([huge]), { directory, whiteouts: 'overlay' }), exceeds('maxWindow'));
    assert.deepEqual(readdirSync(directory), []);
  });
}
