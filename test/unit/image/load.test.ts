import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createChainID, type DiffID } from '../../../src/digest.js';
import { openImages, type Image, type LoadOptions } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';
import {
  docker25,
  dockerFolders,
  entries,
  descriptor,
  hex,
  MANIFEST,
  oci,
  sampleConfig,
  sampleLayers,
  sha256,
  tar,
  type Entry,
} from './archives.js';
import { FakeStore } from './fake-store.js';
import { loadInto, WAYS, type Way } from './load-support.js';

let store: FakeStore & Store;
let layers: Buffer[];
let diffIDs: DiffID[];
beforeEach(async () => {
  store = await FakeStore.open();
  layers = await sampleLayers();
  diffIDs = layers.map(sha256) as DiffID[];
});
afterEach(async () => store.dispose());

const load = (archive: Buffer, way: Way, options: LoadOptions = {}): Promise<Image[]> =>
  loadInto(store, archive, way, options);

async function layoutDirectory(files: ReadonlyMap<string, Uint8Array | string>): Promise<string> {
  const path = join(store.root, 'layout');
  for (const [name, content] of files) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), content);
  }
  return path;
}

function assertSample(images: readonly Image[], names: readonly string[] = ['sample:1']): void {
  assert.equal(images.length, 1);
  const [image] = images;
  assert.deepEqual(image?.names, names);
  assert.deepEqual(image?.diffIDs, diffIDs);
  assert.equal(image?.chainID, createChainID(diffIDs));
  assert.equal(image?.id, sha256(image?.rawConfig ?? ''));
  assert.equal(store.handles, 1, 'the image, and nobody else, holds its layers');
}

/** One image of `sampleLayers` each, in every layout that is around. */
const LAYOUTS: Readonly<Record<string, () => Promise<Entry[]>>> = {
  'OCI, plain blobs': async () => entries(oci(layers).files),
  'OCI, gzip blobs': async () => entries(oci(layers, { gzip: true }).files),
  'OCI, index before blobs': async () => entries(oci(layers).files).reverse(),
  'OCI, names with ./': async () =>
    entries(oci(layers).files).map(([name, content]): Entry => [`./${name as string}`, content as Buffer]),
  'OCI without the oci-layout marker': async () => entries(oci(layers).files).filter(([name]) => name !== 'oci-layout'),
  'OCI with manifest.json beside it, as Docker 25 saves': async () => {
    const { files, config, blobs } = oci(layers);
    const docker = JSON.stringify([
      {
        Config: `blobs/sha256/${hex(config)}`,
        RepoTags: ['sample:1'],
        Layers: blobs.map((blob) => `blobs/sha256/${hex(blob)}`),
      },
    ]);
    return [...entries(files), ['manifest.json', docker]];
  },
  'Docker 25': async () => entries(docker25([{ layers, tags: ['sample:1'] }])),
  'Docker, folders': async () => entries(dockerFolders(layers)),
  'Docker, folders and directory entries': async () => {
    const files = entries(dockerFolders(layers));
    const directories = new Set(files.map(([name]) => dirname(name as string)).filter((name) => name !== '.'));
    return [...[...directories].map((name): Entry => [{ name: `${name}/`, type: 'directory' }]), ...files];
  },
  'Docker, layers as <digest>.tar with symbolic links from folders, as skopeo and podman write': async () => {
    const config = sampleConfig(layers);
    const names = layers.map((layer) => `${hex(layer)}.tar`);
    const links = names.map((name, index): Entry => [
      { name: `${hex(String(index))}/layer.tar`, type: 'symlink', linkname: `../${name}` },
    ]);
    const manifest = JSON.stringify([
      { Config: `${hex(config)}.json`, RepoTags: ['docker.io/library/sample:1'], Layers: names },
    ]);
    return [
      ...layers.map((layer): Entry => [`${hex(layer)}.tar`, layer]),
      [`${hex(config)}.json`, config],
      ...links,
      ['manifest.json', manifest],
    ];
  },
  'Docker, manifest naming the links': async () => {
    const config = sampleConfig(layers);
    const links = layers.map((layer, index): Entry => [
      { name: `${hex(String(index))}/layer.tar`, type: 'symlink', linkname: `../${hex(layer)}.tar` },
    ]);
    const manifest = JSON.stringify([
      {
        Config: 'config.json',
        RepoTags: ['sample:1'],
        Layers: layers.map((_, index) => `${hex(String(index))}/layer.tar`),
      },
    ]);
    return [
      ['manifest.json', manifest],
      ...links,
      ...layers.map((layer): Entry => [`${hex(layer)}.tar`, layer]),
      ['config.json', config],
    ];
  },
  'Docker, hard links': async () => {
    const config = sampleConfig(layers);
    const links = layers.map((layer, index): Entry => [
      { name: `l${index}/layer.tar`, type: 'link', linkname: `${hex(layer)}.tar` },
    ]);
    const manifest = JSON.stringify([
      { Config: 'config.json', RepoTags: ['sample:1'], Layers: layers.map((_, index) => `l${index}/layer.tar`) },
    ]);
    return [
      ...layers.map((layer): Entry => [`${hex(layer)}.tar`, layer]),
      ...links,
      ['config.json', config],
      ['manifest.json', manifest],
    ];
  },
  'Docker, gzip layers': async () => {
    const config = sampleConfig(layers);
    const manifest = JSON.stringify([{ Config: 'c.json', RepoTags: ['sample:1'], Layers: ['0', '1', '2'] }]);
    return [
      ['c.json', config],
      ['manifest.json', manifest],
      ...layers.map((layer, index): Entry => [String(index), gzipSync(layer)]),
    ];
  },
};

