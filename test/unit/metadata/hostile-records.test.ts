import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import test from 'node:test';
import type { ChainID } from '../../../src/digest.js';
import type { Engine } from '../../../src/engine/engine.js';
import { openEngine } from '../../../src/engine/select.js';
import { LayerStoreError } from '../../../src/errors.js';
import type { MetadataStore } from '../../../src/metadata/metadata-store.js';
import { pick, runSeed, seededRandom } from '../../support/random.js';
import { tempDir } from '../../support/temp.js';
import { addLayer, digestOf, hexOf, openAt } from './store-of.js';

const CACHE = '0123456789abcdef'.repeat(4);
const MOUNT = '9'.repeat(64);

const native = await openEngine({ engine: 'native' });
/** One by one by Node, and in bulk by the addon: the same answers. */
const readers = { Node: undefined, 'the addon': native };

/** Two layers and an RW layer; the second layer is the one that tests damage. */
async function populated(
  directory: string,
  reader?: Engine,
): Promise<{ store: Required<MetadataStore>; good: ChainID; bad: ChainID; path: string }> {
  const { store } = await openAt(directory, { durability: 'relaxed', ...(reader === undefined ? {} : { reader }) });
  const good = await addLayer(store, { diffID: digestOf('a'), cacheID: CACHE });
  const bad = await addLayer(store, { diffID: digestOf('b'), parent: good, cacheID: 'e'.repeat(64) });
  await store.setMount('web', { id: MOUNT, initID: `${MOUNT}-init`, parent: good });
  return { store, good, bad, path: join(directory, 'sha256', hexOf(bad)) };
}

const put = (name: string, content: string | Uint8Array) => (path: string) => writeFileSync(join(path, name), content);
const instead = (name: string, make: (path: string) => void) => (path: string) => {
  rmSync(join(path, name), { force: true });
  make(join(path, name));
};

const damages: Record<string, (path: string) => void> = {
  'empty cache-id': put('cache-id', ''),
  'empty diff': put('diff', ''),
  'empty size': put('size', ''),
  'empty parent': put('parent', ''),
  'empty descriptor': put('descriptor.json', ''),
  'half a diff': (path) => truncateSync(join(path, 'diff'), 30),
  'zero bytes': put('diff', Buffer.alloc(71)),
  'a diff of another layer': put('diff', digestOf('c')),
  'a parent that is another': put('parent', digestOf('c')),
  'no parent any more': (path) => rmSync(join(path, 'parent')),
  'a cache id that climbs': put('cache-id', '../../../../etc'),
  'a cache id of binary': put('cache-id', Buffer.from([0xff, 0xfe, 0, 1])),
  'a cache id that is huge': put('cache-id', Buffer.alloc(1 << 22, 0x61)),
  'a huge number': put('size', '99999999999999999999'),
  'a negative size': put('size', '-1'),
  'a size in words': put('size', 'many'),
  'a size as Go would not read it': put('size', '1e3'),
  'a deep descriptor': put('descriptor.json', '['.repeat(200_000)),
  'a huge descriptor': put('descriptor.json', `{"x":"${'y'.repeat(2 << 20)}"}`),
  'a descriptor with wrong digest': put('descriptor.json', '{"digest":"sha256:../../x","mediaType":"a","size":1}'),
  'a descriptor that is a list': put('descriptor.json', '[1]'),
  'a link for a file': instead('cache-id', (path) => symlinkSync('/etc/hostname', path)),
  'a dangling link': instead('diff', (path) => symlinkSync('/nonexistent', path)),
  'a link to itself': instead('size', (path) => symlinkSync('size', path)),
  'a directory for a file': instead('diff', (path) => mkdirSync(path)),
  'a FIFO for a file': instead('cache-id', (path) => execFileSync('mkfifo', [path])),
  'a device for a file': instead('size', (path) => execFileSync('mknod', [path, 'c', '1', '5'])),
  'nothing at all': (path) => {
    for (const name of readdirSync(path)) rmSync(join(path, name));
  },
};

