/** A failure at each step of each operation: the error comes through, nothing is left, and the store works on. */
import assert from 'node:assert/strict';
import { mkdir, readdir, rename, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MetadataStore } from '../../../src/metadata/metadata-store.js';
import type { Store } from '../../../src/store/types.js';
import { Bench, bytesOf, failing, streamOf, tarOf, diffIDOf } from './support.js';

const [A, B, C] = [tarOf('a'), tarOf('b'), tarOf('c')];
const fault = (): Error => Object.assign(new Error('the disk is full'), { code: 'ENOSPC', errno: -28 });

async function untouched(bench: Bench, store: Store, layers: number): Promise<void> {
  assert.equal(store.map().size, layers);
  await store.close();
  assert.equal(bench.disk.entries.size, layers, 'driver directories');
  assert.equal((await bench.metadata.list()).layers.length, layers, 'records');
  assert.deepEqual(await readdir(join(bench.root, 'layerstore', 'intents')), []);
  const again = await bench.open();
  for (const layer of again.map().values()) await bytesOf(await layer.tarStream());
  assert.equal(again.map().size, layers);
}

for (const step of ['create', 'applyDiff', 'sync'] as const) {
  for (const when of ['before', 'after'] as const) {
    test(`register: ${step} of the driver fails ${when} it works`, async (t) => {
      const bench = await Bench.make(t);
      const seed = await bench.open();
      const a = await seed.register(streamOf(A));
      await seed.close();
      const error = fault();
      const store = await bench.open({ driver: failing(bench.driver(), step, when, error) });
      await assert.rejects(store.register(streamOf(B), a.chainID), (found) => found === error);
      await untouched(bench, store, 1);
    });

    test(`registerChain: ${step} of the driver fails ${when} it works`, async (t) => {
      const bench = await Bench.make(t);
      const error = fault();
      const store = await bench.open({ driver: failing(bench.driver(), step, when, error) });
      const links = [A, B, C].map((tar) => ({ tar: streamOf(tar), diffID: diffIDOf(tar) }));
      await assert.rejects(store.registerChain(links), (found) => found === error);
      await untouched(bench, store, 0);
    });
  }
}

/** Records whose n-th transaction fails at `step`. */
function failingTransaction(
  metadata: MetadataStore,
  step: string,
  when: 'before' | 'after',
  nth: number,
  error: Error,
): MetadataStore {
  let begun = 0;
  return new Proxy(metadata, {
    get(object, key) {
      const value: unknown = Reflect.get(object, key, object);
      if (typeof value !== 'function') return value;
      if (key !== 'startTransaction') return value.bind(object) as unknown;
      return async () => {
        begun += 1;
        const tx = await object.startTransaction();
        return begun === nth ? failing(tx, step, when, error) : tx;
      };
    },
  });
}

for (const step of ['setSize', 'setParent', 'setDiffID', 'setCacheID', 'commit']) {
  for (const when of ['before', 'after'] as const) {
    test(`registerChain: ${step} of a record in the middle fails ${when} it works`, async (t) => {
      const bench = await Bench.make(t);
      const error = fault();
      const metadataStore = failingTransaction(bench.metadata, step, when, 2, error);
      const store = await bench.open({ metadataStore });
      const links = [A, B, C].map((tar) => ({ tar: streamOf(tar), diffID: diffIDOf(tar) }));
      await assert.rejects(store.registerChain(links), (found) => found === error);
      await untouched(bench, store, 0);
    });
  }
}

for (const step of ['createReadWrite', 'get', 'put'] as const) {
  test(`createRWLayer: ${step} fails`, async (t) => {
    const bench = await Bench.make(t);
    const seed = await bench.open();
    const a = await seed.register(streamOf(A));
    await seed.close();
    const error = fault();
    const store = await bench.open({ driver: failing(bench.driver(), step, 'before', error) });
    const creating = store.createRWLayer('box', a.chainID, { initFunc: () => undefined });
    await assert.rejects(creating, (found) => found === error);
    assert.equal(store.mounts().size, 0);
    await untouched(bench, store, 1);
  });
}

