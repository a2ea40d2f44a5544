/** What an open makes of what a crash left; on records in Docker's format, so that damage can be real. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createChainID, type ChainID } from '../../../src/digest.js';
import type { Store } from '../../../src/store/types.js';
import { FullMemoryDriver, newDisk } from './memory-driver.js';
import { Bench, bytesOf, code, diffIDOf, failing, streamOf, tarOf } from './support.js';

const [A, B, C] = [tarOf('a'), tarOf('b'), tarOf('c')];
const ID = 'd'.repeat(64);

/** Opens with records on disk. */
function open(bench: Bench): Promise<Store> {
  const driver = new FullMemoryDriver(bench.disk);
  return bench.openOnDisk({ driver });
}

const own = (bench: Bench, ...names: string[]): string => join(bench.root, 'layerstore', ...names);
const record = (bench: Bench, chainID: ChainID, file: string): string =>
  join(bench.root, 'image', 'memory', 'layerdb', chainID.replace(':', '/'), file);

async function warnings(bench: Bench): Promise<string[]> {
  return bench.lines.filter(({ level }) => level === 'warn').map(({ message }) => message);
}

test('a directory that an intent names goes, one that nothing names stays and is reported', async (t) => {
  const bench = await Bench.make(t);
  await (await open(bench)).close();
  const driver = new FullMemoryDriver(bench.disk);
  await driver.create(ID);
  await driver.create('docker-builds-this');
  await driver.createReadWrite('e'.repeat(64), undefined);
  await driver.createReadWrite(`${'e'.repeat(64)}-init`, undefined);
  await writeFile(own(bench, 'intents', ID), '{"kind":"layer"}');
  // Content lost by a power cut: the name is enough.
  await writeFile(own(bench, 'intents', 'e'.repeat(64)), '');
  const store = await open(bench);
  assert.deepEqual([...bench.disk.entries.keys()], ['docker-builds-this']);
  assert.deepEqual(await readdir(own(bench, 'intents')), []);
  const report = await store.cleanup();
  assert.deepEqual(
    report.foreign.map(({ what }) => what),
    ['docker-builds-this'],
  );
  assert.ok(bench.disk.entries.has('docker-builds-this'));
});

test('a record on its way in or out is the intent of its RW layer', async (t) => {
  const bench = await Bench.make(t);
  await (await open(bench)).close();
  const driver = new FullMemoryDriver(bench.disk);
  const ids = ['a', 'b', 'c'].map((digit) => digit.repeat(64)) as [string, string, string];
  for (const id of ids) await driver.createReadWrite(id, undefined);
  for (const id of ids) await mkdir(own(bench, 'intents', id));
  // Nothing written yet, a part, and a whole one that was taken away.
  await writeFile(own(bench, 'intents', ids[1], 'mount-id'), '');
  await writeFile(own(bench, 'intents', ids[2], 'mount-id'), ids[2]);
  await writeFile(own(bench, 'intents', ids[2], 'parent'), `sha256:${'0'.repeat(64)}`);
  await open(bench);
  assert.deepEqual([...bench.disk.entries.keys()], []);
  assert.deepEqual(await readdir(own(bench, 'intents')), []);
  assert.deepEqual(await warnings(bench), []);
});

test('an intent never touches what a record names', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  await store.createRWLayer('box', a.chainID);
  await store.close();
  for (const id of bench.disk.entries.keys()) await writeFile(own(bench, 'intents', id), '{"kind":"remove"}');
  const again = await open(bench);
  assert.equal(bench.disk.entries.size, 2);
  assert.equal(again.map().size, 1);
  assert.equal(again.mounts().size, 1);
  assert.deepEqual(await readdir(own(bench, 'intents')), []);
});

