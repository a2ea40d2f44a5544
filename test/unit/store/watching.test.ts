/** Events, logs, and the small public functions. */
import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { DIGEST_SHA256_EMPTY_TAR } from '../../../src/digest.js';
import { OPERATIONS, type OperationEvent } from '../../../src/store/lifecycle.js';
import { emptyLayer } from '../../../src/store/without-store.js';
import { formatChange } from '../../../src/store/without-store.js';
import { hashFile } from '../../../src/store/without-store.js';
import { releaseAndLog } from '../../../src/store/log.js';
import { buildTar, paxRecords } from '../../../src/testing/tar-builder.js';
import { Bench, bytesOf, code, diffIDOf, streamOf, tarOf } from './support.js';

const [A, B] = [tarOf('a'), tarOf('b')];

test('every operation publishes one event with its time, subject and outcome', async (t) => {
  const events: OperationEvent[] = [];
  const listener = (message: unknown): void => void events.push(message as OperationEvent);
  for (const name of OPERATIONS) subscribe(`layerstore:${name}`, listener);
  t.after(() => OPERATIONS.forEach((name) => unsubscribe(`layerstore:${name}`, listener)));
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  const chain = await store.registerChain([{ tar: streamOf(B), diffID: diffIDOf(B) }], a.chainID);
  await store.get(a.chainID);
  await store.retain(a.chainID, 'kept');
  await bytesOf(await a.tarStream());
  await bytesOf(await a.tarStreamFrom());
  await (await a.view())[Symbol.asyncDispose]();
  await a.size();
  await a.metadata();
  await a.tarSize();
  for await (const entry of await a.entries()) assert.notEqual(entry.type, 'fifo');
  await a.exportTo({ path: `${bench.root}/../out.tar` });
  const box = await store.createRWLayer('box', a.chainID);
  await store.getRWLayer('box');
  await box.mount();
  await box.unmount();
  await box.applyDiff(streamOf(B));
  await box.changes();
  const committed = await store.commit(box);
  await store.releaseRWLayer(box);
  await store.verify();
  await store.repair(a.chainID, streamOf(A));
  await store.cleanup();
  await store.gc({ dryRun: true });
  await store.usage();
  await store.refresh();
  await store.dropReference('kept');
  await store.release(committed);
  await store.release(chain);
  await assert.rejects(store.get(chain.chainID), code('ERR_LAYER_DOES_NOT_EXIST'));
  await store.close();
  assert.deepEqual([...new Set(events.map(({ operation }) => operation))].sort(), [...OPERATIONS].sort());
  for (const event of events) {
    assert.equal(event.root, bench.root);
    assert.ok(event.duration >= 0);
  }
  const registered = events.find(({ operation }) => operation === 'register');
  assert.deepEqual([registered?.chainID, registered?.outcome], [a.chainID, 'ok']);
  const failed = events.filter(({ outcome }) => outcome === 'error');
  assert.deepEqual(
    failed.map(({ operation, chainID }) => [operation, chainID]),
    [['get', chain.chainID]],
  );
  assert.ok(code('ERR_LAYER_DOES_NOT_EXIST')(failed[0]?.error));
  const exported = events.find(({ operation }) => operation === 'exportTo');
  assert.equal(exported?.bytes, A.length);
});