for (const when of ['before', 'after'] as const) {
  test(`createRWLayer: the record fails ${when} it is written`, async (t) => {
    const bench = await Bench.make(t);
    const error = fault();
    const store = await bench.open({ metadataStore: failing(bench.metadata, 'setMountID', when, error) });
    await assert.rejects(store.createRWLayer('box'), (found) => found === error);
    await untouched(bench, store, 0);
    assert.deepEqual((await bench.metadata.list()).mounts, []);
  });
}

test('release: a record that cannot be removed leaves the layer and its handle', async (t) => {
  const bench = await Bench.make(t);
  const error = fault();
  const store = await bench.open({ metadataStore: failing(bench.metadata, 'remove', 'before', error) });
  const a = await store.register(streamOf(A));
  const b = await store.register(streamOf(B), a.chainID);
  await store.release(a);
  await assert.rejects(store.release(b), (found) => found === error);
  assert.equal(store.map().size, 2);
  assert.deepEqual(await bytesOf(await b.tarStream()), B);
  assert.equal((await store.release(b)).length, 2, 'the handle is still one');
});

test('release: files that cannot be renamed are removed by cleanup', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open({ driver: failing(bench.driver(), 'detach', 'before', fault()) });
  const a = await store.register(streamOf(A));
  assert.equal((await store.release(a)).length, 1);
  const ids = [...bench.disk.entries.keys()];
  assert.equal(ids.length, 1);
  assert.equal(store.map().size, 0);
  const report = await store.cleanup();
  assert.deepEqual(
    report.items.map(({ kind, what }) => [kind, what]),
    [['leftover', ids[0]]],
  );
  assert.equal(bench.disk.entries.size, 0);
  assert.deepEqual((await store.cleanup()).items, []);
});

test('releaseRWLayer: a record that cannot be removed leaves the RW layer', async (t) => {
  const bench = await Bench.make(t);
  const error = fault();
  const store = await bench.open({ metadataStore: failing(bench.metadata, 'removeMount', 'before', error) });
  const box = await store.createRWLayer('box');
  await assert.rejects(store.releaseRWLayer(box), (found) => found === error);
  assert.equal(store.mounts().size, 1);
  await box.mount();
  await box.unmount();
  await store.releaseRWLayer(box);
  await untouched(bench, store, 0);
});

for (const [step, when] of [
  ['commitDiff', 'before'],
  ['commitDiff', 'after'],
  ['sync', 'before'],
] as const) {
  test(`consuming commit: ${step} fails ${when} it works, and the RW layer has its files`, async (t) => {
    const bench = await Bench.make(t);
    const error = fault();
    const store = await bench.open({ driver: failing(bench.driver(), step, when, error) });
    const box = await store.createRWLayer('box');
    await box.applyDiff(streamOf(B));
    await assert.rejects(store.commit(box, { consume: true }), (found) => found === error);
    assert.deepEqual(await bytesOf(await box.tarStream()), B);
    const layer = await store.commit(box, { consume: true });
    assert.deepEqual(await bytesOf(await layer.tarStream()), B);
    assert.equal(store.mounts().size, 0);
  });
}

test('consuming commit: a record that fails to be published gives the files back', async (t) => {
  const bench = await Bench.make(t);
  const error = fault();
  const metadataStore = failingTransaction(bench.metadata, 'commit', 'after', 1, error);
  const store = await bench.open({ metadataStore });
  const box = await store.createRWLayer('box');
  await box.applyDiff(streamOf(B));
  await assert.rejects(store.commit(box, { consume: true }), (found) => found === error);
  assert.equal(store.map().size, 0);
  assert.deepEqual(await bytesOf(await box.tarStream()), B);
  assert.deepEqual((await bench.metadata.list()).layers, []);
});

test('retain: a list that cannot be written keeps the old one', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  await store.retain(a.chainID, 'one');

  // A directory in the list's place: the rename onto it fails, whoever we are.
  const path = join(bench.root, 'layerstore', 'references.json');
  await rename(path, `${path}.aside`);
  await mkdir(path);
  await assert.rejects(store.retain(a.chainID, 'two'), /keep a reference/);
  await assert.rejects(store.dropReference('one'), /drop a reference/);
  assert.deepEqual(
    store.references().map(({ name }) => name),
    ['one'],
  );
  await rmdir(path);
  await rename(`${path}.aside`, path);
  await store.retain(a.chainID, 'two');
  assert.equal(store.references().length, 2);
});
