/** Engines: directories compared, measured, packed, copied and removed. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { Engine, TreeStack } from '../engine/engine.js';
import { applyChanges } from './apply-changes.js';
import type { TreeChange } from './change-list.js';
import { changeLines } from './driver-oracle.js';
import { digestOf, directoryGetter, unpack } from './engine-suite-tars.js';
import type { EngineTestContext } from './engine-test-context.js';
import { expectedChanges, expectedSize } from './expected-changes.js';
import { rootLayers, sampleLayers, xattrLayers } from './sample-changes.js';
import { assertSameTree, snapshotTree } from './tree-snapshot.js';

const plain = (directory: string): TreeStack => ({ directories: [directory], whiteouts: 'plain' });

/** Two whole trees: after all but the last list, and after all of them. */
function twoTrees(directory: string, layers: readonly (readonly TreeChange[])[]): { before: string; after: string } {
  const [before, after] = [join(directory, 'before'), join(directory, 'after')];
  for (const path of [before, after]) mkdirSync(path);
  for (const [i, changes] of layers.entries()) {
    if (i < layers.length - 1) applyChanges(before, changes, i);
    applyChanges(after, changes, i);
  }
  return { before, after };
}

export function engineTreeTests({ test, privileged }: EngineTestContext): void {
  const samples = { sample: sampleLayers, ...(privileged ? { root: rootLayers, xattr: xattrLayers } : {}) };

  for (const [what, layers] of Object.entries(samples)) {
    for (let count = 1; count <= layers.length; count++) {
      test(`compares two whole trees by Docker's rules: ${what}, ${count} of ${layers.length}`, async (engine, directory) => {
        const { before, after } = twoTrees(directory, layers.slice(0, count));
        const request = { upper: plain(after), lower: plain(before) };
        const [old, now] = [snapshotTree(before), snapshotTree(after)];
        const expected = expectedChanges(old, now);
        const changes = await engine.changes(request);
        assert.deepEqual(changeLines(changes), expected);
        for (const { path, rawPath } of changes)
          assert.equal(rawPath === undefined, Buffer.from(path).toString() === path && !path.includes('\ufffd'));
        const changed = new Set(expected.filter((line) => !line.startsWith('D')).map((line) => line.slice(2)));
        const sizes = [...now.values()].filter(({ path, type }) => changed.has(path) && type !== 'directory');
        assert.equal(await engine.diffSize(request), expectedSize(sizes));
        assert.deepEqual(await engine.changes({ upper: plain(after), lower: plain(after) }), []);
      });
    }

    test(`packs a tree and a difference so that unpacking gives the tree: ${what}`, async (engine, directory) => {
      const { before, after } = twoTrees(directory, layers);
      const whole = await buffer(await engine.treeTar({ upper: plain(after) }));
      const copy = await unpack(engine, directory, Readable.from([whole]), { name: 'copy' });
      assertSameTree(
        snapshotTree(after, { mtime: false }),
        snapshotTree(copy.tree, { mtime: false }),
        'the whole tree',
      );
      assert.equal(copy.result.size, expectedSize(snapshotTree(after).values()));
      assert.ok(
        (await buffer(await engine.treeTar({ upper: plain(after) }))).equals(whole),
        'the same tree, the same bytes',
      );

      const difference = await buffer(await engine.treeTar({ upper: plain(after), lower: plain(before) }));
      const onTop = join(directory, 'on-top');
      execFileSync('cp', ['-a', before, onTop]);
      await engine.ingest(Readable.from([difference]), { directory: onTop, whiteouts: 'plain' });
      assertSameTree(snapshotTree(after, { mtime: false }), snapshotTree(onTop, { mtime: false }), 'the difference');
    });

    test(`commits a tree as a layer: ${what}`, async (engine, directory) => {
      const { after } = twoTrees(directory, layers);
      const tar = await buffer(await engine.treeTar({ upper: plain(after) }));
      const [committed, record] = [join(directory, 'committed'), join(directory, 'committed.gz')];
      const result = await engine.commitTree({
        upper: plain(after),
        directory: committed,
        consume: false,
        tarSplit: { path: record },
      });
      assert.equal(result.diffID, digestOf(tar));
      assert.equal(result.tarSize, tar.length);
      assert.equal(result.size, expectedSize(snapshotTree(after).values()));
      const back = await engine.assemble({
        tarSplit: { path: record },
        tree: directoryGetter(committed),
        diffID: result.diffID,
      });
      assert.ok((await buffer(back)).equals(tar));
    });

    test(`copies a tree: ${what}`, async (engine, directory) => {
      const { after } = twoTrees(directory, layers);
      const target = join(directory, 'target');
      mkdirSync(target);
      await engine.copyTree(after, target);
      const mtime = await keepsNanoseconds(engine);
      assertSameTree(
        snapshotTree(after, { root: true, mtime }),
        snapshotTree(target, { root: true, mtime }),
        'the copy',
      );
    });
  }

  test('measures a directory', async (engine, directory) => {
    const { after } = twoTrees(directory, sampleLayers);
    const snapshot = snapshotTree(after, { xattrs: false });
    const usage = await engine.usage(after);
    assert.equal(usage.size, expectedSize(snapshot.values()));
    const inodes = new Set([...snapshot.values()].map(({ path, links }) => links ?? path));
    assert.ok(usage.inodes === inodes.size || usage.inodes === inodes.size + 1, `${usage.inodes} of ${inodes.size}`);
    assert.ok(usage.allocated > 0 && usage.allocated < 3_000_000, 'holes take no room');
  });

  test('removes a tree, not what links in it name', async (engine, directory) => {
    const { after, before } = twoTrees(directory, sampleLayers);
    symlinkSync(before, join(after, 'link-out'));
    mkdirSync(join(after, 'locked', 'inner'), { recursive: true });
    writeFileSync(join(after, 'locked', 'inner', 'file'), '');
    await engine.removeTree(after);
    assert.equal(existsSync(after), false);
    assert.ok(statSync(before).isDirectory() && existsSync(join(before, 'etc/passwd')));
    await engine.removeTree(after);
    const reason = new Error('enough');
    await assert.rejects(engine.removeTree(before, { signal: AbortSignal.abort(reason) }), (error) => error === reason);
    assert.equal(existsSync(before), true);
  });

  test('says what is missing', async (engine, directory) => {
    const gone = join(directory, 'gone');
    for (const attempt of [
      () => engine.changes({ upper: plain(gone) }),
      () => engine.usage(gone),
      () => engine.hashFile(gone),
      () => engine.ingest({ path: gone }, { directory, whiteouts: 'overlay' }),
    ]) {
      await assert.rejects(attempt, { code: 'ERR_SYSTEM', errnoName: 'ENOENT' });
    }
  });
}

/** Whether times arrive to the last digit; without, an engine loses what a double cannot hold. */
async function keepsNanoseconds(engine: Engine): Promise<boolean> {
  const { nanoseconds = 'yes' } = engine.features() as Record<string, string>;
  return nanoseconds === 'yes';
}
