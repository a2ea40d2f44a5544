import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createChainID, type DiffID } from '../../../src/digest.js';
import { openImages, type Image, type ImageProgress, type LoadOptions } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';
import {
  descriptor,
  docker25,
  entries,
  hex,
  INDEX,
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

function assertSample(images: readonly Image[], names: readonly string[] = ['sample:1']): void {
  assert.equal(images.length, 1);
  const [image] = images;
  assert.deepEqual(image?.names, names);
  assert.deepEqual(image?.diffIDs, diffIDs);
  assert.equal(image?.chainID, createChainID(diffIDs));
  assert.equal(image?.id, sha256(image?.rawConfig ?? ''));
  assert.equal(store.handles, 1, 'the image, and nobody else, holds its layers');
}

describe('load: several images', () => {
  it('share what they share, and come in the archive order', async () => {
    const short = layers.slice(0, 2);
    const configs = [sampleConfig(short), sampleConfig(layers)];
    const manifest = JSON.stringify([
      { Config: 'a.json', RepoTags: ['a:1', 'a:2'], Layers: ['0', '1'] },
      { Config: 'b.json', RepoTags: null, Layers: ['0', '1', '2'], Parent: sha256(configs[0] as string) },
    ]);
    const list: Entry[] = [
      ['manifest.json', manifest],
      ['a.json', configs[0] as string],
      ['b.json', configs[1] as string],
      ...layers.map((layer, index): Entry => [String(index), layer]),
    ];
    for (const way of WAYS) {
      const images = await load(await tar(list), way);
      assert.deepEqual(
        images.map(({ names }) => names),
        [['a:1', 'a:2'], []],
      );
      assert.deepEqual([...store.read].sort(), [...diffIDs].sort());
      const parent = join(store.root, 'image/overlay2/imagedb/metadata/sha256', hex(configs[1] as string), 'parent');
      assert.equal(await readFile(parent, 'utf8'), sha256(configs[0] as string));
      for (const { id } of images) await (await openImages(store)).remove(id);
      store.read.length = 0;
      assert.equal(store.nodes.size, 0);
    }
  });

  it('of Docker 25, with names and without: each is loaded, from a path and from a stream', async () => {
    const other = layers.slice(0, 2);
    for (const [built, names] of [
      [[{ layers, tags: [] }], [[]]],
      [
        [
          { layers, tags: ['a:1', 'b:1'] },
          { layers: other, tags: [] },
        ],
        [['a:1', 'b:1'], []],
      ],
      [
        [
          { layers: other, tags: [] },
          { layers, tags: [] },
        ],
        [[], []],
      ],
    ] as const) {
      const archive = await tar(entries(docker25(built)));
      for (const way of WAYS) {
        const images = await load(archive, way);
        assert.deepEqual(
          images.map((image) => image.names),
          names,
        );
        for (const { id } of images) await (await openImages(store)).remove(id);
        assert.equal(store.nodes.size, 0);
      }
    }
  });

  it('of an OCI layout, without names: each is loaded, also where they are for one platform', async () => {
    const other = layers.slice(0, 2);
    for (const platform of [undefined, { os: 'linux', architecture: 'amd64' }]) {
      const first = oci(layers);
      const second = oci(other);
      const manifests = [first, second].map(({ manifest }) =>
        descriptor(manifest, MANIFEST, {
          ...(platform === undefined ? {} : { platform }),
          annotations: { 'org.opencontainers.image.ref.name': 'latest' },
        }),
      );
      const files = new Map([...first.files, ...second.files]);
      files.set('index.json', JSON.stringify({ schemaVersion: 2, manifests }));
      const images = await load(await tar(entries(files)), 'path');
      assert.deepEqual(
        images.map(({ names, diffIDs: ids }) => [names, ids]),
        [
          [[], diffIDs],
          [[], diffIDs.slice(0, 2)],
        ],
      );
      for (const { id } of images) await (await openImages(store)).remove(id);
    }
  });

  it('layers that are there are not read again', async () => {
    await load(await tar(entries(oci(layers.slice(0, 2), { name: 'base:1' }).files)), 'path');
    store.read.length = 0;
    const events: ImageProgress[] = [];
    await load(await tar(entries(oci(layers).files)), 'path', { onProgress: (event) => events.push(event) });
    assert.deepEqual(store.read, [diffIDs[2]]);
    assert.deepEqual(
      events.map(({ layer, status }) => `${layer} ${status}`),
      ['0 present', '1 present', '2 unpacking', '2 done'],
    );
    assert.deepEqual(new Set(events.map(({ layers: count }) => count)), new Set([3]));
  });

  it('the same image again gives the same image and takes the name over', async () => {
    await load(await tar(entries(oci(layers).files)), 'path');
    await load(await tar(entries(oci(layers.slice(0, 1)).files)), 'path');
    const images = (await openImages(store)).list();
    assert.deepEqual(
      images.map(({ names }) => names),
      [['sample:1'], []],
      'the old image stays, without a name',
    );
    await load(await tar(entries(oci(layers).files)), 'path');
    assert.equal((await (await openImages(store)).get('sample:1')).diffIDs.length, 3);
    assert.equal(store.handles, 2);
  });
});

describe('load: platforms', () => {
  const platforms = [
    { os: 'linux', architecture: 'amd64' },
    { os: 'linux', architecture: 'arm64', variant: 'v8' },
    { os: 'linux', architecture: 'arm', variant: 'v6' },
  ];

  /** Blobs of only the given platforms; the index names them all, and an attestation. */
  function multi(present: readonly string[], nested: boolean): Map<string, Uint8Array | string> {
    const files = new Map<string, Uint8Array | string>();
    const children: object[] = [];
    for (const platform of platforms) {
      const parts = oci(layers, { config: sampleConfig(layers, platform) });
      if (present.includes(platform.architecture))
        for (const [name, content] of parts.files) if (name.startsWith('blobs/')) files.set(name, content);
      children.push(descriptor(parts.manifest, MANIFEST, { platform }));
    }
    children.push(
      descriptor('{"a":1}', MANIFEST, {
        platform: { os: 'unknown', architecture: 'unknown' },
        annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
      }),
    );
    const index = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: children });
    if (nested) {
      files.set(`blobs/sha256/${hex(index)}`, index);
      files.set(
        'index.json',
        JSON.stringify({
          schemaVersion: 2,
          manifests: [descriptor(index, INDEX, { annotations: { 'io.containerd.image.name': 'multi:1' } })],
        }),
      );
    } else files.set('index.json', index);
    files.set('oci-layout', '{"imageLayoutVersion":"1.0.0"}');
    return files;
  }

  for (const nested of [true, false]) {
    it(`the one that was asked for${nested ? ', in a nested index' : ''}; others need not be there`, async () => {
      const [image, ...more] = await load(await tar(entries(multi(['arm64'], nested))), 'path', {
        platform: 'linux/arm64',
      });
      assert.equal(more.length, 0);
      assert.equal((image?.config as { architecture: string }).architecture, 'arm64');
      assert.deepEqual(image?.names, nested ? ['multi:1'] : []);
    });
  }

  it('an older variant of arm runs on a newer one', async () => {
    const [image] = await load(await tar(entries(multi(['arm'], true))), 'path', { platform: 'linux/arm/v7' });
    assert.equal((image?.config as { variant: string }).variant, 'v6');
  });

  it('one that is not there says which are', async () => {
    const archive = await tar(entries(multi(['arm64'], true)));
    await assert.rejects(load(archive, 'path', { platform: 'linux/s390x' }), {
      code: 'ERR_INVALID_ARGUMENT',
      message: /linux\/amd64, linux\/arm64, linux\/arm\/v6/,
    });
    await assert.rejects(load(archive, 'path', { platform: 'linux' }), { code: 'ERR_INVALID_ARGUMENT' });
  });

  it('Windows is not taken', async () => {
    await assert.rejects(
      load(await tar(entries(oci(layers, { config: sampleConfig(layers, { os: 'windows' }) }).files)), 'path'),
      { code: 'ERR_NOT_SUPPORTED' },
    );
  });
});

