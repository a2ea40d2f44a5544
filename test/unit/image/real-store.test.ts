/** Images on a real store, with the engine written in JavaScript, so that it runs wherever Node does. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { ChainID } from '../../../src/digest.js';
import { openImages, type ImageLimits, type ImageProgress } from '../../../src/image/index.js';
import { openStore } from '../../../src/store/open.js';
import { tempDir } from '../../support/temp.js';
import { dockerFolders, entries, oci, sampleLayers, tar } from './archives.js';
import { CASES } from './broken-cases.js';

const OPTIONS = { driver: 'vfs', engine: 'js', durability: 'relaxed' } as const;

/** Everything that layers and images leave on disk. */
function onDisk(root: string): string[] {
  const below = [
    'vfs/dir',
    'image/vfs/layerdb/sha256',
    'image/vfs/layerdb/tmp',
    'layerstore/intents',
    'image/vfs/imagedb/content/sha256',
  ];
  return below.flatMap((path) => {
    try {
      return readdirSync(join(root, path)).map((name) => `${path}/${name}`);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOENT');
      return [];
    }
  });
}

describe('images on a real store', () => {
  it('takes the limits of archives beside those of layers', async (t) => {
    await using store = await openStore({ root: join(tempDir(t, 'image'), 'root'), ...OPTIONS });
    const images = await openImages(store);
    const archive = await tar(entries(dockerFolders(await sampleLayers())));
    const load = (limits: ImageLimits) =>
      images.load(Readable.from([archive], { objectMode: false }), { limits: { maxLayers: 10, ...limits } });
    await assert.rejects(load({ maxEntries: 0 }), { code: 'ERR_LIMIT_EXCEEDED' });
    await assert.rejects(load({ maxLayer: 1 } as ImageLimits), { code: 'ERR_INVALID_ARGUMENT' });
    assert.equal((await load({ maxEntries: 1000 })).length, 1);
  });

  it('load, reopen, save, remove: nothing is left', async (t) => {
    const root = join(tempDir(t, 'image'), 'root');
    const layers = await sampleLayers();
    const archive = await tar(entries(dockerFolders(layers)));
    const store = await openStore({ root, ...OPTIONS });
    const events: ImageProgress[] = [];
    const onProgress = (event: ImageProgress): void => void events.push(event);
    const [image] = await (
      await openImages(store)
    ).load(Readable.from([archive], { objectMode: false }), { onProgress });
    assert.ok(image !== undefined);
    assert.deepEqual(new Set(events.map(({ layer }) => layer)), new Set([0, 1, 2]), 'progress of each layer');
    assert.equal(
      image.size,
      await store
        .map()
        .get(image.chainID as ChainID)
        ?.size(),
    );
    await store.close();

    const again = await openStore({ root, ...OPTIONS });
    const images = await openImages(again);
    assert.deepEqual(images.list(), [image]);
    // A handle that somebody else gives back takes nothing away from the image.
    assert.deepEqual(await again.release(await again.get(image.chainID as ChainID)), []);
    assert.deepEqual((await again.gc()).removed, []);
    const saved = join(root, 'saved.tar');
    await images.save('sample:1', { path: saved });
    for (const layer of layers) assert.ok((await readFile(saved)).includes(layer), 'layers byte for byte');
    const removed = await images.remove('sample:1');
    assert.deepEqual(
      removed.map(({ diffID }) => diffID),
      [...image.diffIDs].reverse(),
    );
    assert.equal((await images.load({ path: saved }))[0]?.id, image.id);
    await images.remove(image.id);
    await again.close();
    assert.deepEqual(onDisk(root), []);
  });

  it('an image without layers: loaded, listed, reopened, saved, the ground of an RW layer, removed', async (t) => {
    const root = join(tempDir(t, 'image'), 'root');
    const archive = await tar(entries(oci([], { name: 'bare:1' }).files));
    const store = await openStore({ root, ...OPTIONS });
    const images = await openImages(store);
    const [image] = await images.load(Readable.from([archive], { objectMode: false }));
    assert.ok(image !== undefined && 'chainID' in image);
    assert.deepEqual([image.chainID, image.diffIDs, image.size], [undefined, [], 0]);
    const box = await store.createRWLayer('box', image.chainID);
    assert.equal(box.parent, undefined);
    await writeFile(join(await box.mount(), 'made'), 'x');
    assert.deepEqual(await box.changes(), [{ path: '/made', kind: 'add' }]);
    await box.unmount();
    const layer = await store.commit(box);
    assert.equal(layer.parent, undefined);
    await store.release(layer);
    await store.close();

    const again = await openStore({ root, ...OPTIONS });
    t.after(() => again.close());
    const others = await openImages(again);
    assert.deepEqual(await others.get('bare:1'), image);
    for (const format of ['docker', 'oci'] as const) {
      await others.save('bare:1', { path: join(root, format) }, { format });
      assert.deepEqual(await others.load({ path: join(root, format) }), [image]);
    }
    // The RW layer stands on nothing, so the image is not in use.
    assert.deepEqual(await others.remove('bare:1'), []);
    await again.releaseRWLayer(await again.getRWLayer('box'));
    assert.deepEqual(others.list(), []);
  });

  it('a load that fails keeps a layer that was there, although nobody refers to it', async (t) => {
    const root = join(tempDir(t, 'image'), 'root');
    const layers = await sampleLayers();
    const first = await openStore({ root, ...OPTIONS });
    const base = await first.register(Readable.from([layers[0]], { objectMode: false }));
    const { chainID } = base;
    await first.close(); // drops the handle and removes nothing

    const store = await openStore({ root, ...OPTIONS });
    t.after(() => store.close());
    const images = await openImages(store);
    const whole = await tar(entries(oci(layers).files));
    const damaged = Buffer.from(whole);
    damaged.fill(0x41, damaged.indexOf('#'.repeat(200)), damaged.indexOf('#'.repeat(200)) + 5);
    for (const bytes of [damaged, whole.subarray(0, -1536)]) {
      await assert.rejects(images.load(Readable.from([bytes], { objectMode: false })));
      assert.deepEqual([...store.map().keys()], [chainID]);
    }
    // With the load it ended being kept: gc may have it.
    assert.deepEqual(
      (await store.gc()).removed.map((layer) => layer.chainID),
      [chainID],
    );
  });

  for (const engine of ['native', 'js'] as const) {
    it(`every broken image leaves nothing: ${engine} engine`, async (t) => {
      const root = join(tempDir(t, 'image'), 'root');
      const store = await openStore({ root, ...OPTIONS, engine });
      t.after(() => store.close());
      const images = await openImages(store);
      for (const [title, { code, limits, archive }] of Object.entries(CASES)) {
        const path = join(root, 'broken.tar');
        const bytes = await archive();
        await writeFile(path, bytes);
        for (const source of [{ path }, Readable.from([bytes], { objectMode: false })]) {
          const loading = images.load(source, limits === undefined ? {} : { limits });
          await assert.rejects(loading, { code }, title);
        }
        assert.equal(store.map().size, 0, title);
      }
      assert.deepEqual(images.list(), []);
      await store.close(); // ends what is removed in the background
      const again = await openStore({ root, ...OPTIONS, engine });
      await again.close();
      assert.deepEqual(onDisk(root), []);
    });
  }

  it('a broken image leaves nothing, and what was there stays', async (t) => {
    const root = join(tempDir(t, 'image'), 'root');
    const layers = await sampleLayers();
    const store = await openStore({ root, ...OPTIONS });
    t.after(() => store.close());
    const images = await openImages(store);
    const base = join(root, 'base.tar');
    await writeFile(base, await tar(entries(oci(layers.slice(0, 1), { name: 'base:1' }).files)));
    const [kept] = await images.load({ path: base });
    const before = onDisk(root);
    const whole = await tar(entries(oci(layers).files));
    const damaged = Buffer.from(whole);
    damaged.fill(0x41, damaged.indexOf('#'.repeat(200)), damaged.indexOf('#'.repeat(200)) + 5);
    for (const [bytes, code] of [
      [damaged, 'ERR_DIGEST_MISMATCH'],
      [whole.subarray(0, 200_000), 'ERR_BAD_IMAGE'],
    ] as const) {
      const path = join(root, 'broken.tar');
      await writeFile(path, bytes);
      await assert.rejects(images.load({ path }), { code });
      await assert.rejects(images.load(Readable.from([bytes], { objectMode: false })), { code });
      assert.deepEqual([...store.map().keys()], [kept?.chainID]);
    }
    assert.deepEqual(onDisk(root).sort(), before.sort());
    const layer = store.map().get(kept?.chainID as never);
    assert.ok((await buffer(await (layer as NonNullable<typeof layer>).tarStream())).equals(layers[0] as Buffer));
  });
});
