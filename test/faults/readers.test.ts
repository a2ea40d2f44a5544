/** Readers beside a writer: they see complete layers only, follow the writer, and never change a byte. */
import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { LayerStoreError } from '../../src/errors.js';
import { openStore } from '../../src/store/open.js';
import { pick, runSeed, seededRandom } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { killedWriter } from './support/kill.js';
import { makeBase, Workload } from './support/workload.js';
import { sampleTar } from './support/tars.js';

/** Every name below `root` with what a write would change; `atime` is the reader's by right. */
function fingerprint(root: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string): void => {
    const { ino, mode, size, mtimeNs, ctimeNs } = lstatSync(path, { bigint: true });
    found.set(path, [ino, mode, size, mtimeNs, ctimeNs].join(' '));
    if (!lstatSync(path).isDirectory()) return;
    for (const name of readdirSync(path)) walk(join(path, name));
  };
  walk(root);
  return found;
}

test('a reader beside a busy writer sees whole layers only, and follows', async (t) => {
  const root = join(tempDir(t, 'readers'), 'root');
  const seed = runSeed();
  const random = seededRandom(seed);
  const writer = await openStore({ root, engine: 'native', driver: 'overlay2', durability: 'relaxed' });
  t.after(() => writer.close());
  let ops = 0;
  await makeBase(writer, () => undefined, (ops += 1));
  const reader = await openStore({ root, engine: 'native', driver: 'overlay2', readOnly: true });
  t.after(() => reader.close());
  const lane = await Workload.start({ store: writer, log: () => undefined, random, lane: 1, nextOp: () => (ops += 1) });
  let over = false;
  let exported = 0;
  let vanished = 0;
  const work = (async () => {
    for (let n = 0; n < 120; n += 1) await lane.step();
    over = true;
  })();
  while (!over) {
    await reader.refresh();
    for (const chainID of reader.map().keys()) {
      try {
        const layer = await reader.get(chainID);
        for await (const chunk of await layer.tarStream()) void chunk;
        exported += 1;
        await reader.release(layer);
      } catch (error) {
        // The writer took it away meanwhile; then it is gone from its map, or was between.
        vanished += 1;
        assert.match(String(error), /ERR_|LayerStoreError/, `LAYERSTORE_SEED=${seed}`);
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await work;
  await reader.refresh();
  assert.deepEqual([...reader.map().keys()].sort(), [...writer.map().keys()].sort());
  assert.deepEqual([...reader.mounts().keys()].sort(), [...writer.mounts().keys()].sort());
  assert.ok(exported > 0);
  t.diagnostic(
    `${exported} exports beside ${ops} operations, ${vanished} of layers just removed (LAYERSTORE_SEED=${seed})`,
  );
});

test('a reader changes nothing of what killed writers left', async (t) => {
  const seed = runSeed();
  const random = seededRandom(seed);
  let [layers, torn] = [0, 0];
  for (const driver of ['overlay2', 'vfs', 'overlay2', 'vfs'] as const) {
    const directory = tempDir(t, 'readers');
    const root = join(directory, 'root');
    await killedWriter(directory, driver, pick(random, 2 ** 31), 100 + pick(random, 400));
    torn += readdirSync(join(root, 'layerstore', 'intents')).length;
    const before = fingerprint(root);
    const reader = await openStore({ root, engine: 'native', driver, readOnly: true });
    for (const chainID of reader.map().keys()) {
      const own = await reader.get(chainID);
      for await (const chunk of await own.tarStream()) void chunk;
      layers += 1;
    }
    for (const name of reader.mounts().keys()) await (await reader.getRWLayer(name)).changes();
    assert.equal((await reader.verify()).ok, true, `LAYERSTORE_SEED=${seed}`);
    await reader.usage();
    await reader.refresh();
    const { items, bytes } = await reader.gc({ dryRun: true });
    assert.equal(
      bytes,
      items.reduce((sum, item) => sum + item.bytes, 0),
    );
    await reader.close();
    assert.deepEqual(fingerprint(root), before, `LAYERSTORE_SEED=${seed}`);
    // The next writer puts things in order, and its mounts go with this test's directory.
    const writer = await openStore({ root, engine: 'native', driver });
    for (const [name, { mountCount }] of writer.mounts()) {
      const box = await writer.getRWLayer(name);
      if (mountCount > 0) await box.unmount().catch(ignoreNotMounted);
    }
    await writer.close();
  }
  t.diagnostic(`4 killed writers, ${torn} intents left, ${layers} layers read (LAYERSTORE_SEED=${seed})`);
});

function ignoreNotMounted(error: unknown): void {
  // A layer without parent needs no mount, so nothing of it is left to adopt.
  if (!LayerStoreError.is(error, 'ERR_NOT_MOUNTED')) throw error;
}

test('a reader leaves an RW layer out whose files a commit was taking over', async (t) => {
  const root = join(tempDir(t, 'readers'), 'root');
  let writer = await openStore({ root, engine: 'native', driver: 'overlay2' });
  const layer = await writer.register(Readable.from([sampleTar(8, 1).bytes]));
  await writer.retain(layer.chainID, 'base');
  await writer.createRWLayer('box', layer.chainID);
  await writer.createRWLayer('other', layer.chainID);
  const rwID = await writer.getMountID('box');
  await writer.close();
  const id = 'c'.repeat(64);
  const taken = join(root, 'overlay2', id);
  writeFileSync(join(root, 'layerstore/intents', id), JSON.stringify({ kind: 'consume', rwID, name: 'box' }));
  mkdirSync(taken);
  renameSync(join(root, 'overlay2', rwID, 'diff'), join(taken, 'diff'));
  const reader = await openStore({ root, engine: 'native', driver: 'overlay2', readOnly: true });
  assert.deepEqual([...reader.mounts().keys()], ['other']);
  await assert.rejects(reader.getRWLayer('box'), { code: 'ERR_MOUNT_DOES_NOT_EXIST' });
  // A writer gives the files back.
  writer = await openStore({ root, engine: 'native', driver: 'overlay2' });
  assert.deepEqual([...writer.mounts().keys()].sort(), ['box', 'other']);
  await writer.close();
  await reader.refresh();
  assert.deepEqual([...reader.mounts().keys()].sort(), ['box', 'other']);
  assert.deepEqual(await (await reader.getRWLayer('box')).changes(), []);
  await reader.close();
});

test('a reader refuses every change, and changes nothing', async (t) => {
  const root = join(tempDir(t, 'readers'), 'root');
  const writer = await openStore({ root, engine: 'native', driver: 'overlay2' });
  const layer = await writer.register(Readable.from([sampleTar(8, 1).bytes]));
  await writer.createRWLayer('box', layer.chainID);
  await writer.close();
  const before = fingerprint(root);
  const reader = await openStore({ root, engine: 'native', driver: 'overlay2', readOnly: true });
  const own = await reader.get(layer.chainID);
  for await (const chunk of await own.tarStream()) void chunk;
  await reader.verify();
  await reader.usage();
  await reader.refresh();
  await (await reader.getRWLayer('box')).changes();
  const refused = [
    reader.register(Readable.from([sampleTar(8, 2).bytes])),
    reader.createRWLayer('other', layer.chainID),
    reader.retain(layer.chainID, 'name'),
    reader.cleanup(),
    reader.gc(),
    reader.repair(layer.chainID, Readable.from([sampleTar(8, 1).bytes])),
  ];
  for (const call of refused) await assert.rejects(call, { code: 'ERR_READ_ONLY' });
  await reader.close();
  assert.deepEqual(fingerprint(root), before);
});
