import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { ChainID, Digest } from '../../../src/digest.js';
import type { BatchOp, StepsAround } from '../../../src/engine/engine.js';
import { runBatch } from '../../../src/engine/js/batch.js';
import { createJsEngine } from '../../../src/engine/js/index.js';
import { LayerStoreError, systemError } from '../../../src/errors.js';
import { openFileMetadataStore } from '../../../src/metadata/file-store.js';
import { silentLogger } from '../../../src/util/logger.js';
import { tempDir } from '../../support/temp.js';
import { addLayer, digestOf, hexOf, openAt } from './store-of.js';

/** Every file below, with mode and content; directories end in a slash. */
function listing(root: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const name = path.slice(root.length + 1) + (entry.isDirectory() ? '/' : '');
    const mode = (statSync(path).mode & 0o7777).toString(8);
    const content = name.endsWith('.gz')
      ? gunzipSync(readFileSync(path)).toString()
      : entry.isFile()
        ? readFileSync(path, 'latin1')
        : '';
    found[name] = `${mode} ${content}`.trimEnd();
  }
  return found;
}

const CACHE = '0123456789abcdef'.repeat(4);

test("a small layerdb has exactly the bytes, names and modes of Docker's", async (t) => {
  const directory = join(tempDir(t), 'image/overlay2/layerdb');
  const { store } = await openAt(directory);
  const base = await addLayer(store, { diffID: digestOf('a'), cacheID: CACHE, size: 12345 });
  const transaction = await store.startTransaction();
  await transaction.setParent(base);
  await transaction.setDiffID(digestOf('b'));
  await transaction.setSize(0);
  await transaction.setCacheID('f'.repeat(64));
  await transaction.setDescriptor({
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: digestOf('c'),
    size: 99,
    annotations: { b: '<&>', a: 'x', '10': 'n' },
    urls: ['https://example.com/?a=1&b=2'],
  });
  // What sha256sum says of "<base> <diff>".
  const top = 'sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c' as ChainID;
  await transaction.commit(top);
  await store.setMount('web-1', { id: '1'.repeat(64), initID: `${'1'.repeat(64)}-init`, parent: base });
  await store.setMount('scratch', { id: '2'.repeat(64) });

  assert.equal(statSync(directory).mode & 0o7777, 0o700);
  const topName = `sha256/${hexOf(top)}`;
  assert.deepEqual(listing(directory), {
    'tmp/': '755',
    'sha256/': '755',
    'mounts/': '755',
    [`sha256/${'a'.repeat(64)}/`]: '700',
    [`sha256/${'a'.repeat(64)}/cache-id`]: `644 ${CACHE}`,
    [`sha256/${'a'.repeat(64)}/diff`]: `644 sha256:${'a'.repeat(64)}`,
    [`sha256/${'a'.repeat(64)}/size`]: '644 12345',
    [`sha256/${'a'.repeat(64)}/tar-split.json.gz`]: '644 {"type":2,"payload":"AAAA","position":0}',
    [`${topName}/`]: '700',
    [`${topName}/cache-id`]: `644 ${'f'.repeat(64)}`,
    [`${topName}/diff`]: `644 sha256:${'b'.repeat(64)}`,
    [`${topName}/size`]: '644 0',
    [`${topName}/parent`]: `644 sha256:${'a'.repeat(64)}`,
    [`${topName}/descriptor.json`]:
      '644 {"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":99,' +
      `"digest":"sha256:${'c'.repeat(64)}","urls":["https://example.com/?a=1\\u0026b=2"],` +
      '"annotations":{"10":"n","a":"x","b":"\\u003c\\u0026\\u003e"}}',
    'mounts/web-1/': '755',
    'mounts/web-1/mount-id': `644 ${'1'.repeat(64)}`,
    'mounts/web-1/init-id': `644 ${'1'.repeat(64)}-init`,
    'mounts/web-1/parent': `644 sha256:${'a'.repeat(64)}`,
    'mounts/scratch/': '755',
    'mounts/scratch/mount-id': `644 ${'2'.repeat(64)}`,
  });
  const again = (await openAt(directory, { readOnly: true })).store;
  const { layers } = await again.loadAll();
  assert.deepEqual(layers.find(({ chainID }) => chainID === top)?.descriptor?.annotations, {
    b: '<&>',
    a: 'x',
    '10': 'n',
  });
});