for (const [what, damage, by, reader] of Object.entries(damages).flatMap((damage) =>
  Object.entries(readers).map((reader) => [...damage, ...reader] as const),
)) {
  test(`a record with ${what} is reported, and only it, by ${by}`, async (t) => {
    const directory = tempDir(t);
    const { store, good, bad, path } = await populated(directory, reader);
    damage(path);
    const loaded = await store.loadAll();
    assert.deepEqual(
      loaded.layers.map(({ chainID }) => chainID),
      [good],
    );
    assert.equal(loaded.mounts.length, 1);
    assert.equal(loaded.broken.length, 1);
    const [broken] = loaded.broken;
    assert.ok(broken !== undefined && broken.kind === 'layer' && broken.chainID === bad && broken.path === path);
    assert.ok(broken.why.length > 5 && broken.why.length < 200 && !broken.why.includes('\n'), broken.why);
    assert.equal((await store.list()).layers.length, 2);
    const results = await Promise.allSettled([
      store.getCacheID(bad),
      store.getDiffID(bad),
      store.getSize(bad),
      store.getParent(bad),
      store.getDescriptor(bad),
    ]);
    const errors = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
    assert.ok(errors.length > 0);
    for (const error of errors) assert.ok(LayerStoreError.is(error, 'ERR_LAYER_CORRUPT'), String(error));
    assert.equal(await store.getCacheID(good), CACHE);
    const aside = join(directory, 'aside');
    mkdirSync(aside);
    await store.quarantine(broken, aside);
    assert.deepEqual((await store.loadAll()).broken, []);
    assert.equal(readdirSync(aside).length, 1);
  });
}

for (const [by, reader] of Object.entries(readers))
  test(`what is no record at all is reported by ${by}: odd names, links for directories, broken RW layers, half removals`, async (t) => {
    const directory = tempDir(t);
    const { store, good } = await populated(directory, reader);
    const layers = join(directory, 'sha256');
    mkdirSync(join(layers, 'ABCDEF'));
    symlinkSync('/etc', join(layers, 'c'.repeat(64)));
    writeFileSync(join(layers, 'd'.repeat(64)), 'a file');
    mkdirSync(join(layers, `${'e'.repeat(64)}-${'1'.repeat(64)}-removing`));
    mkdirSync(join(directory, 'mounts', 'no id'));
    mkdirSync(join(directory, 'mounts', 'half'));
    mkdirSync(join(directory, 'mounts', 'climbs'));
    writeFileSync(join(directory, 'mounts', 'climbs', 'mount-id'), '../../../etc');
    mkdirSync(join(directory, 'tmp', 'write-set-123'));
    const broken = await store.listBroken();
    assert.deepEqual(
      broken.map(({ kind, what }) => `${kind} ${what}`).sort(),
      [
        'layer sha256/ABCDEF',
        `layer sha256/${'c'.repeat(64)}`,
        `layer sha256/${'d'.repeat(64)}`,
        'mount mounts/climbs',
        'mount mounts/half',
        'mount mounts/no id',
        `removing sha256/${'e'.repeat(64)}-${'1'.repeat(64)}-removing`,
        'temporary tmp/write-set-123',
      ].sort(),
    );
    await assert.rejects(store.getMountID('half'), { code: 'ERR_LAYER_CORRUPT' });
    await assert.rejects(store.getMountID('climbs'), { code: 'ERR_LAYER_CORRUPT' });
    for (const each of broken) await store.discard(each);
    assert.deepEqual(await store.listBroken(), []);
    assert.ok(readdirSync('/etc').includes('passwd'), 'what a link names is not touched');
    assert.equal(await store.getDiffID(good), digestOf('a'));
  });

