/** Several layers at once. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { ChainLink, Layer } from '../../../src/store/types.js';
import { FullMemoryDriver } from './memory-driver.js';
import { Bench, bytesOf, code, diffIDOf, streamOf, tarOf } from './support.js';

const TARS = ['a', 'b', 'c', 'd'].map(tarOf);
const links = (tars = TARS): ChainLink[] => tars.map((tar) => ({ tar: streamOf(tar), diffID: diffIDOf(tar) }));

test('independent diffs unpack side by side and share one data sync', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  const store = await bench.open({ driver });
  const top = await store.registerChain(links());
  assert.ok(driver.mostAtOnce > 1);
  assert.deepEqual(
    driver.calls.filter((call) => call.startsWith('sync')),
    ['sync 4'],
  );
  assert.equal(top.parent?.parent?.parent?.diffID, diffIDOf(TARS[0] as Buffer));
  assert.deepEqual(await bytesOf(await top.tarStream()), TARS[3]);
  assert.equal((await store.release(top)).length, 4, 'one handle, on the top');
});

test('dependent diffs are unpacked one after the other, with one sync as well', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  driver.capabilities.independentDiffs = false;
  const store = await bench.open({ driver });
  const top = await store.registerChain(links());
  assert.equal(driver.mostAtOnce, 1);
  assert.deepEqual(
    driver.calls.filter((call) => call.startsWith('sync')),
    ['sync 4'],
  );
  assert.equal((await store.release(top)).length, 4);
});

test('what is there is not read', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const below = await store.registerChain(links(TARS.slice(0, 2)));
  let read = false;
  const watched = new Readable({
    read() {
      read = true;
      this.push(null);
    },
  });
  const all = links();
  (all[0] as ChainLink).tar = watched;
  (all[1] as ChainLink).tar = { path: '/no/such/file' };
  const top = await store.registerChain(all);
  assert.equal(read, false);
  assert.equal(watched.destroyed, true, 'an unread source is ended');
  assert.equal(top.parent?.parent?.chainID, below.chainID);
});

test('the same chain twice at once is unpacked once', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  const store = await bench.open({ driver });
  const all = await Promise.all([
    store.registerChain(links()),
    store.registerChain(links(TARS.slice(0, 2))),
    store.registerChain(links()),
    store.register(streamOf(TARS[0] as Buffer)),
    store.register(streamOf(TARS[0] as Buffer), undefined, { diffID: diffIDOf(TARS[0] as Buffer) }),
  ]);
  assert.equal(store.map().size, 4);
  assert.equal(
    driver.calls.filter((call) => call === 'applyDiff').length,
    5,
    'four, and one whose diff id nobody knew',
  );
  for (const layer of all) await store.release(layer);
  assert.equal(store.map().size, 0);
  await store.close();
  assert.equal(bench.disk.entries.size, 0);
});

for (const first of ['register', 'registerChain'] as const) {
  test(`a register() that says its diff id and a chain with the same layers, begun by ${first}(), share one unpacking`, async (t) => {
    const bench = await Bench.make(t);
    const driver = new FullMemoryDriver(bench.disk);
    const store = await bench.open({ driver });
    const [base, second] = TARS as [Buffer, Buffer];
    const below = await store.register(streamOf(base));
    const one = (): Promise<Layer> => store.register(streamOf(second), below.chainID, { diffID: diffIDOf(second) });
    const chain = (): Promise<Layer> => store.registerChain(links());
    const all = await Promise.all(first === 'register' ? [one(), chain(), one()] : [chain(), one(), one()]);
    assert.equal(driver.calls.filter((call) => call === 'applyDiff').length, TARS.length, 'each tar once');
    for (const layer of [...all, below]) await store.release(layer);
    await store.close();
    assert.equal(bench.disk.entries.size, 0);
  });
}

test('one bad layer undoes the whole chain and nothing below it', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const base = await store.register(streamOf(TARS[0] as Buffer));
  const all = links();
  (all[2] as ChainLink).tar = streamOf(tarOf('other'));
  await assert.rejects(store.registerChain(all), code('ERR_DIGEST_MISMATCH'));
  assert.deepEqual([...store.map().keys()], [base.chainID]);
  const source = new Error('the network');
  (all[3] as ChainLink).tar = new Readable({
    read() {
      this.destroy(source);
    },
  });
  all.splice(0, 3, ...links(TARS.slice(0, 3)));
  await assert.rejects(store.registerChain(all), (error) => error === source);
  await store.close();
  assert.equal(bench.disk.entries.size, 1);
});

test('an abort gives its reason and leaves nothing', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const controller = new AbortController();
  const stalled = links();
  (stalled[1] as ChainLink).tar = (async function* () {
    yield TARS[1] as Buffer;
    controller.abort(new Error('enough'));
    yield Buffer.alloc(512);
  })();
  await assert.rejects(store.registerChain(stalled, undefined, { signal: controller.signal }), /enough/);
  assert.equal(store.map().size, 0);
  await assert.rejects(store.registerChain(links(), undefined, { signal: controller.signal }), /enough/);
  await store.close();
  assert.equal(bench.disk.entries.size, 0);
});

test('no layers give a handle on the parent, or an error', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const base = await store.register(streamOf(TARS[0] as Buffer));
  const handle = await store.registerChain([], base.chainID);
  assert.equal(handle.chainID, base.chainID);
  await assert.rejects(store.registerChain([]), code('ERR_INVALID_ARGUMENT'));
});

test('a chain of streams that another registration overtakes fails, and every layer can be released after it', async (t) => {
  const bench = await Bench.make(t);
  const [first] = TARS as [Buffer];
  // The other's rename is held up until the chain has begun to unpack its own.
  let publish!: () => void;
  const gate = new Promise<void>((resolve) => (publish = resolve));
  const { metadata } = bench;
  const begin = metadata.startTransaction.bind(metadata);
  let transactions = 0;
  metadata.startTransaction = async () => {
    const transaction = await begin();
    transactions += 1;
    if (transactions > 1) return transaction;
    const commit = transaction.commit.bind(transaction);
    transaction.commit = async (id) => {
      committing();
      await gate;
      await commit(id);
    };
    return transaction;
  };
  let committing!: () => void;
  const began = new Promise<void>((resolve) => (committing = resolve));
  const store = await bench.open();
  const other = store.register(streamOf(first));
  await began;
  const chain = store.registerChain(links());
  publish();
  const layer = await other;
  await assert.rejects(chain);
  assert.equal(store.map().size, 1, 'the layer of the other one');
  assert.equal((await store.release(layer)).length, 1);
  assert.equal(store.map().size, 0);
  await store.close();
  assert.equal(bench.disk.entries.size, 0);
});
