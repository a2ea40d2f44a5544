/** Every fallback for a metadata store of the required methods alone, and that what is there is used. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { parseChainID, parseDiffID, type ChainID } from '../../../src/digest.js';
import type { BatchOp, StepsAround } from '../../../src/engine/engine.js';
import { adaptMetadataStore } from '../../../src/metadata/adapt.js';
import { createMemoryMetadataStore } from '../../../src/metadata/memory-store.js';
import type { BrokenRecord, FullMetadataStore, MetadataStore } from '../../../src/metadata/metadata-store.js';
import { requiredOnly } from '../store/support.js';

const A = parseChainID(`sha256:${'a'.repeat(64)}`);
const B = parseChainID(`sha256:${'b'.repeat(64)}`);
const CACHE = 'c'.repeat(64);
const MOUNT = 'd'.repeat(64);
const BROKEN: BrokenRecord = { kind: 'temporary', what: 'tmp/x', why: 'unfinished' };

function adapted(extra: Partial<MetadataStore> = {}): {
  full: FullMetadataStore;
  calls: string[];
  inner: MetadataStore;
} {
  const calls: string[] = [];
  const inner = requiredOnly(createMemoryMetadataStore());
  const watched = Object.fromEntries(
    Object.entries({ ...inner, ...extra }).map(([name, method]) => [
      name,
      (...args: unknown[]): unknown => {
        if (!name.startsWith('get')) calls.push(name);
        return (method as (...args: unknown[]) => unknown).apply(inner, args);
      },
    ]),
  ) as unknown as MetadataStore;
  const journal = {
    begin: async (id: string, kind: string, also: readonly string[]): Promise<void> =>
      void calls.push(['begin', kind, ...[id, ...also].map((each) => each.replace(/^(.)\1*/, '$1'))].join(' ')),
    end: async (id: string): Promise<void> => void calls.push(`end ${id.slice(0, 1)}`),
    endSteps: (id: string): BatchOp[] => [{ op: 'unlink', path: `/intents/${id.slice(0, 1)}` }],
  };
  return { full: adaptMetadataStore(watched, journal), calls, inner };
}

async function addLayer(full: FullMetadataStore, id: ChainID, cacheID = CACHE): Promise<void> {
  const transaction = await full.startTransaction();
  await transaction.setDiffID(parseDiffID(id));
  await transaction.setCacheID(cacheID);
  await transaction.setSize(7);
  const target = await transaction.tarSplitTarget();
  assert.ok('writer' in target);
  await new Promise<void>((done) => target.writer.end('{}\n', () => done()));
  await transaction.commit(id);
}

test('the tar-split record goes into a stream, and comes back as one', async () => {
  const { full } = adapted();
  await addLayer(full, A);
  const content = await full.tarSplit(A);
  assert.ok(content instanceof Readable);
  assert.equal((await content.toArray()).join(''), '{}\n');
});

test('a tar-split file is given by its path where there is one', async () => {
  const { full } = adapted({ tarSplitPath: async () => '/a/file' });
  assert.deepEqual(await full.tarSplit(A), { path: '/a/file' });
});

/** Makes, or removes, the files of an RW layer: notes the call and the steps around it. */
const files =
  (calls: string[], what: string, error?: Error) =>
  async ({ before, after }: StepsAround): Promise<void> => {
    calls.push([what, ...before.map(({ op }) => op), ...after.map(({ op, path }) => `${op} ${path}`)].join(' '));
    if (error !== undefined) throw error;
  };

const BOX = { id: MOUNT, initID: `${MOUNT}-init`, parent: A };

test('an RW layer is made between its note in the journal and its record, which is written in pieces, its id last', async () => {
  const { full, calls } = adapted();
  await full.createMount('box', BOX, files(calls, 'make'));
  assert.deepEqual(calls, ['begin rw d d-init', 'make', 'setMountParent', 'setInitID', 'setMountID', 'end d']);
});

test('an RW layer whose files or record cannot be made has no record, and its note stays', async () => {
  const failure = new Error('full');
  const early = adapted();
  await assert.rejects(early.full.createMount('box', BOX, files(early.calls, 'make', failure)), failure);
  assert.deepEqual(early.calls, ['begin rw d d-init', 'make']);
  const late = adapted({ setMountID: () => Promise.reject(failure) });
  await assert.rejects(late.full.createMount('box', BOX, files(late.calls, 'make')), failure);
  assert.deepEqual(late.calls.slice(-2), ['setMountID', 'removeMount']);
});