test('a bad record is set aside with what stands on it, and the others work', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  const b = await store.register(streamOf(B), a.chainID);
  const c = await store.register(streamOf(C));
  await store.createRWLayer('box', b.chainID);
  await store.close();
  await writeFile(record(bench, a.chainID, 'size'), '');
  const again = await open(bench);
  assert.deepEqual([...again.map().keys()], [c.chainID]);
  assert.equal(again.mounts().size, 0);
  assert.equal((await readdir(own(bench, 'quarantine'))).length, 3);
  assert.equal((await warnings(bench)).filter((line) => line.includes('set aside')).length, 3);
  assert.equal(bench.disk.entries.size, 4, 'no directory was touched');
  const report = await again.cleanup();
  assert.equal(report.foreign.filter(({ what }) => what.includes('quarantine')).length, 3);
  // The same layers can be registered again.
  const back = await again.register(streamOf(B), (await again.register(streamOf(A))).chainID);
  assert.deepEqual(await bytesOf(await back.tarStream()), B);
});

test('a record without a directory is set aside', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  await store.createRWLayer('box');
  await store.close();
  bench.disk.entries.clear();
  const again = await open(bench);
  assert.equal(again.map().size, 0);
  assert.equal(again.mounts().size, 0);
  assert.ok((await warnings(bench)).length >= 2);
  assert.equal((await again.register(streamOf(A))).chainID, a.chainID);
});

test('a removal that a crash interrupted is ended', async (t) => {
  const bench = await Bench.make(t);
  const driver = failing(new FullMemoryDriver(bench.disk), 'detach', 'before', new Error('crash'));
  const store = await bench.openOnDisk({ driver });
  const a = await store.register(streamOf(A));
  await store.release(a);
  await store.close();
  assert.equal(bench.disk.entries.size, 1);
  const again = await open(bench);
  await again.close();
  assert.equal(bench.disk.entries.size, 0);
  assert.deepEqual(await readdir(join(bench.root, 'image', 'memory', 'layerdb', 'sha256')), []);
});

for (const published of [false, true]) {
  test(`a consuming commit interrupted ${published ? 'after' : 'before'} its publication`, async (t) => {
    const bench = await Bench.make(t);
    const crash = new Error('crash');
    const driver = failing(new FullMemoryDriver(bench.disk), 'undoConsume', 'before', crash);
    const store = await bench.openOnDisk({ driver });
    const box = await store.createRWLayer('box');
    await box.applyDiff(streamOf(B));
    const mountID = await store.getMountID('box');
    if (published) {
      const layer = await store.commit(box);
      await store.close();
      const layerID = [...bench.disk.entries.keys()].find((id) => id !== mountID) as string;
      await writeFile(own(bench, 'intents', layerID), JSON.stringify({ kind: 'consume', name: 'box', rwID: mountID }));
      const again = await open(bench);
      assert.equal(again.mounts().size, 0);
      assert.deepEqual([...again.map().keys()], [layer.chainID]);
      assert.deepEqual([...bench.disk.entries.keys()], [layerID]);
    } else {
      // The diff id is wrong only after the files were taken over, and giving them back "crashes".
      await assert.rejects(store.commit(box, { consume: true, diffID: diffIDOf(A) }), code('ERR_DIGEST_MISMATCH'));
      await store.close();
      assert.equal(bench.disk.entries.size, 2);
      const again = await open(bench);
      assert.deepEqual(await bytesOf(await (await again.getRWLayer('box')).tarStream()), B);
      assert.deepEqual([...bench.disk.entries.keys()], [mountID]);
    }
    assert.deepEqual(await readdir(own(bench, 'intents')), []);
  });
}

test('damaged references stop every removal until they are put right', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  await store.retain(a.chainID, 'kept');
  await store.close();
  const path = own(bench, 'references.json');
  const good = await readFile(path, 'utf8');
  await writeFile(path, good.slice(0, 40));
  const again = await open(bench);
  assert.deepEqual(again.references(), []);
  assert.match((await again.gc()).refused ?? '', /was damaged/);
  assert.deepEqual(await again.release(await again.get(a.chainID)), []);
  await again.close();
  const third = await open(bench);
  assert.match((await third.gc({ dryRun: true })).refused ?? '', /was damaged/, 'also after another open');
  await third.close();
  await writeFile(path, good);
  const mended = await open(bench);
  assert.equal(mended.references().length, 1);
  assert.equal((await mended.dropReference('kept')).length, 1);
});