describe('load: archives from before manifests', () => {
  for (const way of WAYS) {
    it(`repositories and folders; ${way}`, async () => {
      const ids = layers.map((_, index) => hex(`legacy ${index}`));
      const list: Entry[] = layers.flatMap((layer, index): Entry[] => [
        [
          `${ids[index]}/json`,
          JSON.stringify({
            id: ids[index],
            ...(index === 0 ? {} : { parent: ids[index - 1] }),
            os: 'linux',
            architecture: 'amd64',
            created: '2015-01-01T00:00:00Z',
            container_config: { Cmd: ['/bin/sh', '-c', 'a > b'] },
            Size: 5,
          }),
        ],
        [`${ids[index]}/layer.tar`, layer],
      ]);
      const images = await load(await tar([...list, ['repositories', JSON.stringify({ sample: { 1: ids[2] } })]]), way);
      assertSample(images);
      const raw = Buffer.from(images[0]?.rawConfig ?? []).toString();
      assert.match(
        raw,
        /^\{"architecture":"amd64","container_config":.*"history":\[\{"created":"2015-01-01T00:00:00Z","created_by":"\/bin\/sh -c a \\u003e b"\},.*"rootfs":\{"type":"layers","diff_ids":/,
      );
      assert.doesNotMatch(raw, /"id"|"parent"|"Size"/);
    });
  }
});

describe('load: stopping', () => {
  it('an abort rejects with its reason and leaves nothing', async () => {
    const archive = await tar(entries(oci(layers).files));
    const controller = new AbortController();
    const reason = new Error('enough');
    const stalled = new Readable({ read: () => undefined });
    stalled.push(archive.subarray(0, 2_000));
    setTimeout(() => controller.abort(reason), 20);
    await assert.rejects(
      (await openImages(store)).load(stalled, { signal: controller.signal }),
      (error) => error === reason,
    );
    assert.ok(stalled.destroyed);
    assert.equal(store.nodes.size, 0);
    await assert.rejects(load(archive, 'path', { signal: AbortSignal.abort(reason) }), (error) => error === reason);
  });

  it('a stream that is never read is ended too', async () => {
    const reason = new Error('too late');
    const images = await openImages(store);
    for (const [options, expected] of [
      [{ signal: AbortSignal.abort(reason) }, (error: unknown): boolean => error === reason],
      [{ platform: 'linux/amd64/v1/v2/v3' }, { code: 'ERR_INVALID_ARGUMENT' }],
    ] as const) {
      const unread = new Readable({ read: () => undefined });
      await assert.rejects(images.load(unread, options), expected);
      assert.ok(unread.destroyed);
    }
  });

  it('an error of the stream comes through as it is', async () => {
    const reason = new Error('the network went away');
    const archive = await tar(entries(oci(layers).files));
    for (const bytes of [archive, gzipSync(archive)]) {
      const failing = Readable.from(
        (async function* () {
          yield bytes.subarray(0, bytes.length / 2);
          throw reason;
        })(),
        { objectMode: false },
      );
      await assert.rejects((await openImages(store)).load(failing), (error) => error === reason);
    }
    assert.equal(store.nodes.size, 0);
    assert.deepEqual(await readdir(join(store.root, 'layerstore')), []);
  });

  it('a missing file, and a file that is no archive', async () => {
    const images = await openImages(store);
    await assert.rejects(images.load({ path: join(store.root, 'none') }), { code: 'ERR_SYSTEM', errnoName: 'ENOENT' });
    await writeFile(join(store.root, 'garbage'), 'x'.repeat(5_000));
    await assert.rejects(images.load({ path: join(store.root, 'garbage') }), { code: 'ERR_BAD_IMAGE' });
    await assert.rejects(images.load({ path: join(store.root, 'layerstore') }), { code: 'ERR_BAD_IMAGE' });
    await assert.rejects(images.load({} as { path: string }), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(images.load(createReadStream('/dev/null')), { code: 'ERR_BAD_IMAGE' });
  });
});