for (const [by, reader] of Object.entries(readers))
  test(`any byte of any record changed at random, read by ${by}: nothing crashes, escapes or turns into another layer`, async (t) => {
    const seed = runSeed();
    console.log(`# seed ${seed} (LAYERSTORE_SEED)`);
    const random = seededRandom(seed);
    const directory = tempDir(t);
    const { store, good, bad, path } = await populated(directory, reader);
    const files = [
      ...readdirSync(path).map((name) => join(path, name)),
      ...['mount-id', 'init-id', 'parent'].map((name) => join(directory, 'mounts/web', name)),
    ];
    const before = await store.loadAll();
    let reported = 0;
    for (let round = 0; round < 1000; round++) {
      const file = files[pick(random, files.length)] ?? path;
      const original = readFileSync(file);
      const changed = Buffer.from(original);
      for (let times = 1 + pick(random, 3); times > 0; times--)
        changed[pick(random, changed.length)] = pick(random, 256);
      writeFileSync(file, random() < 0.1 ? changed.subarray(0, pick(random, changed.length)) : changed);
      const name = file.slice(directory.length + 1);
      const { layers, mounts, broken } = await store.loadAll();
      reported += broken.length;
      assert.deepEqual(
        layers.find(({ chainID }) => chainID === good),
        before.layers.find(({ chainID }) => chainID === good),
      );
      const damaged = layers.find(({ chainID }) => chainID === bad);
      if (damaged === undefined) assert.equal(broken.find(({ chainID }) => chainID === bad)?.path, path, name);
      else {
        // A digit changed for another cannot be told here, except where the chain id is made of it.
        assert.equal(damaged.diffID, digestOf('b'));
        assert.equal(damaged.parent, good);
        assert.match(damaged.cacheID, /^[A-Za-z0-9][A-Za-z0-9_.-]*$/);
        assert.ok(Number.isSafeInteger(damaged.size) && damaged.size >= 0);
      }
      assert.equal(mounts.length + broken.filter(({ kind }) => kind === 'mount').length, 1);
      for (const { id, initID, parent } of mounts) {
        assert.match(
          `${id} ${initID ?? ''} ${parent ?? ''}`,
          /^[0-9a-f]{64} ([0-9a-f]{64}-init)? (sha256:[0-9a-f]{64})?$|^[0-9a-f]{64}/,
        );
      }
      await expectCorruptOrFine(store.getCacheID(bad), store.getDiffID(bad), store.getSize(bad), store.getParent(bad));
      await expectCorruptOrFine(store.getMountID('web'), store.getInitID('web'), store.getMountParent('web'));
      if (name.endsWith('.gz')) await expectCorruptOrFine(store.tarSplitReader(bad).then((reader) => buffer(reader)));
      writeFileSync(file, original);
    }
    assert.ok(reported > 150, `only ${reported} of 1,000 changes were noticed`);
    assert.deepEqual(await store.loadAll(), before);
  });

async function expectCorruptOrFine(...attempts: Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(attempts)) {
    if (result.status === 'rejected')
      assert.ok(LayerStoreError.is(result.reason, 'ERR_LAYER_CORRUPT'), String(result.reason));
  }
}

for (const [by, reader] of Object.entries(readers))
  test(`a store of 5,000 layers, a fifth of them damaged, is loaded whole by ${by}`, async (t) => {
    const directory = tempDir(t);
    const { store } = await openAt(directory, reader === undefined ? {} : { reader });
    for (let n = 0; n < 5000; n++) {
      const hex = n.toString(16).padStart(64, '0');
      const path = join(directory, 'sha256', hex);
      mkdirSync(path);
      writeFileSync(join(path, 'diff'), `sha256:${hex}`);
      writeFileSync(join(path, 'cache-id'), hex);
      writeFileSync(join(path, 'size'), n % 5 === 0 ? '' : String(n));
    }
    const { layers, broken } = await store.loadAll();
    assert.equal(layers.length, 4000);
    assert.equal(broken.length, 1000);
    assert.deepEqual(new Set(broken.map(({ why }) => why)), new Set(['"size" is empty']));
    const one = layers.find(({ size }) => size === 77);
    assert.equal(one?.chainID, `sha256:${(77).toString(16).padStart(64, '0')}`);
  });
