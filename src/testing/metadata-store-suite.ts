/** What every metadata store has to do, as tests for `node:test`. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { finished } from 'node:stream/promises';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { ChainID, DiffID } from '../digest.js';
import { createChainID } from '../digest.js';
import type { ErrorCode } from '../errors.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor, MetadataStore, MetadataTransaction } from '../metadata/metadata-store.js';

export interface MetadataStoreSuiteOptions {
  /** For the titles of the tests. */
  name: string;
  /** Opens a store that may use `directory` (existing, empty at the first call). */
  factory: (directory: string) => Promise<MetadataStore> | MetadataStore;
  /** Whether a second `factory(directory)` finds what the first one's store was given. */
  persistent: boolean;
}

const LINES = '{"type":2,"payload":"aGVhZGVy","position":0}\n{"type":1,"name":"a","payload":null,"position":1}\n';
const ID = '0123456789abcdef'.repeat(4);

/** A digest of one repeated hex digit: no layer's, but well formed. */
const digest = (digit: string): DiffID => `sha256:${digit.repeat(64)}` as DiffID;

interface LayerInput {
  diffID: DiffID;
  parent?: ChainID;
  cacheID?: string;
  size?: number;
  descriptor?: Descriptor;
}

function chainOf({ diffID, parent }: LayerInput): ChainID {
  const id = createChainID([diffID], parent);
  assert.ok(id !== undefined);
  return id;
}

async function begin(store: MetadataStore, input: LayerInput): Promise<MetadataTransaction> {
  const transaction = await store.startTransaction();
  await transaction.setDiffID(input.diffID);
  await transaction.setCacheID(input.cacheID ?? ID);
  await transaction.setSize(input.size ?? 5);
  if (input.parent !== undefined) await transaction.setParent(input.parent);
  if (input.descriptor !== undefined) await transaction.setDescriptor(input.descriptor);
  const writer = await transaction.tarSplitWriter(true);
  writer.end(LINES);
  await finished(writer);
  return transaction;
}

async function add(store: MetadataStore, input: LayerInput): Promise<ChainID> {
  const id = chainOf(input);
  await (await begin(store, input)).commit(id);
  return id;
}

function failsWith(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof LayerStoreError, `a LayerStoreError is expected, got ${String(error)}`);
    assert.equal(error.code, code, error.message);
    return true;
  };
}