test('what of an archive the system cannot hold is logged with its layer, and counted in the events', async (t) => {
  const bench = await Bench.make(t);
  await using store = await bench.open({ driver: 'vfs' });
  const counted: unknown[] = [];
  const listener = (message: unknown): void => {
    const { operation, root, ignoredXattrs, ignoredOwners } = message as OperationEvent;
    if (root === bench.root) counted.push([operation, ignoredXattrs, ignoredOwners]);
  };
  const watched = ['register', 'registerChain', 'commit', 'applyDiff', 'createRWLayer'] as const;
  for (const name of watched) subscribe(`layerstore:${name}`, listener);
  t.after(() => {
    for (const name of watched) unsubscribe(`layerstore:${name}`, listener);
  });
  const odd = buildTar([
    { name: 'p', type: 'x', content: paxRecords({ 'SCHILY.xattr.unknown': 'x' }) },
    { name: 'f', content: 'x', uid: -1 },
  ]);
  const layer = await store.register(streamOf(odd));
  const box = await store.createRWLayer('box', layer.chainID);
  await box.applyDiff(streamOf(odd));
  await store.register(streamOf(A));
  assert.deepEqual(
    bench.lines.filter(({ level }) => level === 'warn').map(({ fields }) => fields),
    [layer.chainID, 'box'].map((of) => ({ layer: of, ignoredXattrs: 1, ignoredOwners: 1 })),
  );
  const links = [1, 2].map(() => ({ tar: streamOf(odd), diffID: diffIDOf(odd) }));
  await store.registerChain(links, layer.chainID);
  await store.commit(box);
  assert.deepEqual(counted, [
    ['register', 1, 1],
    ['createRWLayer', undefined, undefined],
    ['applyDiff', 1, 1],
    ['register', 0, 0],
    ['registerChain', 2, 2],
    ['commit', 0, 0],
  ]);
});

test('releaseAndLog never throws: it logs what went and what failed', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const a = await store.register(streamOf(A));
  await releaseAndLog(store, a);
  await releaseAndLog(store, a, bench.logger);
  const [removed, failed] = bench.lines.filter(({ level }) => level === 'info' || level === 'error');
  assert.deepEqual(removed?.fields, { chainID: a.chainID, diffID: a.diffID, size: A.length, diffSize: A.length });
  assert.equal(failed?.fields['code'], 'ERR_LAYER_NOT_RETAINED');
  assert.equal(failed?.fields['chainID'], a.chainID);
});

test('the empty layer gives 1,024 zero bytes and needs no store', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'layerstore-empty-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const zeros = Buffer.alloc(1024);
  assert.equal(emptyLayer.chainID, DIGEST_SHA256_EMPTY_TAR);
  assert.equal(diffIDOf(zeros), emptyLayer.diffID);
  assert.deepEqual(await bytesOf(await emptyLayer.tarStream()), zeros);
  assert.deepEqual(await bytesOf(await emptyLayer.tarStreamFrom()), zeros);
  assert.deepEqual([await emptyLayer.size(), await emptyLayer.diffSize(), emptyLayer.parent], [0, 0, undefined]);
  assert.deepEqual(await emptyLayer.metadata(), {});
  const path = join(directory, 'empty.tar');
  assert.deepEqual(await emptyLayer.exportTo({ path }), { bytes: 1024, diffID: DIGEST_SHA256_EMPTY_TAR });
  assert.deepEqual(readFileSync(path), zeros);
  const fd = openSync(join(directory, 'fd'), 'w');
  await emptyLayer.exportTo({ fd });
  closeSync(fd);
  assert.deepEqual(readFileSync(join(directory, 'fd')), zeros);
  assert.deepEqual(readdirSync(directory).sort(), ['empty.tar', 'fd']);
  await assert.rejects(emptyLayer.tarStreamFrom(emptyLayer.chainID), code('ERR_INVALID_ARGUMENT'));
  await assert.rejects(emptyLayer.view(), code('ERR_NOT_SUPPORTED'));
});

test('changes are shown as Docker shows them', () => {
  assert.equal(formatChange({ path: '/etc', kind: 'modify' }), 'C /etc');
  assert.equal(formatChange({ path: '/x', kind: 'add' }), 'A /x');
  assert.equal(formatChange({ path: '/y', kind: 'delete' }), 'D /y');
});

test('hashFile checks what it is given', async () => {
  await assert.rejects(hashFile(''), code('ERR_INVALID_ARGUMENT'));
  await assert.rejects(hashFile('/x', { sync: true } as never), code('ERR_INVALID_ARGUMENT'));
  await assert.rejects(hashFile('/no/such/file'), code('ERR_SYSTEM', '/no/such/file'));
});
