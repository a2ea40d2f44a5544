/** Writable layers: counts of mounts, release, commit, init layers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FullMemoryDriver, type MemoryDriver } from './memory-driver.js';
import { Bench, bytesOf, code, diffIDOf, failing, requiredOnly, streamOf, tarOf } from './support.js';

const [A, B] = [tarOf('a'), tarOf('b')];
const count = (driver: MemoryDriver, call: string): number => driver.calls.filter((each) => each === call).length;

test('mounts count over all handles, and mounts at once make one', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  const store = await bench.open({ driver });
  const a = await store.register(streamOf(A));
  const one = await store.createRWLayer('box', a.chainID);
  const two = await store.getRWLayer('box');
  const paths = await Promise.all([one.mount(), two.mount(), one.mount()]);
  assert.equal(new Set(paths).size, 1);
  assert.equal(count(driver, 'mount'), 1);
  assert.equal(one.mountCount, 3);
  assert.deepEqual(store.mounts().get('box')?.path, paths[0]);
  await assert.rejects(store.releaseRWLayer(two), code('ERR_ACTIVE_MOUNT', "1 of this handle's mounts"));
  await two.unmount();
  assert.deepEqual(await store.releaseRWLayer(two), [], 'another handle is left');
  await assert.rejects(two.mount(), code('ERR_LAYER_NOT_RETAINED'));
  await assert.rejects(store.releaseRWLayer(two), code('ERR_LAYER_NOT_RETAINED'));
  await assert.rejects(one.mount('label'), code('ERR_INVALID_ARGUMENT', 'without a label'));
  await one.unmount();
  await one.unmount();
  assert.equal(count(driver, 'unmount'), 1);
  await assert.rejects(one.unmount(), code('ERR_NOT_MOUNTED'));
  assert.deepEqual(await store.release(a), []);
  const removed = await store.releaseRWLayer(one);
  assert.deepEqual(
    removed.map(({ chainID }) => chainID),
    [a.chainID],
  );
  await assert.rejects(store.getRWLayer('box'), code('ERR_MOUNT_DOES_NOT_EXIST', '"box"'));
  await store.close();
  assert.equal(bench.disk.entries.size, 0);
});

test('a mount of another handle may be unmounted, and the last handle goes only unmounted', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const one = await store.createRWLayer('box');
  const two = await store.getRWLayer('box');
  await one.mount();
  await store.releaseRWLayer(two);
  const three = await store.getRWLayer('box');
  await three.unmount();
  assert.equal(one.mountCount, 0);
  await store.releaseRWLayer(one);
  await three.mount();
  await assert.rejects(store.releaseRWLayer(three), code('ERR_ACTIVE_MOUNT'));
  await three.unmount();
  await store.releaseRWLayer(three);
});

test('await using unmounts', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const box = await store.createRWLayer('box');
  const mounted = await box.mounted();
  assert.equal(box.mountCount, 1);
  await mounted[Symbol.asyncDispose]();
  await mounted[Symbol.asyncDispose]();
  assert.equal(box.mountCount, 0);
});

test('a failed unmount keeps the count; a failed mount leaves none', async (t) => {
  const bench = await Bench.make(t);
  const busy = Object.assign(new Error('busy'), { code: 'EBUSY' });
  const store = await bench.open({ driver: failing(bench.driver(), 'put', 'before', busy) });
  const a = await store.register(streamOf(A));
  const box = await store.createRWLayer('box', a.chainID);
  await box.mount();
  await assert.rejects(box.unmount(), (error) => error === busy);
  assert.equal(box.mountCount, 1);
  await box.unmount();
  await store.close();
  const again = await bench.open({ driver: failing(bench.driver(), 'get', 'before', busy) });
  const back = await again.getRWLayer('box');
  await assert.rejects(back.mount(), (error) => error === busy);
  assert.equal(back.mountCount, 0);
  assert.equal(await back.mount(), again.mounts().get('box')?.path);
});

test('a mount that vanished is noticed', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  const store = await bench.open({ driver });
  const a = await store.register(streamOf(A));
  const box = await store.createRWLayer('box', a.chainID);
  await box.mount();
  bench.disk.mounts.clear();
  await box.mount();
  assert.equal(count(driver, 'mount'), 2);
  assert.equal(box.mountCount, 2);
  assert.ok(bench.lines.some(({ level, message }) => level === 'warn' && message.includes('vanished')));
  bench.disk.mounts.clear();
  await box.unmount();
  await box.unmount();
  assert.equal(box.mountCount, 0);
});

test('live mounts are adopted with count 1, views of a dead process are not', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const box = await store.createRWLayer('box', a.chainID);
  const path = await box.mount();
  await box.mount();
  await store.close();
  const [layerID] = bench.disk.entries.keys();
  bench.disk.mounts.set(layerID as string, '/memory/view');
  for (const entry of bench.disk.entries.values()) entry.mounts = 0; // the counts went with the process
  const driver = new FullMemoryDriver(bench.disk);
  const again = await bench.open({ driver });
  assert.deepEqual(again.mounts().get('box')?.mountCount, 1);
  assert.equal(again.mounts().get('box')?.path, path);
  assert.equal(bench.disk.mounts.has(layerID as string), false);
  const back = await again.getRWLayer('box');
  await assert.rejects(again.releaseRWLayer(back), code('ERR_ACTIVE_MOUNT'));
  assert.equal(await back.mount('some:label'), path, 'nobody knows the label of an adopted mount');
  assert.equal(count(driver, 'mount'), 0);
  await back.unmount();
  await back.unmount();
  assert.equal(count(driver, 'unmount'), 2);
  await again.releaseRWLayer(back);
});

test('an init layer is filled before, and its failure comes through as it is', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  const store = await bench.open({ driver });
  const a = await store.register(streamOf(A));
  const own = new Error('mine');
  const initFunc = (): never => {
    throw own;
  };
  await assert.rejects(store.createRWLayer('box', a.chainID, { initFunc }), (error) => error === own);
  assert.equal(bench.disk.entries.size, 1);
  assert.equal(bench.disk.mounts.size, 0);
  let filled = '';
  const box = await store.createRWLayer('box', a.chainID, { initFunc: async (root) => void (filled = root) });
  assert.match(filled, /-init$/);
  assert.equal(bench.disk.entries.size, 3);
  assert.equal(count(driver, 'mount'), count(driver, 'unmount'));
  await store.releaseRWLayer(box);
  await store.close();
  assert.equal(bench.disk.entries.size, 1);
});

test('names are taken once, also by calls at once', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const results = await Promise.allSettled(['box', 'box', 'box'].map((name) => store.createRWLayer(name)));
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected']);
  await assert.rejects(store.createRWLayer('box'), code('ERR_MOUNT_NAME_CONFLICT', '"box"'));
  assert.equal(bench.disk.entries.size, 1);
  assert.match(await store.getMountID('box'), /^[0-9a-f]{64}$/);
});

for (const [kind, consume] of [
  ['full', false],
  ['full', true],
  ['required', false],
  ['required', true],
] as const) {
  test(`commit, ${kind} driver, ${consume ? 'consuming' : 'copying'}`, async (t) => {
    const bench = await Bench.make(t);
    if (kind === 'required') bench.metadata = requiredOnly(bench.metadata);
    const driver = bench.driver(kind);
    const store = await bench.open({ driver });
    const a = await store.register(streamOf(A));
    const box = await store.createRWLayer('box', a.chainID);
    await box.applyDiff(streamOf(B));
    if (consume) {
      await box.mount();
      await assert.rejects(store.commit(box, { consume }), code('ERR_ACTIVE_MOUNT'));
      await box.unmount();
      const other = await store.getRWLayer('box');
      await assert.rejects(store.commit(box, { consume }), code('ERR_LAYER_IN_USE'));
      await store.releaseRWLayer(other);
    }
    const wrong = store.commit(box, { consume, diffID: diffIDOf(A) });
    await assert.rejects(wrong, code('ERR_DIGEST_MISMATCH'));
    assert.deepEqual(await bytesOf(await box.tarStream()), B, 'a failed commit changes nothing');
    const layer = await store.commit(box, { consume });
    assert.equal(layer.diffID, diffIDOf(B));
    assert.equal(layer.parent?.chainID, a.chainID);
    assert.deepEqual(await bytesOf(await layer.tarStream()), B);
    assert.equal(store.mounts().has('box'), !consume);
    if (consume) await assert.rejects(box.size(), code('ERR_LAYER_NOT_RETAINED'));
    else await store.releaseRWLayer(box);
    await store.release(a);
    assert.equal((await store.release(layer)).length, 2);
    await store.close();
    assert.equal(bench.disk.entries.size, 0);
  });
}

test('a consuming commit that finds its layer there already drops the RW layer all the same', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const b = await store.register(streamOf(B));
  const box = await store.createRWLayer('box');
  await box.applyDiff(streamOf(B));
  const layer = await store.commit(box, { consume: true });
  assert.equal(layer.chainID, b.chainID);
  assert.equal(store.mounts().size, 0);
  await store.close();
  assert.equal(bench.disk.entries.size, 1);
});

test('an RW layer keeps its parent', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const creating = store.createRWLayer('box', a.chainID);
  assert.deepEqual(await store.release(a), []);
  const box = await creating;
  assert.equal(box.parent?.chainID, a.chainID);
  assert.equal((await store.releaseRWLayer(box)).length, 1);
});