/** Registers the tests. */
export function metadataStoreSuite(options: MetadataStoreSuiteOptions): void {
  const { name, factory, persistent } = options;

  const withStore = (
    title: string,
    run: (store: MetadataStore, reopen: () => Promise<MetadataStore>) => Promise<void>,
  ): void => {
    it(title, async () => {
      const directory = await mkdtemp(join(tmpdir(), 'layerstore-metadata-suite-'));
      try {
        await run(await factory(directory), async () => factory(directory));
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    });
  };

  describe(`metadata store: ${name}`, () => {
    withStore('is empty at first', async (store) => {
      assert.deepEqual(await store.list(), { layers: [], mounts: [] });
      await assert.rejects(store.getSize(chainOf({ diffID: digest('a') })), failsWith('ERR_LAYER_DOES_NOT_EXIST'));
      await assert.rejects(store.getMountID('none'), failsWith('ERR_MOUNT_DOES_NOT_EXIST'));
    });

    withStore('gives back what a transaction was told', async (store) => {
      const descriptor: Descriptor = {
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest: digest('d'),
        size: 1234,
        urls: ['https://example.com/<a>&b'],
        annotations: { 'org.example': 'ünïcode', '7': 'x' },
        platform: { os: 'linux', architecture: 'amd64' },
      };
      const base = await add(store, { diffID: digest('a'), size: 0, cacheID: '1'.repeat(64) });
      const top = await add(store, {
        diffID: digest('b'),
        parent: base,
        size: 2 ** 40 + 1,
        cacheID: '2'.repeat(64),
        descriptor,
      });
      assert.equal(await store.getDiffID(base), digest('a'));
      assert.equal(await store.getParent(base), undefined);
      assert.equal(await store.getSize(base), 0);
      assert.equal(await store.getDescriptor(base), undefined);
      assert.equal(await store.getDiffID(top), digest('b'));
      assert.equal(await store.getParent(top), base);
      assert.equal(await store.getSize(top), 2 ** 40 + 1);
      assert.equal(await store.getCacheID(top), '2'.repeat(64));
      assert.deepEqual(await store.getDescriptor(top), descriptor);
      assert.deepEqual(new Set((await store.list()).layers), new Set([base, top]));
    });

    withStore(
      'shows nothing of a transaction before its commit, and nothing ever of a cancelled one',
      async (store) => {
        const id = chainOf({ diffID: digest('a') });
        const transaction = await begin(store, { diffID: digest('a') });
        assert.deepEqual((await store.list()).layers, []);
        await assert.rejects(store.getDiffID(id), failsWith('ERR_LAYER_DOES_NOT_EXIST'));
        await transaction.cancel();
        await transaction.cancel();
        assert.deepEqual((await store.list()).layers, []);
        await assert.rejects(transaction.commit(id), failsWith('ERR_INVALID_ARGUMENT'));
        await add(store, { diffID: digest('a') });
        assert.deepEqual((await store.list()).layers, [id]);
      },
    );

    withStore('refuses a second record of the same layer and one that is not complete', async (store) => {
      const id = await add(store, { diffID: digest('a'), cacheID: '1'.repeat(64) });
      const second = await begin(store, { diffID: digest('a'), cacheID: '2'.repeat(64) });
      await assert.rejects(second.commit(id), failsWith('ERR_LAYER_IN_USE'));
      await second.cancel();
      assert.equal(await store.getCacheID(id), '1'.repeat(64));
      const bare = await store.startTransaction();
      await assert.rejects(bare.commit(chainOf({ diffID: digest('b') })), failsWith('ERR_INVALID_ARGUMENT'));
      await bare.cancel();
    });

    withStore('runs transactions side by side', async (store) => {
      const digits = [...'0123456789abcdef'];
      const ids = await Promise.all(
        digits.map((digit) => add(store, { diffID: digest(digit), cacheID: digit.repeat(64) })),
      );
      assert.deepEqual(new Set((await store.list()).layers), new Set(ids));
      for (const [i, id] of ids.entries()) assert.equal(await store.getCacheID(id), digits[i]?.repeat(64));
    });

    withStore('keeps the tar-split record, given plain or compressed', async (store) => {
      const plain = await add(store, { diffID: digest('a') });
      assert.equal(await text(await store.tarSplitReader(plain)), LINES);
      const transaction = await store.startTransaction();
      await transaction.setDiffID(digest('b'));
      await transaction.setCacheID(ID);
      await transaction.setSize(1);
      const large = Buffer.alloc(3_000_000, LINES);
      const writer = await transaction.tarSplitWriter(false);
      writer.end(gzipSync(large));
      await finished(writer);
      const id = chainOf({ diffID: digest('b') });
      await transaction.commit(id);
      assert.ok((await buffer(await store.tarSplitReader(id))).equals(large));
      const reader = await store.tarSplitReader(id);
      reader.destroy(); // a reader that leaves early is no trouble
      assert.ok((await buffer(await store.tarSplitReader(id))).equals(large));
    });

    withStore('removes layers, marked before or not, and takes them again', async (store) => {
      const id = await add(store, { diffID: digest('a'), cacheID: '1'.repeat(64) });
      await store.remove(id);
      assert.deepEqual((await store.list()).layers, []);
      await store.remove(id);
      await add(store, { diffID: digest('a'), cacheID: '2'.repeat(64) });
      assert.equal(await store.getCacheID(id), '2'.repeat(64));
      if (store.markRemoving === undefined || store.listRemoving === undefined) return;
      await store.markRemoving(id);
      assert.deepEqual((await store.list()).layers, []);
      await assert.rejects(store.getDiffID(id), failsWith('ERR_LAYER_DOES_NOT_EXIST'));
      assert.deepEqual(await store.listRemoving(), [{ chainID: id, cacheID: '2'.repeat(64) }]);
      await add(store, { diffID: digest('a'), cacheID: '3'.repeat(64) });
      await store.remove(id, '2'.repeat(64));
      assert.deepEqual(await store.listRemoving(), []);
      assert.equal(await store.getCacheID(id), '3'.repeat(64));
      await assert.rejects(store.markRemoving(chainOf({ diffID: digest('f') })), failsWith('ERR_LAYER_DOES_NOT_EXIST'));
    });

    withStore('keeps records of RW layers, field by field and whole', async (store) => {
      const parent = chainOf({ diffID: digest('a') });
      await store.setMountID('one', '1'.repeat(64));
      assert.equal(await store.getInitID('one'), undefined);
      assert.equal(await store.getMountParent('one'), undefined);
      await store.setInitID('one', `${'1'.repeat(64)}-init`);
      await store.setMountParent('one', parent);
      assert.equal(await store.getMountID('one'), '1'.repeat(64));
      assert.equal(await store.getInitID('one'), `${'1'.repeat(64)}-init`);
      assert.equal(await store.getMountParent('one'), parent);
      const names = ['one', 'A.b_c-9', 'x'.repeat(128)];
      for (const each of names.slice(1)) {
        await store.setMountID(each, '2'.repeat(64));
        await store.setMount?.(each, { id: '3'.repeat(64), parent });
        assert.equal(await store.getMountID(each), (store.setMount === undefined ? '2' : '3').repeat(64));
      }
      assert.deepEqual(new Set((await store.list()).mounts), new Set(names));
      await store.removeMount('one');
      await store.removeMount('one');
      await assert.rejects(store.getMountID('one'), failsWith('ERR_MOUNT_DOES_NOT_EXIST'));
      assert.equal((await store.list()).mounts.length, 2);
    });

    withStore('refuses names and ids that are none', async (store) => {
      for (const bad of ['', '..', 'a/b', '../../x', '-a', 'x'.repeat(129)]) {
        await assert.rejects(store.setMountID(bad, ID), failsWith('ERR_INVALID_ARGUMENT'));
      }
      await assert.rejects(store.getSize('sha256:../../x' as ChainID), failsWith('ERR_INVALID_DIGEST'));
      const transaction = await store.startTransaction();
      await assert.rejects(transaction.setDiffID('sha256:short' as DiffID), failsWith('ERR_INVALID_DIGEST'));
      await assert.rejects(transaction.setSize(-1), failsWith('ERR_INVALID_ARGUMENT'));
      await assert.rejects(transaction.setSize(1.5), failsWith('ERR_INVALID_ARGUMENT'));
      await transaction.cancel();
    });

    withStore('loads at once what list and the getters say', async (store) => {
      if (store.loadAll === undefined) return;
      const base = await add(store, { diffID: digest('a'), size: 1 });
      const top = await add(store, { diffID: digest('b'), parent: base, size: 2 });
      await store.setMountID('web', ID);
      await store.setMountParent('web', top);
      const { layers, mounts, removing, broken } = await store.loadAll();
      layers.sort((a, b) => a.size - b.size);
      assert.deepEqual(layers, [
        { chainID: base, diffID: digest('a'), cacheID: ID, size: 1 },
        { chainID: top, diffID: digest('b'), cacheID: ID, size: 2, parent: base },
      ]);
      assert.deepEqual(mounts, [{ name: 'web', id: ID, parent: top }]);
      assert.deepEqual([removing, broken], [[], []]);
    });

    withStore('puts another tar-split record in the place of one', async (store) => {
      if (store.replaceTarSplit === undefined) return;
      const id = await add(store, { diffID: digest('a') });
      const transaction = await store.startTransaction();
      const writer = await transaction.tarSplitWriter(true);
      writer.end('{"type":2,"payload":"bmV3","position":0}\n');
      await finished(writer);
      await store.replaceTarSplit(id, transaction);
      await transaction.cancel();
      assert.equal(await text(await store.tarSplitReader(id)), '{"type":2,"payload":"bmV3","position":0}\n');
      assert.equal(await store.getDiffID(id), digest('a'));
    });

    if (!persistent) return;

    withStore('has everything again when it is opened again', async (store, reopen) => {
      const base = await add(store, { diffID: digest('a') });
      const top = await add(store, { diffID: digest('b'), parent: base });
      const unfinished = await begin(store, { diffID: digest('c') });
      await store.setMountID('web', ID);
      const again = await reopen();
      assert.deepEqual(new Set((await again.list()).layers), new Set([base, top]));
      assert.equal(await again.getParent(top), base);
      assert.equal(await text(await again.tarSplitReader(top)), LINES);
      assert.equal(await again.getMountID('web'), ID);
      if (again.listBroken !== undefined && again.discard !== undefined) {
        const leftovers = await again.listBroken();
        assert.deepEqual(
          leftovers.map(({ kind }) => kind),
          ['temporary'],
        );
        for (const each of leftovers) await again.discard(each);
        assert.deepEqual(await again.listBroken(), []);
      }
      await unfinished.cancel();
    });
  });
}
