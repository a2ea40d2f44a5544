/** Bad input at every public entry: the code of the contract, a sentence that helps, an untouched store. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { ErrorCode } from '../../../src/errors.js';
import type { Layer, RWLayer, Store } from '../../../src/store/types.js';
import { Bench, code, diffIDOf, streamOf, tarOf } from './support.js';

const A = tarOf('a');
const MISSING = `sha256:${'0'.repeat(64)}`;

interface Place {
  // Loose on purpose: the point is what the types forbid.
  store: Record<keyof Store, (...args: unknown[]) => Promise<unknown>>;
  layer: Layer;
  box: RWLayer;
  directory: string;
}

const cases: [string, ErrorCode, (place: Place) => Promise<unknown>][] = [
  ['register nothing', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register(undefined)],
  ['register a text', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register('/a/path')],
  ['register bytes', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register(A)],
  ['register an empty path', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register({ path: '' })],
  ['register a path with more', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register({ path: 'x', mode: 1 })],
  ['register half a range', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register({ path: 'x', offset: 1 })],
  ['register a missing file', 'ERR_SYSTEM', ({ store, directory }) => store.register({ path: join(directory, 'no') })],
  ['an unknown parent', 'ERR_LAYER_DOES_NOT_EXIST', ({ store }) => store.register(streamOf(A), MISSING)],
  ['a parent that is no digest', 'ERR_INVALID_DIGEST', ({ store }) => store.register(streamOf(A), 'base')],
  ['a parent that is null', 'ERR_INVALID_DIGEST', ({ store }) => store.register(streamOf(A), null)],
  ['an unknown option', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register(streamOf(A), undefined, { digest: 1 })],
  ['options that are a text', 'ERR_INVALID_ARGUMENT', ({ store }) => store.register(streamOf(A), undefined, 'x')],
  [
    'a diff id that is none',
    'ERR_INVALID_DIGEST',
    ({ store }) => store.register(streamOf(A), undefined, { diffID: 'x' }),
  ],
  [
    'a signal that is none',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.register(streamOf(A), undefined, { signal: {} }),
  ],
  [
    'a listener that is none',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.register(streamOf(A), undefined, { onProgress: 1 }),
  ],
  [
    'a limit that is NaN',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.register(streamOf(A), undefined, { limits: { maxBytes: NaN } }),
  ],
  [
    'no descriptor',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.registerWithDescriptor(streamOf(A), undefined, undefined),
  ],
  [
    'a descriptor without size',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.registerWithDescriptor(streamOf(A), undefined, { mediaType: 'x', digest: MISSING }),
  ],
  [
    'a descriptor with a bad digest',
    'ERR_INVALID_DIGEST',
    ({ store }) => store.registerWithDescriptor(streamOf(A), undefined, { mediaType: 'x', digest: 'md5:1', size: 1 }),
  ],
  ['a chain that is none', 'ERR_INVALID_ARGUMENT', ({ store }) => store.registerChain({})],
  ['a chain of null', 'ERR_INVALID_ARGUMENT', ({ store }) => store.registerChain([null])],
  ['a link without diff id', 'ERR_INVALID_DIGEST', ({ store }) => store.registerChain([{ tar: streamOf(A) }])],
  [
    'a link with more',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.registerChain([{ tar: streamOf(A), diffID: MISSING, x: 1 }]),
  ],
  [
    'diffID for a whole chain',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.registerChain([], undefined, { diffID: MISSING }),
  ],
  ['get what is no digest', 'ERR_INVALID_DIGEST', ({ store }) => store.get('sha256:12')],
  ['get what is not there', 'ERR_LAYER_DOES_NOT_EXIST', ({ store }) => store.get(MISSING)],
  ['retain with an empty name', 'ERR_INVALID_ARGUMENT', ({ store, layer }) => store.retain(layer.chainID, '')],
  ['retain with a line end', 'ERR_INVALID_ARGUMENT', ({ store, layer }) => store.retain(layer.chainID, 'a\nb')],
  [
    'retain with a long name',
    'ERR_INVALID_ARGUMENT',
    ({ store, layer }) => store.retain(layer.chainID, 'a'.repeat(1025)),
  ],
  [
    'retain until a text',
    'ERR_INVALID_ARGUMENT',
    ({ store, layer }) => store.retain(layer.chainID, 'a', { expires: 'soon' }),
  ],
  [
    'retain until no date',
    'ERR_INVALID_ARGUMENT',
    ({ store, layer }) => store.retain(layer.chainID, 'a', { expires: new Date(NaN) }),
  ],
  ['drop what is not there', 'ERR_LAYER_NOT_RETAINED', ({ store }) => store.dropReference('nobody')],
  ['an RW name with a slash', 'ERR_INVALID_ARGUMENT', ({ store }) => store.createRWLayer('a/b')],
  ['an RW name that is ..', 'ERR_INVALID_ARGUMENT', ({ store }) => store.createRWLayer('..')],
  ['an RW name that is too long', 'ERR_INVALID_ARGUMENT', ({ store }) => store.createRWLayer('a'.repeat(129))],
  ['a taken RW name', 'ERR_MOUNT_NAME_CONFLICT', ({ store }) => store.createRWLayer('box')],
  ['an RW layer on nothing', 'ERR_LAYER_DOES_NOT_EXIST', ({ store }) => store.createRWLayer('new', MISSING)],
  ['an unknown RW option', 'ERR_INVALID_ARGUMENT', ({ store }) => store.createRWLayer('new', undefined, { init: 1 })],
  [
    'an unknown storage option',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.createRWLayer('new', undefined, { storageOpt: { inodes: '1' } }),
  ],
  [
    'an initFunc that is none',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.createRWLayer('new', undefined, { initFunc: 1 }),
  ],
  [
    'a label with a quote',
    'ERR_INVALID_ARGUMENT',
    ({ store }) => store.createRWLayer('new', undefined, { mountLabel: 'a"b' }),
  ],
  ['an RW layer that is not there', 'ERR_MOUNT_DOES_NOT_EXIST', ({ store }) => store.getRWLayer('new')],
  ['the mount id of nothing', 'ERR_MOUNT_DOES_NOT_EXIST', ({ store }) => store.getMountID('new')],
  ['release of a read-only layer as RW', 'ERR_LAYER_NOT_RETAINED', ({ store, layer }) => store.releaseRWLayer(layer)],
  ['release of an RW layer as read-only', 'ERR_LAYER_NOT_RETAINED', ({ store, box }) => store.release(box)],
  ['commit of a read-only layer', 'ERR_LAYER_NOT_RETAINED', ({ store, layer }) => store.commit(layer)],
  ['an unknown commit option', 'ERR_INVALID_ARGUMENT', ({ store, box }) => store.commit(box, { message: 'x' })],
  ['verify of nothing', 'ERR_LAYER_DOES_NOT_EXIST', ({ store }) => store.verify(MISSING)],
  ['verify by no readers', 'ERR_INVALID_ARGUMENT', ({ store }) => store.verify(undefined, { concurrency: 0 })],
  ['repair of nothing', 'ERR_LAYER_DOES_NOT_EXIST', ({ store }) => store.repair(MISSING, streamOf(A))],
  ['repair from nothing', 'ERR_INVALID_ARGUMENT', ({ store, layer }) => store.repair(layer.chainID, undefined)],
  ['gc with an unknown option', 'ERR_INVALID_ARGUMENT', ({ store }) => store.gc({ dry: true })],
  ['export to nowhere', 'ERR_INVALID_ARGUMENT', ({ layer }) => layer.exportTo({} as never)],
  ['export to two places', 'ERR_INVALID_ARGUMENT', ({ layer }) => layer.exportTo({ path: 'x', fd: 1 })],
  ['export to a descriptor below 0', 'ERR_INVALID_ARGUMENT', ({ layer }) => layer.exportTo({ fd: -1 })],
  [
    'export below a file',
    'ERR_SYSTEM',
    ({ layer, directory }) => layer.exportTo({ path: join(directory, 'file', 'x') }),
  ],
  ['export onto a directory', 'ERR_SYSTEM', ({ layer, directory }) => layer.exportTo({ path: directory })],
  ['a difference from a stranger', 'ERR_INVALID_ARGUMENT', ({ layer }) => layer.tarStreamFrom(MISSING as never)],
  ['a difference from itself', 'ERR_INVALID_ARGUMENT', ({ layer }) => layer.tarStreamFrom(layer.chainID)],
  ['mount with a label that is a number', 'ERR_INVALID_ARGUMENT', ({ box }) => box.mount(1 as never)],
  ['an RW tar with an unknown option', 'ERR_INVALID_ARGUMENT', ({ box }) => box.tarStream({ gzip: true } as never)],
  ['a diff applied from nothing', 'ERR_INVALID_ARGUMENT', ({ box }) => box.applyDiff(undefined as never)],
];

for (const [what, expected, call] of cases) {
  test(`${what}: ${expected}`, async (t) => {
    const bench = await Bench.make(t);
    const directory = join(dirname(bench.root), 'outside');
    await mkdir(directory);
    await writeFile(join(directory, 'file'), '');
    const store = await bench.open();
    const layer = await store.register(streamOf(A));
    const box = await store.createRWLayer('box', layer.chainID);
    const place = { store: store as unknown as Place['store'], layer, box, directory };
    await assert.rejects(async () => call(place), code(expected, /.{20}/));
    assert.equal(store.map().size, 1);
    assert.equal(store.mounts().size, 1);
    assert.deepEqual(store.references(), []);
    assert.equal(bench.disk.entries.size, 2);
    assert.deepEqual(await store.releaseRWLayer(box), []);
    assert.equal((await store.release(layer)).length, 1);
  });
}

test("a source stream's own error comes through as it is", async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const own = new Error('mine');
  const source = new Readable({
    read() {
      this.destroy(own);
    },
  });
  await assert.rejects(store.register(source), (error) => error === own);
  assert.equal(store.map().size, 0);
});

test('a stream that nobody read is ended', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const source = streamOf(A);
  await assert.rejects(store.register(source, MISSING as never), code('ERR_LAYER_DOES_NOT_EXIST'));
  assert.equal(source.destroyed, true);
});

test('a wrong diff id is told from the right one', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const right = await store.register(streamOf(A), undefined, { diffID: diffIDOf(A) });
  assert.equal(right.diffID, diffIDOf(A));
});
