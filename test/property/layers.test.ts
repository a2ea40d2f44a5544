/** Any tree, packed by GNU tar or by ourselves, registered and mounted, is the tree; in any chunks; with any engine. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import test from 'node:test';
import fc from 'fast-check';
import { openEngine } from '../../src/engine/select.js';
import { openStore } from '../../src/store/open.js';
import { applyChanges } from '../../src/testing/apply-changes.js';
import { checkSameDifference, checkSameIngest } from '../../src/testing/engine-agreement.js';
import { digestOf, unpack } from '../../src/testing/engine-suite-tars.js';
import { checkStoreStack } from '../../src/testing/store-suite.js';
import type { TarEntry } from '../../src/testing/tar-builder.js';
import { buildTar, gnuLong } from '../../src/testing/tar-builder.js';
import { assertSameTree, snapshotTree } from '../../src/testing/tree-snapshot.js';
import { makeTempDir, removeTempDir } from '../support/temp.js';
import { layersOfChanges } from './arbitrary-layers.js';
import { holds } from './budget.js';

async function inTempDir(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = makeTempDir('property');
  try {
    await work(directory);
  } finally {
    removeTempDir(directory);
  }
}

test('any tree -> GNU tar -> register -> mount is the tree', async (t) => {
  const property = fc.asyncProperty(layersOfChanges(1, 30), ([changes = []]) =>
    inTempDir(async (directory) => {
      const tree = join(directory, 'tree');
      mkdirSync(tree);
      applyChanges(tree, changes);
      const tar = join(directory, 'layer.tar');
      execFileSync('tar', ['--format=posix', '--sort=name', '-C', tree, '-cf', tar, '.']);
      const store = await openStore({ root: join(directory, 'root'), durability: 'relaxed' });
      const layer = await store.register({ path: tar });
      assert.equal(layer.diffID, digestOf(readFileSync(tar)));
      const rw = await store.createRWLayer('mounted', layer.chainID);
      await using mounted = await rw.mounted();
      assertSameTree(snapshotTree(tree, { xattrs: false }), snapshotTree(mounted.path, { xattrs: false }), 'mounted');
      assert.deepEqual(await rw.changes(), []);
      await mounted[Symbol.asyncDispose]();
      const path = join(directory, 'back.tar');
      await layer.exportTo({ path });
      assert.ok(readFileSync(path).equals(readFileSync(tar)), 'exported byte for byte');
      await store.close();
    }),
  );
  await holds(t, property);
});

for (const { driver, directoryTimes } of [
  { driver: 'overlay2', directoryTimes: true },
  { driver: 'vfs', directoryTimes: false },
] as const) {
  test(`any layers of changes on ${driver}: the stack is the flat tree, its changes and sizes are the model's`, async (t) => {
    const property = fc.asyncProperty(layersOfChanges(), (layers) =>
      inTempDir(async (directory) => {
        const store = await openStore({ root: join(directory, 'root'), driver, durability: 'relaxed' });
        await checkStoreStack(store, layers, directory, { xattrs: false, directoryTimes });
        await store.close();
      }),
    );
    await holds(t, property);
  });
}

const field = fc.oneof(
  fc.constantFrom('a', 'dir/', 'dir/b', './', '../x', '/abs', 'dir/.wh.b', 'dir/.wh..wh..opq', '.wh.a', ''),
  fc.string({ maxLength: 120 }),
);
const entry: fc.Arbitrary<TarEntry> = fc.record(
  {
    name: field,
    type: fc.constantFrom('0', '0', '0', '1', '2', '5', '5', '6', '7', '\0', 'V'),
    mode: fc.nat(0o7777),
    uid: fc.constantFrom(0, 1000, 2_097_151, 2_097_152),
    mtime: fc.constantFrom(0, 1, 1_700_000_000, 2 ** 33),
    linkname: field,
    content: fc.constantFrom('', 'x', 'y'.repeat(512), 'z'.repeat(5000)),
    magic: fc.constantFrom('ustar', 'gnu', 'v7'),
    pax: fc.constantFrom(
      { mtime: '1600000000.5' },
      { path: 'from-pax' },
      { 'SCHILY.xattr.user.a': 'b' },
      { size: '1' },
    ),
  },
  { requiredKeys: ['name', 'type'] },
);
/** Entries as data, so that a counterexample can be read; one tar in four is cut somewhere. */
const tarPlan = fc.record({
  entries: fc.array(
    fc.oneof({ weight: 9, arbitrary: entry }, { weight: 1, arbitrary: field.map((text) => gnuLong('L', text)) }),
    { maxLength: 8 },
  ),
  end: fc.boolean(),
  cut: fc.option(fc.nat(20_000), { freq: 3 }),
});
function tarOf({ entries, end, cut }: { entries: TarEntry[]; end: boolean; cut: number | null }): Buffer {
  const tar = buildTar(entries, { end });
  return cut === null ? tar : tar.subarray(0, cut % (tar.length + 1));
}

test('any chunking of the same bytes gives the same result', async (t) => {
  const engines = [await openEngine({ engine: 'native' }), await openEngine({ engine: 'js' })];
  const chunked = fc.tuple(tarPlan, fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 6 }));
  const property = fc.asyncProperty(chunked, ([plan, sizes]) =>
    inTempDir(async (directory) => {
      const tar = tarOf(plan);
      for (const [i, engine] of engines.entries()) {
        const outcome = async (name: string, chunks: Iterable<Buffer>): Promise<unknown> => {
          try {
            const { result, tree } = await unpack(engine, directory, Readable.from(chunks), { name });
            return { result, tree: [...snapshotTree(tree, { xattrs: false, mtime: false })] };
          } catch (error) {
            return (error as { code?: string }).code ?? error;
          }
        };
        const whole = await outcome(`whole${i}`, tar.length === 0 ? [] : [tar]);
        const pieces: Buffer[] = [];
        for (let at = 0, n = 0; at < tar.length; n++) {
          const size = sizes[n % sizes.length] ?? 1;
          pieces.push(tar.subarray(at, at + size));
          at += size;
        }
        assert.deepEqual(await outcome(`pieces${i}`, pieces), whole);
      }
    }),
  );
  await holds(t, property);
});

test('native and js take any tar in the same way, or refuse it with the same code', async (t) => {
  const engines = [await openEngine({ engine: 'native' }), await openEngine({ engine: 'js' })] as const;
  const property = fc.asyncProperty(tarPlan, fc.constantFrom('overlay' as const, 'plain' as const), (plan, whiteouts) =>
    inTempDir(async (directory) => {
      await checkSameIngest(engines, tarOf(plan), directory, { whiteouts, anyRefusal: true });
    }),
  );
  await holds(t, property);
});

test('native and js give the same changes, sizes, tars and layers for any two trees', async (t) => {
  const engines = [await openEngine({ engine: 'native' }), await openEngine({ engine: 'js' })] as const;
  const property = fc.asyncProperty(layersOfChanges(2), (layers) =>
    inTempDir(async (directory) => {
      const [lower, upper] = [join(directory, 'lower'), join(directory, 'upper')];
      for (const path of [lower, upper]) mkdirSync(path);
      for (const [i, changes] of layers.entries()) {
        if (i < layers.length - 1) applyChanges(lower, changes, i);
        applyChanges(upper, changes, i);
      }
      const stack = (path: string) => ({ directories: [path], whiteouts: 'plain' as const });
      await checkSameDifference(engines, { upper: stack(upper), lower: stack(lower) }, directory);
    }),
  );
  await holds(t, property);
});
