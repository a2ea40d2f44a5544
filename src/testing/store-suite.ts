/** The oracle for whole stores, as tests for `node:test`: layers and RW layers against a flat directory. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { ChainID } from '../digest.js';
import type { ChainLink, Layer, Store } from '../store/types.js';
import { applyChanges } from './apply-changes.js';
import type { TreeChange } from './change-list.js';
import { changeLines, xattrsMatter } from './driver-oracle.js';
import { digestOf } from './engine-suite-tars.js';
import { expectedChanges, expectedSize } from './expected-changes.js';
import { rootLayers, sampleLayers, xattrLayers } from './sample-changes.js';
import { withSuiteDirectory } from './suite-directory.js';
import type { SnapshotOptions, TreeSnapshot } from './tree-snapshot.js';
import { assertSameTree, snapshotTree } from './tree-snapshot.js';

export interface StoreSuiteOptions {
  /** For the titles of the tests. */
  name: string;
  /** Opens a store at `root`; called again after a close for a reopen. */
  open: (root: string) => Promise<Store>;
  privileged?: boolean;
  scratch?: string;
}

/** What {@link checkStoreStack} made, base first. */
export interface StackResult {
  layers: { tar: Buffer; layer: Layer }[];
  /** The flat tree after the last list. */
  tree: TreeSnapshot;
}

/**
 * Applies each list to an RW layer on the layers so far and to a flat directory. After each: the mounted tree, changes
 * and size are as the model says; the commit is the layer that registering the RW layer's tar would give; and its
 * view is the flat tree. The handles of all layers are the caller's.
 */
export async function checkStoreStack(
  store: Store,
  layers: readonly (readonly TreeChange[])[],
  directory: string,
  snapshot: SnapshotOptions = {},
): Promise<StackResult> {
  const flat = join(directory, 'flat');
  mkdirSync(flat);
  const made: StackResult['layers'] = [];
  let before: TreeSnapshot = new Map();
  for (const [number, changes] of layers.entries()) {
    const options = { xattrs: xattrsMatter(layers, number), ...snapshot };
    const where = `layer ${number + 1} of ${layers.length}`;
    const parent = made.at(-1)?.layer;
    const rw = await store.createRWLayer(`suite-${number}`, parent?.chainID);
    const path = await rw.mount();
    applyChanges(path, changes, number);
    applyChanges(flat, changes, number);
    const tree = snapshotTree(flat, options);
    assertSameTree(tree, snapshotTree(path, options), `${where}, mounted`);
    await rw.unmount();
    const expected = expectedChanges(before, tree);
    assert.deepEqual(changeLines(await rw.changes()), expected, `${where}, changes`);
    const changed = new Set(expected.map((line) => line.slice(2)));
    const sized = [...tree.values()].filter((entry) => changed.has(entry.path) && entry.type !== 'directory');
    // A file that was opened for writing, or given the mode it had, may be copied up and count although it is no change.
    const touched = new Set(changes.map((change) => `/${change.path}`));
    const copied = [...tree.values()].filter((entry) => !changed.has(entry.path) && touched.has(entry.path));
    const size = await rw.size();
    const least = expectedSize(sized);
    const most = least + expectedSize(copied.filter((entry) => entry.type !== 'directory'));
    assert.ok(size >= least && size <= most, `${where}, size: ${size} is not from ${least} to ${most}`);
    const tar = await buffer(await rw.tarStream());
    const layer = await store.commit(rw);
    assert.equal(layer.diffID, digestOf(tar), `${where}, the commit is the layer of its tar`);
    assert.ok((await buffer(await layer.tarStream())).equals(tar), `${where}, exported`);
    await store.releaseRWLayer(rw);
    {
      const view = await layer.view();
      assertSameTree(tree, snapshotTree(view.path, options), `${where}, viewed`);
      await view[Symbol.asyncDispose]();
    }
    made.push({ tar, layer });
    before = tree;
  }
  return { layers: made, tree: before };
}

const fromBuffer = (tar: Buffer): Readable => Readable.from(tar.length === 0 ? [] : [tar]);

