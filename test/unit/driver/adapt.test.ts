/** What a driver with the required methods alone lacks, one test a fallback; and that what a driver offers is what is used. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, openSync, closeSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test, type TestContext } from 'node:test';
import { adaptDriver } from '../../../src/driver/adapt.js';
import type { Driver, ExactLayer } from '../../../src/driver/driver.js';
import type { GraphDriver } from '../../../src/driver/graph-driver.js';
import type { DiffID } from '../../../src/digest.js';
import { LayerStoreError } from '../../../src/errors.js';
import { silentLogger } from '../../../src/util/logger.js';
import { tempDir } from '../../support/temp.js';
import { MemoryDriver } from '../store/memory-driver.js';
import { asEngine, FakeEngine } from './fake-engine.js';

const TAR = Buffer.alloc(2048, 'x');
const diffID = `sha256:${createHash('sha256').update(TAR).digest('hex')}` as DiffID;

interface Setup {
  root: string;
  own: MemoryDriver;
  engine: FakeEngine;
  driver: Driver;
}

/** `extra`: optional members that the driver offers all the same. */
function setup(t: TestContext, extra: Partial<GraphDriver> = {}, durability: 'strict' | 'relaxed' = 'strict'): Setup {
  const root = tempDir(t, 'adapt');
  const own = Object.assign(new MemoryDriver(), extra);
  const engine = new FakeEngine();
  return {
    root,
    own,
    engine,
    driver: adaptDriver(own, { root, engine: asEngine(engine), durability, logger: silentLogger }),
  };
}

const steps = (root: string): Parameters<Driver['createReadWrite']>[3] => ({
  before: [{ op: 'mkdir', path: join(root, 'before'), mode: 0o700 }],
  after: [{ op: 'write', path: join(root, 'before/after'), mode: 0o600, data: '' }],
});

const layer = (id: string): ExactLayer => ({
  id,
  parent: undefined,
  diffID,
  tarSplit: () => Promise.reject(new Error('a driver that reproduces needs no record')),
});

test('createReadWrite runs the steps around, and syncs the file system of the root', async (t) => {
  const { root, own, engine, driver } = setup(t);
  await driver.createReadWrite('rw', undefined, {}, steps(root));
  assert.deepEqual(own.calls, ['createReadWrite']);
  assert.deepEqual(
    engine.log.map((step) => step.split(' ')[0]),
    ['mkdir', 'syncfs', 'write'],
  );
  const relaxed = setup(t, {}, 'relaxed');
  await relaxed.driver.createReadWrite('rw', undefined, {});
  assert.deepEqual(relaxed.engine.log, []);
});

test('createReadWrite takes back the first steps where the driver, the sync or a later step fails', async (t) => {
  for (const at of ['driver', 'syncfs', 'write']) {
    const { root, engine, driver } = setup(
      t,
      at === 'driver' ? { createReadWrite: () => Promise.reject(new Error(at)) } : {},
    );
    engine.before = (step) => {
      if (step.startsWith(at)) throw new Error(at);
    };
    await assert.rejects(driver.createReadWrite('rw', undefined, {}, steps(root)));
    assert.deepEqual(readdirSync(root), [], at);
  }
});

test('a driver with sync makes its RW layers durable itself', async (t) => {
  const synced: string[] = [];
  const { engine, driver } = setup(t, { sync: async (ids) => void synced.push(...ids) });
  await driver.createReadWrite('rw', undefined, {});
  await driver.sync(['a', 'b']);
  assert.deepEqual([synced, engine.log], [['a', 'b'], []]);
});

test('without sync the file system of the root is synced, in a strict store', async (t) => {
  const { root, engine, driver } = setup(t);
  await driver.sync(['a']);
  assert.deepEqual(engine.log, [`syncfs ${root}`]);
});

test('detach removes, between the steps; an id that is not there is no error', async (t) => {
  const { root, own, engine, driver } = setup(t);
  await driver.create('a');
  const unlink = await driver.detach('a', steps(root));
  assert.equal(await driver.exists('a'), false);
  await unlink();
  assert.deepEqual(own.calls, ['create', 'remove']);
  assert.deepEqual(
    engine.log.map((step) => step.split(' ')[0]),
    ['mkdir', 'write'],
  );
  await (
    await driver.detach('a')
  )();
  assert.deepEqual(own.calls, ['create', 'remove']);
});

test('detach of the driver is used where there is one', async (t) => {
  const { driver, own } = setup(t, { detach: async (id) => async () => void own.calls.push(`unlink ${id}`) });
  await (
    await driver.detach('a')
  )();
  assert.deepEqual(own.calls, ['unlink a']);
});

test('a view is a mount', async (t) => {
  const { driver, own } = setup(t);
  await driver.create('a');
  assert.equal(await driver.view('a'), '/memory/a');
  await driver.put('a');
  assert.deepEqual(own.calls, ['create', 'mount', 'unmount']);
});

