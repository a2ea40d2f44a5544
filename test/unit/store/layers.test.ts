/** Read-only layers: registration, handles, references, removal. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { test, type TestContext } from 'node:test';
import { createChainID, type ChainID } from '../../../src/digest.js';
import type { Progress } from '../../../src/engine/engine.js';
import { LayerStoreError } from '../../../src/errors.js';
import { emptyLayer } from '../../../src/store/without-store.js';
import type { Layer } from '../../../src/store/types.js';
import { FullMemoryDriver } from './memory-driver.js';
import { Bench, bytesOf, code, diffIDOf, requiredOnly, streamOf, tarOf } from './support.js';

const [A, B, C] = [tarOf('a'), tarOf('b'), tarOf('c')];

for (const kind of ['full', 'required'] as const) {
  const options = async (t: TestContext) => {
    const bench = await Bench.make(t);
    if (kind === 'required') bench.metadata = requiredOnly(bench.metadata);
    return { bench, open: () => bench.open({ driver: bench.driver(kind) }) };
  };

  test(`${kind}: a chain registers, is read back, and goes top first with its last handle`, async (t) => {
    const { bench, open } = await options(t);
    const store = await open();
    const a = await store.register(streamOf(A));
    const b = await store.register(streamOf(B), a.chainID);
    assert.equal(a.chainID, diffIDOf(A));
    assert.equal(b.chainID, createChainID([diffIDOf(A), diffIDOf(B)]));
    assert.equal(b.parent?.chainID, a.chainID);
    assert.deepEqual(await bytesOf(await b.tarStream()), B);
    assert.equal(await b.size(), A.length + B.length);
    assert.equal(await b.diffSize(), B.length);
    assert.deepEqual([...store.map().keys()], [a.chainID, b.chainID]);
    assert.deepEqual(await store.release(a), [], 'its child keeps it');
    const removed = await store.release(b);
    assert.deepEqual(removed, [
      { chainID: b.chainID, diffID: diffIDOf(B), size: A.length + B.length, diffSize: B.length },
      { chainID: a.chainID, diffID: diffIDOf(A), size: A.length, diffSize: A.length },
    ]);
    assert.equal(store.map().size, 0);
    await store.close();
    assert.equal(bench.disk.entries.size, 0);
    assert.deepEqual(await bench.metadata.list(), { layers: [], mounts: [] });
  });

  test(`${kind}: layers and RW layers are there after a reopen, and their handles are not`, async (t) => {
    const { bench, open } = await options(t);
    const store = await open();
    const a = await store.register(streamOf(A));
    const b = await store.register(streamOf(B), a.chainID);
    await store.createRWLayer('box', b.chainID, { initFunc: () => undefined });
    await store.retain(a.chainID, 'kept');
    await store.close();
    const again = await open();
    assert.deepEqual([...again.map().keys()].sort(), [a.chainID, b.chainID].sort());
    assert.deepEqual(again.references(), [{ name: 'kept', chainID: a.chainID }]);
    assert.equal(again.mounts().get('box')?.parent, b.chainID);
    assert.match(again.mounts().get('box')?.initID ?? '', /-init$/);
    await assert.rejects(again.release(a), code('ERR_LAYER_NOT_RETAINED', 'another store'));
    const box = await again.getRWLayer('box');
    const removed = await again.releaseRWLayer(box);
    assert.deepEqual(
      removed.map(({ chainID }) => chainID),
      [b.chainID],
      'the reference keeps the base',
    );
    const gone = await again.dropReference('kept');
    assert.deepEqual(
      gone.map(({ chainID }) => chainID),
      [a.chainID],
    );
    await again.close();
    assert.equal(bench.disk.entries.size, 0);
  });
}

test('a handle works once, and what is lent is none', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const lent = store.map().get(a.chainID) as Layer;
  const b = await store.register(streamOf(B), a.chainID);
  const not = code('ERR_LAYER_NOT_RETAINED');
  await assert.rejects(store.release(lent), not);
  await assert.rejects(store.release(b.parent as Layer), not);
  await assert.rejects(store.release({} as Layer), not);
  await assert.rejects(store.release(undefined as never), not);
  await store.release(b);
  await assert.rejects(store.release(b), not);
  await assert.rejects(b.tarStream(), not);
  await assert.rejects(b.size(), not);
  await assert.rejects(b.metadata(), not);
  await assert.rejects(b.view(), not);
  assert.equal(await lent.size(), A.length, 'what is lent reads as long as the layer is there');
  await store.release(a);
  await assert.rejects(store.release(a), not);
  await assert.rejects(lent.size(), code('ERR_LAYER_DOES_NOT_EXIST'));
  await assert.rejects(store.get(a.chainID), code('ERR_LAYER_DOES_NOT_EXIST'));
});

test('the same layer registered twice is one layer with two handles', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const one = await store.register(streamOf(A));
  const two = await store.register(streamOf(A));
  assert.notEqual(one, two);
  assert.equal(bench.disk.entries.size, 1);
  assert.deepEqual(await store.release(one), []);
  assert.equal((await store.release(two)).length, 1);
});

test('equal registrations at once are unpacked once; a failed one is followed by the next', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  const store = await bench.open({ driver });
  const diffID = diffIDOf(A);
  const layers = await Promise.all([1, 2, 3, 4].map(() => store.register(streamOf(A), undefined, { diffID })));
  assert.equal(driver.calls.filter((call) => call === 'applyDiff').length, 1);
  for (const layer of layers) await store.release(layer);
  assert.equal(store.map().size, 0);

  const controller = new AbortController();
  const first = store.register(streamOf(A), undefined, { diffID, signal: controller.signal });
  const second = store.register(streamOf(A), undefined, { diffID });
  const reason = new Error('enough');
  controller.abort(reason);
  await assert.rejects(first, (error) => error === reason);
  await store.release(await second);
});

test('a wrong diff id keeps nothing, whether the layer is there or not', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const diffID = diffIDOf(A);
  const wrong = code('ERR_DIGEST_MISMATCH', diffID);
  await assert.rejects(store.register(streamOf(B), undefined, { diffID }), wrong);
  assert.equal(store.map().size, 0);
  const a = await store.register(streamOf(A), undefined, { diffID });
  await assert.rejects(store.register(streamOf(B), undefined, { diffID }), wrong);
  assert.deepEqual([...store.map().keys()], [a.chainID]);
  assert.equal((await store.release(a)).length, 1, 'the failed registration holds nothing');
  await store.close();
  assert.equal(bench.disk.entries.size, 0);
});

test('a descriptor is checked and kept', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const descriptor = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: diffIDOf(A), size: A.length };
  const layer = await store.registerWithDescriptor(streamOf(A), undefined, descriptor);
  assert.deepEqual(layer.descriptor, descriptor);
  const other = { ...descriptor, size: 5 };
  await assert.rejects(
    store.registerWithDescriptor(streamOf(A), undefined, other),
    code('ERR_DIGEST_MISMATCH', 'size'),
  );
  await assert.rejects(
    store.registerWithDescriptor(streamOf(B), undefined, descriptor),
    code('ERR_DIGEST_MISMATCH', 'digest'),
  );
});

test('the depth of a chain is limited', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open({ maxDepth: 2 });
  const a = await store.register(streamOf(A));
  const b = await store.register(streamOf(B), a.chainID);
  const deep = code('ERR_MAX_DEPTH_EXCEEDED', '3 layers');
  await assert.rejects(store.register(streamOf(C), b.chainID), deep);
  const links = [A, B, C].map((tar) => ({ tar: streamOf(tar), diffID: diffIDOf(tar) }));
  await assert.rejects(store.registerChain(links), deep);
  const box = await store.createRWLayer('box', b.chainID);
  await assert.rejects(store.commit(box), deep);
});

test('a parent that is released meanwhile lives as long as its child, and goes if there comes none', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const pending = store.register(streamOf(B), a.chainID);
  assert.deepEqual(await store.release(a), []);
  const b = await pending;
  assert.equal((await store.release(b)).length, 2);

  const again = await store.register(streamOf(A));
  const failing = store.register(streamOf(Buffer.from('no tar')), again.chainID);
  assert.deepEqual(await store.release(again), []);
  await assert.rejects(failing, code('ERR_BAD_TAR'));
  assert.equal(store.map().size, 0);
});

test('a failed registration leaves an unheld parent in place', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  await store.close();
  const again = await bench.open();
  await assert.rejects(again.register(streamOf(Buffer.from('no tar')), a.chainID), code('ERR_BAD_TAR'));
  assert.equal(again.map().size, 1);
});

test('references keep, expire, move and are dropped', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const b = await store.register(streamOf(B));
  await Promise.all([store.retain(a.chainID, 'one'), store.retain(a.chainID, 'two'), store.retain(b.chainID, 'three')]);
  assert.deepEqual(await store.release(a), []);
  assert.deepEqual(await store.dropReference('one'), []);
  await store.retain(b.chainID, 'two');
  assert.equal(store.map().size, 2, 'a moved reference leaves removal to gc');
  await assert.rejects(store.dropReference('one'), code('ERR_LAYER_NOT_RETAINED', '"one"'));
  await assert.rejects(store.retain(`sha256:${'0'.repeat(64)}` as ChainID, 'x'), code('ERR_LAYER_DOES_NOT_EXIST'));
  await store.retain(b.chainID, 'short', { expires: new Date(Date.now() - 1) });
  assert.deepEqual(
    store
      .references()
      .map(({ name }) => name)
      .sort(),
    ['three', 'two'],
  );
  const report = await store.gc({ dryRun: true });
  assert.deepEqual(
    report.removed.map(({ chainID }) => chainID),
    [a.chainID],
  );
  assert.equal(store.map().size, 2);
  const swept = await store.gc();
  assert.deepEqual(swept.removed, report.removed);
  assert.equal(swept.items.find(({ kind }) => kind === 'layer')?.what, a.chainID);
  assert.deepEqual([...store.map().keys()], [b.chainID]);
});

test('a layer that is read keeps its files until the reader is done', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const stream = await a.tarStream();
  assert.equal((await store.release(a)).length, 1);
  const back = await store.register(streamOf(A));
  assert.equal(bench.disk.entries.size, 2, 'the old files and the new ones');
  assert.deepEqual(await bytesOf(stream), A);
  // Reading has ended, removal follows it.
  while (bench.disk.entries.size > 1) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(bench.disk.entries.size, 1);
  await store.release(back);
  await store.close();
  assert.equal(bench.disk.entries.size, 0);
});

test('close waits for running work and ends streams that are still read', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const stream = await a.tarStream();
  const running = store.register(streamOf(B), a.chainID);
  const failed = new Promise((resolve) => stream.once('error', resolve));
  const closed = store.close();
  const refused = code('ERR_STORE_CLOSED');
  await assert.rejects(store.get(a.chainID), refused);
  await assert.rejects(store.register(streamOf(C)), refused);
  await assert.rejects(a.size(), refused);
  assert.throws(() => store.map(), refused);
  await closed;
  await running;
  assert.ok(LayerStoreError.is(await failed, 'ERR_STORE_CLOSED'));
  assert.equal(store.closed, true);
  await store.close();
  const again = await bench.open();
  assert.equal(again.map().size, 2, 'closing removed nothing');
});

test('corrupt bytes end a stream with an error', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  for (const entry of bench.disk.entries.values()) entry.tar = B;
  await assert.rejects(bytesOf(await a.tarStream()), code('ERR_LAYER_CORRUPT'));
  const report = await store.verify();
  assert.equal(report.ok, false);
  assert.equal(report.layers[0]?.problems[0]?.chainID, a.chainID);
  await assert.rejects(store.repair(a.chainID, streamOf(B)), code('ERR_DIGEST_MISMATCH'));
  const checked = await store.register(streamOf(A), undefined, { diffID: a.diffID, verifyExisting: true });
  assert.equal((await store.verify(a.chainID)).ok, true);
  for (const entry of bench.disk.entries.values()) entry.tar = B;
  await store.register(streamOf(A), undefined, { verifyExisting: true });
  assert.equal((await store.verify(a.chainID)).ok, true);
  for (const entry of bench.disk.entries.values()) entry.tar = B;
  await store.repair(a.chainID, streamOf(A));
  assert.deepEqual(await bytesOf(await checked.tarStream()), A);
  assert.equal(bench.disk.entries.size, 1);
});

for (const compression of [undefined, 'gzip'] as const) {
  test(`an export of a driver's exact tar and of the empty layer reports progress and ends at an abort, ${compression ?? 'plain'}`, async (t) => {
    const bench = await Bench.make(t);
    const store = await bench.open();
    for (const layer of [await store.register(streamOf(A)), emptyLayer]) {
      const path = `${bench.root}.out`;
      const form = compression === undefined ? {} : { compression };
      const reports: Progress[] = [];
      const { bytes, diffID } = await layer.exportTo(
        { path },
        { ...form, onProgress: (report) => reports.push(report) },
      );
      assert.equal(diffID, layer.diffID);
      assert.deepEqual(reports.at(-1), { bytesRead: bytes, bytesUnpacked: 0, entries: 0 });
      const reason = new Error('enough');
      const during = new AbortController();
      const aborted = layer.exportTo(
        { path },
        { ...form, signal: during.signal, onProgress: () => during.abort(reason) },
      );
      await assert.rejects(aborted, (error) => error === reason);
      const before = AbortSignal.abort(reason);
      await assert.rejects(layer.exportTo({ path }, { ...form, signal: before }), (error) => error === reason);
    }
    assert.deepEqual((await readdir(dirname(bench.root))).sort(), ['root', 'root.out']);
  });
}