/** Registers the tests. */
export function storeSuite(options: StoreSuiteOptions): void {
  const { name, open, scratch, privileged = process.getuid?.() === 0 } = options;
  const stacks = {
    'files of every kind': sampleLayers,
    ...(privileged ? { 'owners and devices': rootLayers, 'extended attributes': xattrLayers } : {}),
  };

  describe(`store: ${name}`, () => {
    for (const [what, lists] of Object.entries(stacks)) {
      it(`a stack of layers is the same tree as a flat directory: ${what}`, () =>
        withSuiteDirectory(scratch, async (directory) => {
          const store = await open(join(directory, 'root'));
          const { layers, tree } = await checkStoreStack(store, lists, directory);
          assert.ok((await store.verify()).ok);
          const chainIDs = layers.map(({ layer }) => layer.chainID);
          for (const { layer } of [...layers].reverse()) await store.release(layer);
          assert.equal(store.map().size, 0, 'nothing is left when every handle is gone');

          const serial = await registerOneByOne(store, layers);
          assert.deepEqual(
            serial.map((layer) => layer.chainID),
            chainIDs,
          );
          await compareView(serial.at(-1), tree, 'registered one by one');
          await store.close();

          const other = await open(join(directory, 'other'));
          const links: ChainLink[] = layers.map(({ tar, layer }) => ({ tar: fromBuffer(tar), diffID: layer.diffID }));
          const top = await other.registerChain(links);
          assert.equal(top.chainID, chainIDs.at(-1));
          await compareView(top, tree, 'registered side by side');
          assert.equal(await top.size(), await sumOf(other, top));
          await other.close();
        }));
    }

    it('has the same layers, RW layers and references after a reopen', () =>
      withSuiteDirectory(scratch, async (directory) => {
        const root = join(directory, 'root');
        const first = await open(root);
        const { layers } = await checkStoreStack(first, sampleLayers.slice(0, 2), directory);
        const top = layers.at(-1)?.layer;
        assert.ok(top !== undefined);
        await first.retain(top.chainID, 'suite');
        const rw = await first.createRWLayer('kept', top.chainID);
        const path = await rw.mount();
        applyChanges(path, sampleLayers[2] ?? [], 2);
        const tree = snapshotTree(path);
        await rw.unmount();
        const changes = await rw.changes();
        const known: ChainID[] = [...first.map().keys()].sort();
        await first.close();

        const second = await open(root);
        assert.deepEqual([...second.map().keys()].sort(), known);
        assert.deepEqual(
          second.references().map((each) => `${each.name} ${each.chainID}`),
          [`suite ${top.chainID}`],
        );
        const again = await second.getRWLayer('kept');
        assert.deepEqual(await again.changes(), changes);
        assertSameTree(tree, snapshotTree(await again.mount()), 'after a reopen');
        await again.unmount();
        assert.deepEqual(await second.releaseRWLayer(again), []);
        const removed = await second.dropReference('suite');
        assert.deepEqual(
          removed.map(({ chainID }) => chainID),
          [...layers].reverse().map(({ layer }) => layer.chainID),
        );
        assert.equal(second.map().size, 0);
        await second.close();
      }));
  });
}

async function registerOneByOne(store: Store, layers: StackResult['layers']): Promise<Layer[]> {
  const serial: Layer[] = [];
  for (const { tar } of layers) serial.push(await store.register(fromBuffer(tar), serial.at(-1)?.chainID));
  return serial;
}

async function compareView(layer: Layer | undefined, tree: TreeSnapshot, what: string): Promise<void> {
  assert.ok(layer !== undefined);
  const view = await layer.view();
  try {
    assertSameTree(tree, snapshotTree(view.path), what);
  } finally {
    await view[Symbol.asyncDispose]();
  }
}

async function sumOf(store: Store, top: Layer): Promise<number> {
  let sum = 0;
  for (let layer: Layer | undefined = store.map().get(top.chainID); layer !== undefined; layer = layer.parent)
    sum += await layer.diffSize();
  return sum;
}