test('a commit goes through the tar and takes nothing; taking it back removes the layer alone', async (t) => {
  const { driver, own } = setup(t);
  await driver.createReadWrite('rw', undefined, {});
  await driver.applyDiff('rw', undefined, Readable.from([TAR]), {});
  const result = await driver.commitDiff('new', undefined, 'rw', undefined, { consume: true });
  assert.equal(result.diffID, diffID);
  assert.equal(own.entries.get('rw')?.tar.length, TAR.length);
  await driver.undoConsume('new', 'rw');
  await driver.undoConsume('new', 'rw');
  assert.deepEqual([await driver.exists('new'), await driver.exists('rw')], [false, true]);
});

test('a commitDiff that cannot be taken back is never asked to consume', async (t) => {
  const asked: boolean[] = [];
  const commitDiff: GraphDriver['commitDiff'] = async (...args) => {
    asked.push(args[4].consume);
    throw new Error('enough');
  };
  const one = setup(t, { commitDiff });
  await assert.rejects(one.driver.commitDiff('new', undefined, 'rw', undefined, { consume: true }), /enough/);
  const other = setup(t, { commitDiff, undoConsume: async () => undefined });
  await assert.rejects(other.driver.commitDiff('new', undefined, 'rw', undefined, { consume: true }), /enough/);
  assert.deepEqual(asked, [false, true]);
});

test('contents cannot be exchanged, which can be asked before', async (t) => {
  const { driver } = setup(t);
  assert.equal(driver.exchanges, false);
  await assert.rejects(driver.exchange('a', 'b'), { code: 'ERR_NOT_SUPPORTED' });
  assert.equal(setup(t, { exchange: async () => undefined }).driver.exchanges, true);
});

test('no leftovers are told, and those that are told are completed', async (t) => {
  assert.deepEqual(await setup(t).driver.leftovers(), []);
  const { driver } = setup(t, { leftovers: async () => [{ what: 'x', why: 'y', bytes: 1 }] });
  assert.deepEqual(await driver.leftovers(), [{ what: 'x', why: 'y', bytes: 1, inodes: 0, pending: false }]);
});

test('mounts that are not told are not missed, and cannot be taken over', async (t) => {
  const { driver } = setup(t);
  assert.deepEqual([await driver.liveMounts(), await driver.mountVanished('a')], [[], false]);
  await assert.rejects(driver.adopt('a'), { code: 'ERR_ACTIVE_MOUNT' });
  const telling = setup(t, { liveMounts: async () => [{ id: 'a', path: '/a' }], adopt: async (id) => `/${id}` }).driver;
  assert.deepEqual([await telling.mountVanished('a'), await telling.mountVanished('b')], [false, true]);
  assert.equal(await telling.adopt('a'), '/a');
});

test('the use of a layer is the size of its difference', async (t) => {
  const { driver } = setup(t);
  await driver.create('a');
  await driver.applyDiff('a', undefined, Readable.from([TAR]), {});
  assert.deepEqual(await driver.usage('a'), { size: 1024, allocated: 0, inodes: 0 });
});

test('exact tars of a driver that reproduces them are hashed on their way', async (t) => {
  const { root, own, driver } = setup(t);
  await driver.create('a');
  await driver.applyDiff('a', undefined, Readable.from([TAR]), {});
  assert.deepEqual(await buffer(await driver.exactTar(layer('a'))), TAR);
  assert.equal(await driver.exactTarSize(layer('a')), TAR.length);
  assert.deepEqual(await driver.verify(layer('a'), {}), []);
  const path = join(root, 'out');
  const fd = openSync(path, 'w');
  const written = await driver.exactTarTo(layer('a'), fd, {});
  closeSync(fd);
  assert.deepEqual([written, readFileSync(path)], [{ bytes: TAR.length, diffID }, TAR]);
  (own.entries.get('a') as { tar: Buffer }).tar = Buffer.alloc(2048);
  const corrupt = (error: unknown): boolean => LayerStoreError.is(error, 'ERR_LAYER_CORRUPT');
  await assert.rejects(buffer(await driver.exactTar(layer('a'))), corrupt);
  await assert.rejects(driver.verify(layer('a'), {}), corrupt);
});

test('a driver that does not say how whiteouts lie is verified by its tar', async (t) => {
  const asked: string[] = [];
  const capabilities = { independentDiffs: true, reproducesExactDiffs: false, hardSizeLimit: false, mounts: false };
  const root = tempDir(t, 'adapt');
  const engine = {
    assemble: async () => (asked.push('assemble'), Readable.from([TAR])),
    verifyTree: async () => (asked.push('verifyTree'), []),
  };
  const recorded = (extra: Partial<GraphDriver>): Driver =>
    adaptDriver(Object.assign(new MemoryDriver(), { capabilities }, extra), {
      root,
      engine: engine as never,
      durability: 'relaxed',
      logger: silentLogger,
    });
  mkdirSync(join(root, 'a'));
  const known = { ...layer('a'), tarSplit: async () => ({ path: '/nonexistent' }) };
  const plain = recorded({});
  await plain.create('a');
  assert.deepEqual(await plain.verify(known, {}), []);
  const saying = recorded({ whiteouts: 'overlay' });
  await saying.create('a');
  assert.deepEqual(await saying.verify(known, {}), []);
  assert.deepEqual(asked, ['assemble', 'verifyTree']);
});