test('an RW layer is removed by a note in the journal, which ends with the last of its files', async () => {
  const { full, calls } = adapted();
  await full.createMount('box', BOX, files(calls, 'make'));
  calls.length = 0;
  await full.deleteMount('box', BOX, files(calls, 'remove'));
  assert.deepEqual(calls, ['begin remove d d-init', 'removeMount', 'remove unlink /intents/d']);
});

test('the record of an RW layer that cannot be removed ends the note', async () => {
  const failure = new Error('busy');
  const { full, calls } = adapted({ removeMount: () => Promise.reject(failure) });
  await assert.rejects(full.deleteMount('box', { id: MOUNT }, files(calls, 'remove')), failure);
  assert.deepEqual(calls, ['begin remove d', 'removeMount', 'end d']);
});

test('all records are read by the getters, and one that cannot be read stops no other', async () => {
  const { full, inner } = adapted();
  await addLayer(full, A);
  await addLayer(full, B);
  await full.createMount('box', { id: MOUNT, parent: A }, async () => undefined);
  await full.createMount('bad', { id: MOUNT }, async () => undefined);
  const torn: MetadataStore = {
    ...inner,
    getSize: async (id) => (id === B ? Promise.reject(new Error('torn')) : inner.getSize(id)),
    getMountID: async (name) => (name === 'bad' ? Promise.reject(new Error('torn')) : inner.getMountID(name)),
  };
  const broken = adaptMetadataStore(torn, {
    begin: async () => undefined,
    end: async () => undefined,
    endSteps: () => [],
  });
  assert.deepEqual(await broken.loadAll(), {
    layers: [{ chainID: A, diffID: A, cacheID: CACHE, size: 7 }],
    mounts: [{ name: 'box', id: MOUNT, parent: A }],
    removing: [],
    broken: [
      { kind: 'layer', what: B, why: 'torn', chainID: B },
      { kind: 'mount', what: 'bad', why: 'torn', name: 'bad' },
    ],
  });
});

test('a removal is noted in the journal before the record goes, until it is ended', async () => {
  const { full, calls } = adapted();
  await addLayer(full, A);
  calls.length = 0;
  await full.markRemoving(A);
  assert.deepEqual(calls, ['begin remove c', 'remove']);
  assert.deepEqual(await full.listRemoving(), []);
  await full.remove(A, CACHE);
  assert.deepEqual(calls, ['begin remove c', 'remove', 'end c']);
});

test('a removal that fails ends its note, and the record stays', async () => {
  const { full, calls } = adapted({ remove: () => Promise.reject(new Error('no')) });
  await addLayer(full, A);
  calls.length = 0;
  await assert.rejects(full.markRemoving(A), /no/);
  assert.deepEqual(calls, ['begin remove c', 'remove', 'end c']);
  assert.equal(await full.getSize(A), 7);
});

test('a removal that was never marked goes to the store', async () => {
  const { full, calls } = adapted();
  await addLayer(full, A);
  calls.length = 0;
  await full.remove(A);
  assert.deepEqual(calls, ['remove']);
  await assert.rejects(full.getSize(A), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
});

test('without lists of broken records there are none, and nothing is moved or deleted', async () => {
  const { full } = adapted();
  assert.deepEqual([await full.listBroken(), await full.listTemporary()], [[], []]);
  assert.equal(await full.quarantine(BROKEN, '/aside'), undefined);
  await assert.rejects(full.discard(BROKEN), { code: 'ERR_NOT_SUPPORTED' });
});

test('temporary records are picked from all broken ones where nobody lists them alone', async () => {
  const { full } = adapted({ listBroken: async () => [BROKEN, { ...BROKEN, kind: 'layer' }] });
  assert.deepEqual(await full.listTemporary(), [BROKEN]);
});

test('a tar-split record that cannot be replaced stays', async () => {
  const { full } = adapted();
  await addLayer(full, A);
  await full.replaceTarSplit(A, await full.startTransaction());
  assert.ok((await full.tarSplit(A)) instanceof Readable);
});