test('a reference on a layer that somebody removed is noticed, and works again when the layer is back', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  await store.retain(a.chainID, 'kept');
  await store.close();
  await rm(record(bench, a.chainID, ''), { recursive: true });
  const again = await open(bench);
  assert.ok((await warnings(bench)).some((line) => line.includes('not there')));
  const back = await again.register(streamOf(A));
  assert.deepEqual(await again.release(back), []);
  assert.equal((await again.dropReference('kept')).length, 1);
});

test('temporary files and transactions of a crash are dropped', async (t) => {
  const bench = await Bench.make(t);
  await (await open(bench)).close();
  await writeFile(own(bench, 'references.json.0123.tmp'), 'half');
  const writeSet = join(bench.root, 'image', 'memory', 'layerdb', 'tmp', 'write-set-1');
  await mkdir(writeSet);
  await writeFile(join(writeSet, 'size'), '1');
  await (await open(bench)).close();
  assert.deepEqual(
    (await readdir(own(bench))).filter((name) => name.endsWith('.tmp')),
    [],
  );
  assert.deepEqual(await readdir(join(writeSet, '..')), []);
});

test('gc deletes nothing on a root whose Docker records nobody reads', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  const b = await store.register(streamOf(B), a.chainID);
  await mkdir(join(bench.root, 'image', 'memory', 'imagedb'));
  assert.deepEqual(await store.release(b), [], 'nobody knows whether Docker needs it');
  assert.match((await store.gc()).refused ?? '', /openImages/);
  let chains: ChainID[] | Error = new Error('unreadable');
  store.addReferenceSource(async () => {
    if (chains instanceof Error) throw chains;
    return chains;
  });
  assert.match((await store.gc()).refused ?? '', /unreadable/);
  chains = [b.chainID];
  assert.deepEqual((await store.gc()).removed, []);
  await store.release(await store.get(b.chainID));
  await store.release(a);
  assert.equal(store.map().size, 2, 'what a source names is kept by release too');
  chains = [createChainID([diffIDOf(A)]) as ChainID];
  assert.deepEqual(
    (await store.gc()).removed.map(({ chainID }) => chainID),
    [b.chainID],
  );
  chains = [];
  assert.deepEqual(
    (await store.gc()).removed.map(({ chainID }) => chainID),
    [a.chainID],
  );
});

test('a reader beside the writer sees complete layers and follows on refresh', async (t) => {
  const bench = await Bench.make(t);
  const store = await open(bench);
  const a = await store.register(streamOf(A));
  const reader = await bench.openOnDisk({ readOnly: true, driver: new FullMemoryDriver(bench.disk) });
  assert.deepEqual([...reader.map().keys()], [a.chainID]);
  const b = await store.register(streamOf(B), a.chainID);
  const box = await store.createRWLayer('box', a.chainID);
  const path = await box.mount();
  await store.retain(b.chainID, 'kept');
  assert.equal(reader.map().size, 1);
  await reader.refresh();
  const seen = await reader.get(b.chainID);
  assert.deepEqual(await bytesOf(await seen.tarStream()), B);
  assert.deepEqual(reader.references(), store.references());
  assert.equal(reader.mounts().get('box')?.path, path);
  const refused = code('ERR_READ_ONLY');
  await assert.rejects(reader.register(streamOf(C)), refused);
  await assert.rejects(reader.retain(a.chainID, 'x'), refused);
  await assert.rejects(reader.gc(), refused);
  await assert.rejects(seen.view(), refused);
  await assert.rejects((await reader.getRWLayer('box')).mount(), refused);
  assert.equal((await reader.verify()).ok, true);
  assert.equal((await reader.gc({ dryRun: true })).dryRun, true);
  await store.dropReference('kept');
  await store.release(b);
  await reader.refresh();
  await assert.rejects(seen.size(), code('ERR_LAYER_DOES_NOT_EXIST'));
  assert.deepEqual(await reader.release(seen), []);
});

test('a disk that is another one: nothing of it is touched by an empty store', async (t) => {
  const bench = await Bench.make(t);
  const disk = newDisk();
  const driver = new FullMemoryDriver(disk);
  await driver.create('someone-elses');
  const store = await bench.openOnDisk({ driver });
  await store.gc();
  await store.close();
  assert.deepEqual([...disk.entries.keys()], ['someone-elses']);
});