test('what Docker wrote is read: blanks around ids, an id of its builder, a layer without parent', async (t) => {
  const directory = tempDir(t);
  const { store } = await openAt(directory);
  const path = join(directory, 'sha256', 'a'.repeat(64));
  mkdirSync(path);
  writeFileSync(join(path, 'cache-id'), ' bk-3xyz_w.1\n');
  writeFileSync(join(path, 'diff'), `${digestOf('a')}\n`);
  writeFileSync(join(path, 'size'), '42');
  const id = digestOf('a') as Digest as ChainID;
  assert.equal(await store.getCacheID(id), 'bk-3xyz_w.1');
  assert.equal(await store.getDiffID(id), digestOf('a'));
  assert.equal(await store.getParent(id), undefined);
  assert.equal(await store.getSize(id), 42);
  assert.equal(await store.getDescriptor(id), undefined);
  assert.deepEqual((await store.loadAll()).layers, [
    { chainID: id, diffID: digestOf('a'), cacheID: 'bk-3xyz_w.1', size: 42 },
  ]);
  writeFileSync(join(path, 'size'), '42\n');
  await assert.rejects(store.getSize(id), { code: 'ERR_LAYER_CORRUPT' });
});

test('every file is synced before the rename, and the directory after it; relaxed has the same order without syncs', async (t) => {
  const strict = await openAt(join(tempDir(t), 'db'));
  strict.steps.length = 0;
  await addLayer(strict.store, { diffID: digestOf('a'), cacheID: CACHE });
  const names = strict.steps.map(
    (step) => `${step.op} ${step.path.replace(/.*\/write-set-[0-9a-f]+/, 'W').replace(/.*\/sha256$/, 'L')}`,
  );
  const rename = names.indexOf('rename W');
  assert.ok(rename > 0);
  for (const step of strict.steps.slice(0, rename)) if (step.op === 'write') assert.equal(step.sync, true, step.path);
  assert.ok(names.indexOf('fsync W/tar-split.json.gz') >= 0 && names.indexOf('fsync W/tar-split.json.gz') < rename);
  assert.equal(names[rename - 1], 'fsync W');
  assert.deepEqual(names.slice(rename), ['rename W', 'fsync L']);

  strict.steps.length = 0;
  await strict.store.setMount('m', { id: CACHE });
  const mount = strict.steps.map(({ op }) => op);
  assert.deepEqual(mount, ['mkdir', 'write', 'fsync', 'rename', 'fsync']);
  strict.steps.length = 0;
  await strict.store.markRemoving(digestOf('a') as Digest as ChainID);
  assert.deepEqual(
    strict.steps.map(({ op }) => op),
    ['rename', 'fsync'],
  );

  const relaxed = await openAt(join(tempDir(t), 'db'), { durability: 'relaxed' });
  await addLayer(relaxed.store, { diffID: digestOf('a'), cacheID: CACHE });
  await relaxed.store.setMount('m', { id: CACHE });
  assert.equal(
    relaxed.steps.some((step) => step.op === 'fsync' || (step.op === 'write' && step.sync === true)),
    false,
  );
  assert.deepEqual(relaxed.steps.filter(({ op }) => op === 'rename').length, 2);
});

test('a commit that fails at any step leaves no record and can be cancelled', async (t) => {
  const directory = tempDir(t);
  for (const failing of ['write', 'chmod', 'rename', 'fsync'] as const) {
    const { store } = await openAt(directory, {
      fail: ({ op, path }) => op === failing && !path.endsWith('directory'),
    });
    await assert.rejects(addLayer(store, { diffID: digestOf('a'), cacheID: CACHE }));
    assert.deepEqual((await store.list()).layers, [], failing);
  }
  // The very last step: the record was renamed already.
  const layers = join(directory, 'sha256');
  const { store } = await openAt(directory, { fail: ({ op, path }) => op === 'fsync' && path === layers });
  await assert.rejects(addLayer(store, { diffID: digestOf('a'), cacheID: CACHE }));
  assert.deepEqual((await store.list()).layers, []);
  const after = (await openAt(directory)).store;
  for (const broken of await after.listBroken()) {
    assert.equal(broken.kind, 'temporary');
    await after.discard(broken);
  }
  assert.deepEqual(readdirSync(join(directory, 'tmp')), []);
});