describe('load: every layout, from a path and from a stream', () => {
  for (const [layout, build] of Object.entries(LAYOUTS)) {
    for (const way of WAYS) {
      it(`${layout}; ${way}`, async () => {
        assertSample(await load(await tar(await build()), way));
        assert.deepEqual([...store.read].sort(), [...diffIDs].sort(), 'each layer is read once');
      });
    }
  }

  for (const gzip of [false, true]) {
    it(`an OCI layout directory${gzip ? ' with gzip blobs' : ''}`, async () => {
      const path = await layoutDirectory(oci(layers, { gzip }).files);
      assertSample(await (await openImages(store)).load({ path }));
      const [image] = (await openImages(store)).list();
      assert.deepEqual(
        store.map().get(image?.chainID as never)?.descriptor?.size,
        gzip ? gzipSync(layers[2] as Buffer).length : layers[2]?.length,
      );
    });
  }

  it('a layout that comes layers last is loaded without a spool', async () => {
    const parts = entries(oci(layers).files);
    const layersLast = [...parts.slice(layers.length).reverse(), ...parts.slice(0, layers.length)];
    // A single byte in the spool would be over the limit.
    const images = await load(await tar(layersLast), 'stream', { limits: { maxSpoolBytes: 0 } });
    assertSample(images);
  });

  it('a chain that has one blob twice', async () => {
    const twice = [layers[0], layers[1], layers[0]] as Buffer[];
    for (const order of [(list: Entry[]) => list, (list: Entry[]) => [...list].reverse()]) {
      const [image] = await load(await tar(order(entries(oci(twice).files))), 'stream');
      assert.deepEqual(image?.diffIDs, twice.map(sha256));
      await (await openImages(store)).remove(image?.id);
    }
  });

  it('an image without layers', async () => {
    const [image] = await load(await tar(entries(oci([]).files)), 'path');
    assert.equal(image?.chainID, undefined);
    assert.equal(image?.size, 0);
    assert.deepEqual(await (await openImages(store)).remove('sample:1'), []);
  });

  it('an image whose lists Go wrote as null', async () => {
    const { files, manifest } = oci([]);
    const bare = manifest.replace('"layers":[]', '"layers":null,"manifests":null');
    files.set(`blobs/sha256/${hex(bare)}`, bare);
    files.set('index.json', JSON.stringify({ schemaVersion: 2, manifests: [descriptor(bare, MANIFEST)] }));
    const [image] = await load(await tar(entries(files)), 'path');
    assert.deepEqual([image?.names, image?.diffIDs], [[], []]);
  });

  it('long names in GNU and PAX headers', async () => {
    const long = `${'d/'.repeat(80)}config.json`;
    const manifest = JSON.stringify([{ Config: long, RepoTags: ['sample:1'], Layers: ['0', '1', '2'] }]);
    const archive = await tar([
      [long, sampleConfig(layers)],
      ...layers.map((layer, index): Entry => [String(index), layer]),
      ['manifest.json', manifest],
    ]);
    assertSample(await load(archive, 'path'));
  });
});