test('an empty or half-written directory in the way of a record is no obstacle', async (t) => {
  const directory = tempDir(t);
  const { store } = await openAt(directory);
  mkdirSync(join(directory, 'sha256', 'a'.repeat(64)));
  await addLayer(store, { diffID: digestOf('a'), cacheID: CACHE });
  mkdirSync(join(directory, 'sha256', 'b'.repeat(64)));
  writeFileSync(join(directory, 'sha256', 'b'.repeat(64), 'cache-id'), '');
  await addLayer(store, { diffID: digestOf('b'), cacheID: CACHE });
  await assert.rejects(addLayer(store, { diffID: digestOf('b'), cacheID: CACHE }), { code: 'ERR_LAYER_IN_USE' });
  assert.equal((await store.loadAll()).layers.length, 2);
  const [bad] = (await store.listBroken()).filter(({ kind }) => kind === 'layer');
  assert.match(bad?.what ?? '', /^tmp\/bad-/);
});

test('a removal keeps a record that was published meanwhile', async (t) => {
  const directory = tempDir(t);
  const { store } = await openAt(directory);
  const id = await addLayer(store, { diffID: digestOf('a'), cacheID: '1'.repeat(64) });
  await store.markRemoving(id);
  await assert.rejects(store.getSize(id), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
  await addLayer(store, { diffID: digestOf('a'), cacheID: '2'.repeat(64) });
  assert.deepEqual(await store.listRemoving(), [{ chainID: id, cacheID: '1'.repeat(64) }]);
  assert.match(
    readdirSync(join(directory, 'sha256')).find((name) => name.endsWith('-removing')) ?? '',
    /^a{64}-[0-9a-f]{64}-removing$/,
  );
  await store.markRemoving(id);
  await store.remove(id, '1'.repeat(64));
  assert.deepEqual(await store.listRemoving(), [{ chainID: id, cacheID: '2'.repeat(64) }]);
  await store.remove(id);
  assert.deepEqual(readdirSync(join(directory, 'sha256')), []);
  await store.remove(id);
});

test('the record of an RW layer is its intent while the layer is made or removed, and its steps lie around those of the layer', async (t) => {
  const directory = join(tempDir(t), 'db');
  const pending = join(`${directory}-pending`, CACHE);
  const { store } = await openAt(directory);
  const record = { id: CACHE, initID: `${CACHE}-init` };
  const seen: string[] = [];
  const run = async ({ before, after }: StepsAround): Promise<void> => {
    const short = (ops: readonly BatchOp[]): string => ops.map(({ op }) => op).join(' ');
    seen.push(`${short(before)} | ${short(after)}`);
    await runBatch(before);
    seen.push(readdirSync(pending).sort().join(' '));
    await runBatch(after);
  };
  await store.createMount('m', record, run);
  assert.equal(await store.getInitID('m'), record.initID);
  assert.throws(() => statSync(pending), { code: 'ENOENT' });
  await store.deleteMount('m', record, run);
  assert.deepEqual([await store.list(), readdirSync(`${directory}-pending`)], [{ layers: [], mounts: [] }, []]);
  assert.deepEqual(seen, [
    'mkdir fsync | write write fsync rename fsync',
    '',
    'rename fsync fsync | unlink unlink unlink rmdir',
    'init-id mount-id',
  ]);
});

test('a record that is in the way of a new RW layer changes places with its record, and goes', async (t) => {
  const directory = join(tempDir(t), 'db');
  const { store } = await openAt(directory);
  await store.setMount('m', { id: '9'.repeat(64), parent: digestOf('a') as Digest as ChainID });
  await store.createMount('m', { id: CACHE }, async ({ before, after }) => runBatch([...before, ...after]));
  assert.deepEqual([await store.getMountID('m'), await store.getMountParent('m')], [CACHE, undefined]);
  assert.deepEqual(readdirSync(`${directory}-pending`), []);
});

test('an RW layer whose record is gone is removed by an empty record, which a failure leaves', async (t) => {
  const directory = join(tempDir(t), 'db');
  const { store } = await openAt(directory);
  const failed = store.deleteMount('m', { id: CACHE }, () => Promise.reject(new Error('busy')));
  await assert.rejects(failed, /busy/);
  assert.deepEqual(readdirSync(`${directory}-pending`), [CACHE]);
});

test('pending records cannot be moved where renames fail with EXDEV', async (t) => {
  const directory = join(tempDir(t), 'db');
  const files = await openFileMetadataStore({
    directory,
    pendingMounts: `${directory}-pending`,
    engine: createJsEngine(),
    durability: 'relaxed',
    readOnly: false,
    logger: silentLogger,
  });
  await assert.rejects(files.canMovePending(), { code: 'ERR_SYSTEM' }); // there is no such directory
  mkdirSync(`${directory}-pending`);
  assert.equal(await files.canMovePending(), true);
  const engine = {
    ...createJsEngine(),
    batch: async (ops: readonly BatchOp[]): Promise<void> => {
      if (!ops.some(({ op }) => op === 'rename')) return runBatch(ops);
      throw systemError(Object.assign(new Error('EXDEV'), { code: 'EXDEV', errno: -18, syscall: 'rename' }), 'rename');
    },
  };
  const apart = await openFileMetadataStore({
    directory,
    pendingMounts: `${directory}-pending`,
    engine,
    durability: 'relaxed',
    readOnly: false,
    logger: silentLogger,
  });
  assert.equal(await apart.canMovePending(), false);
  assert.deepEqual([readdirSync(`${directory}-pending`), readdirSync(join(directory, 'tmp'))], [[], []]);
});

test('a read-only store writes nothing and says so; a missing directory is an empty one', async (t) => {
  const directory = join(tempDir(t), 'none');
  const { store } = await openAt(directory, { readOnly: true });
  assert.deepEqual(await store.list(), { layers: [], mounts: [] });
  assert.deepEqual(await store.loadAll(), { layers: [], mounts: [], removing: [], broken: [] });
  const id = digestOf('a') as Digest as ChainID;
  for (const attempt of [
    () => store.startTransaction(),
    () => store.setMountID('m', CACHE),
    () => store.setMount('m', { id: CACHE }),
    () => store.createMount('m', { id: CACHE }, () => assert.fail('it runs')),
    () => store.deleteMount('m', { id: CACHE }, () => assert.fail('it runs')),
    () => store.remove(id),
    () => store.removeMount('m'),
    () => store.markRemoving(id),
  ]) {
    await assert.rejects(attempt, { code: 'ERR_READ_ONLY' });
  }
  assert.throws(() => statSync(directory), { code: 'ENOENT' });
});

test('the tar-split record is checked to its end', async (t) => {
  const directory = tempDir(t);
  const { store } = await openAt(directory);
  const id = await addLayer(store, { diffID: digestOf('a'), cacheID: CACHE });
  assert.equal(await text(await store.tarSplitReader(id)), '{"type":2,"payload":"AAAA","position":0}\n');
  const path = await store.tarSplitPath(id);
  assert.equal(path, join(directory, 'sha256', 'a'.repeat(64), 'tar-split.json.gz'));
  const whole = readFileSync(path);
  for (const damaged of [
    whole.subarray(0, -1),
    whole.subarray(0, 12),
    Buffer.from('no gzip at all'),
    flip(whole, whole.length - 6),
  ]) {
    writeFileSync(path, damaged);
    await assert.rejects(async () => text(await store.tarSplitReader(id)), { code: 'ERR_LAYER_CORRUPT' });
  }
  writeFileSync(path, '');
  await assert.rejects(store.tarSplitReader(id), { code: 'ERR_LAYER_CORRUPT' });
});

test('arguments that could leave the directory are refused', async (t) => {
  const { store } = await openAt(tempDir(t));
  for (const name of ['', '.', '..', '../x', 'a/b', '.hidden', 'x'.repeat(129), 'a\0b']) {
    await assert.rejects(store.setMount(name, { id: CACHE }), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(store.getMountID(name), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(store.removeMount(name), { code: 'ERR_INVALID_ARGUMENT' });
  }
  for (const id of ['sha256:../../../../etc', '', 'sha512:aa', `sha256:${'A'.repeat(64)}`] as ChainID[]) {
    await assert.rejects(store.getSize(id), { code: 'ERR_INVALID_DIGEST' });
    await assert.rejects(store.remove(id), { code: 'ERR_INVALID_DIGEST' });
  }
  for (const what of ['../x', 'sha256/../..', 'mounts/', 'other/x', 'sha256', 'sha256/..', 'tmp/a/b']) {
    await assert.rejects(store.discard({ kind: 'layer', what, why: '' }), { code: 'ERR_INVALID_ARGUMENT' });
  }
  await assert.rejects(store.setMount('m', { id: '../../escape' }), (error) =>
    LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'),
  );
});

function flip(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes);
  changed[at] = (changed[at] ?? 0) ^ 0x10;
  return changed;
}
