/** Pull and push between a real store and a registry that misbehaves. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { openImages, type BlobProgress, type Images, type RegistryOptions } from '../../../src/image/index.js';
import { openStore } from '../../../src/store/open.js';
import type { Store } from '../../../src/store/types.js';
import { runUntilItSpeaks } from '../../support/other-process.js';
import { sha256, TestRegistry, type Fault } from '../../support/registry.js';
import { tempDir } from '../../support/temp.js';
import { CONFIG, descriptor, INDEX, LAYER, MANIFEST, sampleConfig, sampleLayers, tar } from './archives.js';

/** Bytes that no compression makes fewer. */
const NOISE = randomBytes(200_000);

const OPTIONS = { driver: 'vfs', engine: 'js', durability: 'relaxed' } as const;
const BLOBS = { method: 'GET', path: /\/blobs\// };
const DOCKER = 'application/vnd.docker';

interface Fixture {
  server: TestRegistry;
  store: Store;
  images: Images;
  root: string;
  reference: string;
}

async function fixture(t: TestContext, registry: RegistryOptions = {}): Promise<Fixture> {
  const server = await TestRegistry.start(t);
  const root = join(tempDir(t, 'pull'), 'root');
  const store = await openStore({ root, ...OPTIONS });
  t.after(() => store.close());
  const hosts = { [server.host]: { plainHTTP: true } };
  const credentials = async (): Promise<undefined> => undefined;
  const images = await openImages(store, { registry: { hosts, credentials, retries: 1, ...registry } });
  return { server, store, images, root, reference: `${server.host}/team/app:1` };
}

/** Puts an image; gives its id. */
async function publish(
  server: TestRegistry,
  options: { docker?: boolean; layers?: Buffer[]; extra?: object; config?: object; reference?: string } = {},
): Promise<{ id: string; manifest: string; blobs: Buffer[] }> {
  const layers = options.layers ?? [...(await sampleLayers()).slice(0, 2), await tar([['noise', NOISE]])];
  const config = sampleConfig(layers, options.config);
  const [manifestType, configType, layerType] =
    options.docker === true
      ? [
          `${DOCKER}.distribution.manifest.v2+json`,
          `${DOCKER}.container.image.v1+json`,
          `${DOCKER}.image.rootfs.diff.tar.gzip`,
        ]
      : [MANIFEST, CONFIG, `${LAYER}+gzip`];
  const blobs = layers.map((layer) => gzipSync(layer));
  for (const blob of [...blobs, Buffer.from(config)]) server.putBlob('team/app', blob);
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: manifestType,
    config: descriptor(config, configType),
    layers: blobs.map((blob) => descriptor(blob, layerType, options.extra)),
  });
  server.putManifest('team/app', options.reference ?? '1', manifestType, manifest);
  return { id: sha256(config), manifest, blobs };
}

function partials(root: string): string[] {
  try {
    return readdirSync(join(root, 'layerstore', 'partial'));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOENT');
    return [];
  }
}

describe('pull', () => {
  for (const docker of [false, true]) {
    it(`an image with ${docker ? "Docker's" : "OCI's"} manifest`, async (t) => {
      const { server, store, images, root, reference } = await fixture(t);
      const { id, manifest } = await publish(server, { docker });
      const events: BlobProgress[] = [];
      const image = await images.pull(reference, { onProgress: (event) => events.push(event) });
      assert.equal(image.id, id);
      assert.deepEqual(image.names, [reference]);
      assert.deepEqual(image.digests, [`${server.host}/team/app@${sha256(manifest)}`]);
      assert.deepEqual(partials(root), []);
      assert.equal(store.map().size, 3);
      const last = new Map(events.map((event) => [event.digest, event]));
      assert.equal(last.size, 3);
      for (const { state, transferred, unpacked, total, attempts } of last.values())
        assert.deepEqual([state, transferred, unpacked, attempts], ['done', total, total, 1]);
      assert.deepEqual((await store.verify()).ok, true);

      const before = server.log.length;
      events.length = 0;
      await images.pull(`${server.host}/team/app@${sha256(manifest)}`, { onProgress: (event) => events.push(event) });
      assert.equal(
        server.log.slice(before).filter(({ url }) => url.includes('/blobs/')).length,
        1,
        'the configuration',
      );
      assert.ok(events.every(({ state }) => state === 'waiting' || state === 'exists'));
    });
  }

  it('the platform of an index that is asked for, by variant', async (t) => {
    const { server, images } = await fixture(t);
    const platforms = [
      { architecture: 'amd64', os: 'linux' },
      { architecture: 'arm', os: 'linux', variant: 'v6' },
      { architecture: 'arm', os: 'linux', variant: 'v7' },
    ];
    const ids: string[] = [];
    const manifests: object[] = [];
    for (const [index, platform] of platforms.entries()) {
      const config = { ...platform, author: `number ${index}` };
      const { id, manifest } = await publish(server, { config, reference: `p${index}` });
      ids.push(id);
      manifests.push(descriptor(manifest, MANIFEST, { platform }));
    }
    const unknown = { platform: { architecture: 'unknown', os: 'unknown' } };
    manifests.push(descriptor('attestation', MANIFEST, unknown));
    for (const [reference, type] of [
      ['oci', INDEX],
      ['docker', `${DOCKER}.distribution.manifest.list.v2+json`],
    ] as const) {
      server.putManifest('team/app', reference, type, JSON.stringify({ schemaVersion: 2, mediaType: type, manifests }));
      const pull = (platform: string) => images.pull(`${server.host}/team/app:${reference}`, { platform });
      assert.equal((await pull('linux/amd64')).id, ids[0]);
      assert.equal((await pull('linux/arm/v6')).id, ids[1]);
      assert.equal((await pull('linux/arm/v7')).id, ids[2]);
      await assert.rejects(pull('linux/s390x'), { code: 'ERR_INVALID_ARGUMENT', message: /linux\/arm\/v6/ });
    }
  });

  it('goes on in the middle of a layer without unpacking again', async (t) => {
    const { server, store, images, reference } = await fixture(t);
    const { blobs } = await publish(server);
    server.faults.push({ method: 'GET', path: new RegExp(sha256(blobs[2] as Buffer)), cutAfter: 100_000 });
    const unpacked: number[] = [];
    const onProgress = ({ digest, unpacked: bytes }: BlobProgress): void => {
      if (digest === sha256(blobs[2] as Buffer)) unpacked.push(bytes);
    };
    await images.pull(reference, { onProgress });
    assert.ok(server.asked('GET', /\/blobs\//).some(({ range }) => range === 'bytes=100000-'));
    assert.deepEqual(
      unpacked,
      unpacked.toSorted((a, b) => a - b),
    );
    assert.ok((await store.verify()).ok);
  });

  it('ends with nothing but partial files, which a dry gc lists; the next one goes on from them', async (t) => {
    const { server, store, images, root, reference } = await fixture(t, { concurrency: 1 });
    const { blobs, id } = await publish(server);
    const big = blobs[2] as Buffer;
    const fault = (): Fault => ({
      method: 'GET',
      path: new RegExp(`/blobs/${sha256(big)}`),
      cutAfter: 40_000,
      times: 2,
    });
    server.faults.push(fault());
    await assert.rejects(images.pull(reference), { code: 'ERR_REGISTRY' });
    assert.equal(store.map().size, 0);
    assert.deepEqual(images.list(), []);
    const left = (await store.gc({ dryRun: true })).items.filter(({ kind }) => kind === 'partial');
    assert.deepEqual(
      left.map(({ what }) => what.split('/').at(-1)).sort(),
      partials(root).sort(),
      'every file is listed',
    );
    assert.ok(left.some(({ what }) => what.includes(sha256(big).replace(':', '-'))));
    const before = server.log.length;
    assert.equal((await images.pull(reference)).id, id);
    const again = server.log.slice(before).filter(({ url }) => url.includes(sha256(big)));
    assert.deepEqual(
      again.map(({ range }) => range),
      ['bytes=80000-'],
    );
    assert.deepEqual(partials(root), []);

    await images.remove(reference);
    await images.remove(id).catch(() => undefined); // its name with a digest went with the last tag
    server.faults.push(fault());
    await assert.rejects(images.pull(reference), { code: 'ERR_REGISTRY' });
    assert.ok(partials(root).length > 0);
    await store.gc();
    assert.deepEqual(partials(root), []);
  });

  for (const engine of ['native', 'js'] as const) {
    it(`goes on where a killed process had got to: ${engine}`, async (t) => {
      const server = await TestRegistry.start(t);
      const { blobs, id } = await publish(server, { layers: [await tar([['big', randomBytes(4 * 1024 * 1024)]])] });
      const big = blobs[0] as Buffer;
      const path = new RegExp(`/blobs/${sha256(big)}`);
      server.faults.push({ method: 'GET', path, stallAfter: 2 * 1024 * 1024 });
      const root = join(tempDir(t, 'pull'), 'root');
      const options = { ...OPTIONS, engine, root };
      const registry = { hosts: { [server.host]: { plainHTTP: true } } };
      const reference = `${server.host}/team/app:1`;
      const killed = await runUntilItSpeaks(`
        import { openStore, openImages } from ${JSON.stringify(new URL('../../../src/index.ts', import.meta.url).href)};
        const store = await openStore(${JSON.stringify(options)});
        const images = await openImages(store, { registry: ${JSON.stringify(registry)} });
        await images.pull(${JSON.stringify(reference)}, {
          onProgress: ({ transferred }) => { if (transferred >= 1024 * 1024) console.log(transferred); },
        });
      `);
      await killed.kill();

      await using store = await openStore(options);
      const images = await openImages(store, { registry });
      assert.equal(store.map().size, 0);
      const left = (await store.gc({ dryRun: true })).items.filter(({ kind }) => kind === 'partial');
      assert.equal(left.length, 1, 'its bytes are listed');
      assert.deepEqual(images.list(), []);
      const before = server.log.length;
      assert.equal((await images.pull(reference)).id, id);
      const asked = server.log.slice(before).filter(({ url }) => path.test(url));
      assert.deepEqual(asked.length, 1);
      assert.ok(Number(/^bytes=([0-9]+)-$/.exec(asked[0]?.range ?? '')?.[1]) >= 1024 * 1024, asked[0]?.range);
      assert.ok((await store.verify()).ok);
      assert.deepEqual(partials(root), []);
    });
  }

  it('fetches as many blobs at once as it may', async (t) => {
    const { server, images, reference } = await fixture(t, { concurrency: 2 });
    const layers = await Promise.all([1, 2, 3, 4].map((number) => tar([[`noise${number}`, randomBytes(200_000)]])));
    const { blobs } = await publish(server, { layers });
    const path = new RegExp(blobs.map(sha256).join('|'));
    server.faults.push({ method: 'GET', path, stallAfter: 100, times: 4 });
    const controller = new AbortController();
    const reason = new Error('seen enough');
    const pull = assert.rejects(images.pull(reference, { signal: controller.signal }), reason);
    while (server.asked('GET', path).length < 2) await sleep(5);
    await sleep(100); // a third one would come in this time
    assert.equal(server.asked('GET', path).length, 2);
    controller.abort(reason);
    await pull;
  });

  it('begins again where a partial file holds other bytes', async (t) => {
    const { server, store, images, root, reference } = await fixture(t);
    const { blobs, id } = await publish(server);
    const big = blobs[2] as Buffer;
    server.faults.push({ method: 'GET', path: new RegExp(sha256(big)), cutAfter: 100, times: 2 });
    await assert.rejects(images.pull(reference), { code: 'ERR_REGISTRY' });
    await writeFile(
      join(root, 'layerstore', 'partial', `${sha256(big).replace(':', '-')}.partial`),
      Buffer.concat([big.subarray(0, 50_000), Buffer.alloc(50, 7)]),
    );
    assert.equal((await images.pull(reference)).id, id);
    const ranges = server.asked('GET', new RegExp(sha256(big))).map(({ range }) => range);
    assert.deepEqual(ranges.slice(2), ['bytes=50050-', undefined]);
    assert.ok((await store.verify()).ok);
    assert.deepEqual(partials(root), []);
  });

  const refusals: {
    name: string;
    code: string;
    image?: Parameters<typeof publish>[1];
    faults?: Fault[];
    reference?: string;
    requests?: number;
  }[] = [
    { name: 'a name that is none', code: 'ERR_INVALID_ARGUMENT', reference: 'no such:name' },
    {
      name: 'a blob with other bytes',
      code: 'ERR_DIGEST_MISMATCH',
      faults: [{ ...BLOBS, path: /\/blobs\//, flip: 9, times: 100 }],
    },
    {
      name: 'a configuration with other bytes',
      code: 'ERR_DIGEST_MISMATCH',
      faults: [{ ...BLOBS, path: /\/blobs\//, flip: 0, times: 1 }],
    },
    {
      name: 'layers at other places',
      code: 'ERR_NOT_SUPPORTED',
      image: { extra: { urls: ['https://elsewhere.example/layer'] } },
    },
    {
      name: 'foreign layers',
      code: 'ERR_NOT_SUPPORTED',
      image: { extra: { mediaType: `${DOCKER}.image.rootfs.foreign.diff.tar.gzip` } },
    },
    { name: 'an image for another system', code: 'ERR_NOT_SUPPORTED', image: { config: { os: 'windows' } } },
    {
      name: 'a configuration with other diff ids',
      code: 'ERR_DIGEST_MISMATCH',
      image: { config: { rootfs: { type: 'layers', diff_ids: [1, 2, 3].map((n) => sha256(String(n))) } } },
    },
    {
      name: 'a manifest with fewer layers',
      code: 'ERR_BAD_IMAGE',
      image: { config: { rootfs: { type: 'layers', diff_ids: [sha256('x')] } } },
    },
  ];
  for (const { name, code, image, faults = [], reference } of refusals) {
    it(`refuses ${name}`, async (t) => {
      const given = await fixture(t);
      await publish(given.server, image);
      given.server.faults.push(...faults);
      await assert.rejects(given.images.pull(reference ?? given.reference), { code });
      assert.equal(given.store.map().size, 0);
      assert.deepEqual(given.images.list(), []);
      assert.deepEqual(
        (await given.store.gc({ dryRun: true })).items.filter(({ kind }) => kind !== 'partial'),
        [],
      );
    });
  }

  it('of one image twice at once fetches each layer once', async (t) => {
    const { server, images, reference } = await fixture(t);
    const { blobs } = await publish(server);
    const [a, b] = await Promise.all([images.pull(reference), images.pull(reference)]);
    assert.equal(a.id, b.id);
    for (const blob of blobs) assert.equal(server.asked('GET', new RegExp(sha256(blob))).length, 1);
  });

  it('of two images with a blob in common, on different layers, at once', async (t) => {
    const { server, store, images, root } = await fixture(t);
    const [a, b, c] = (await sampleLayers()) as [Buffer, Buffer, Buffer];
    await publish(server, { layers: [a, b], reference: 'ab' });
    await publish(server, { layers: [c, b], reference: 'cb' });
    await Promise.all(['ab', 'cb'].map((tag) => images.pull(`${server.host}/team/app:${tag}`)));
    assert.equal(store.map().size, 4);
    assert.deepEqual(partials(root), []);
  });

  it('stops, and keeps what it fetched', async (t) => {
    const { server, store, images, root, reference } = await fixture(t);
    const { blobs } = await publish(server);
    server.faults.push({ method: 'GET', path: new RegExp(sha256(blobs[2] as Buffer)), stallAfter: 100_000 });
    const controller = new AbortController();
    const reason = new Error('enough');
    const onProgress = ({ transferred }: BlobProgress): void => {
      if (transferred > 0) controller.abort(reason);
    };
    await assert.rejects(images.pull(reference, { signal: controller.signal, onProgress }), reason);
    assert.equal(store.map().size, 0);
    assert.ok(partials(root).length > 0);
  });

  it('is refused by a closed and by a read-only store', async (t) => {
    const { server, store, images, root, reference } = await fixture(t);
    await publish(server);
    const reader = await openStore({ root, ...OPTIONS, readOnly: true });
    await assert.rejects((await openImages(reader)).pull(reference), { code: 'ERR_READ_ONLY' });
    await reader.close();
    await store.close();
    await assert.rejects(images.pull(reference), { code: 'ERR_STORE_CLOSED' });
    await assert.rejects(images.push(reference), { code: 'ERR_STORE_CLOSED' });
  });

  it('gives the names that were asked for', async (t) => {
    const { server, images, reference } = await fixture(t);
    await publish(server);
    assert.deepEqual((await images.pull(reference, { names: ['mine:1', 'mine:2'] })).names, ['mine:1', 'mine:2']);
    await assert.rejects(images.pull(reference, { names: [`x@${sha256('')}`] }), { code: 'ERR_INVALID_ARGUMENT' });
  });
});

describe('push', () => {
  it('sends once, then nothing; takes over from another repository; comes back the same', async (t) => {
    const { server, store, images, reference } = await fixture(t);
    const { id } = await publish(server);
    await images.pull(reference);
    for (const map of [server.blobs, server.manifests]) map.clear();

    const states: string[] = [];
    const onProgress = ({ state }: BlobProgress): void => void states.push(state);
    const first = await images.push(reference, undefined, { onProgress });
    assert.ok(states.includes('uploading') && states.includes('done'), String(states));
    const stored = server.manifests.get('team/app')?.get('1');
    assert.equal(sha256(stored?.bytes ?? ''), first.digest);
    assert.equal(stored?.bytes.length, first.size);

    let before = server.log.length;
    assert.deepEqual(await images.push(reference), first, 'the same bytes');
    const methods = (): string[] => [
      ...new Set(server.log.slice(before).map(({ method, url }) => `${method} ${url.split('/')[4]}`)),
    ];
    assert.deepEqual(methods(), ['HEAD blobs', 'PUT manifests']);

    before = server.log.length;
    const elsewhere = await images.push(id, `${server.host}/team/copy:2`);
    assert.equal(elsewhere.digest, first.digest);
    const copied = server.log.slice(before);
    assert.equal(copied.filter(({ url }) => url.includes('mount=')).length, 3);
    assert.equal(
      copied.filter(({ method, url }) => method === 'PUT' && url.includes('/blobs/')).length,
      1,
      'the configuration',
    );

    await images.remove(id);
    assert.equal(store.map().size, 0);
    assert.equal((await images.pull(`${server.host}/team/copy:2`)).id, id);
    assert.ok((await store.verify()).ok);
  });

  it('remembers across a restart, and compresses again where that is lost', async (t) => {
    const { server, store, images, root, reference } = await fixture(t);
    await publish(server);
    await images.pull(reference);
    server.blobs.clear();
    const first = await images.push(reference);
    await store.close();
    for (const damage of [undefined, 'no json', '{"layers":{"x":1,"sha256:1":[]}}']) {
      if (damage !== undefined) await writeFile(join(root, 'layerstore', 'blobs.json'), damage);
      await using again = await openStore({ root, ...OPTIONS });
      const hosts = { [server.host]: { plainHTTP: true } };
      const before = server.log.length;
      const opened = await openImages(again, { registry: { hosts, credentials: async () => undefined } });
      assert.deepEqual(await opened.push(reference), first);
      assert.deepEqual([...new Set(server.log.slice(before).map(({ method }) => method))], ['HEAD', 'PUT']);
      assert.ok((await readFile(join(root, 'layerstore', 'blobs.json'))).length > 100);
    }
  });

  for (const docker of [false, true]) {
    it(`of an unchanged image keeps its digest: ${docker ? "Docker's" : "OCI's"} manifest`, async (t) => {
      const { server, store, images, root, reference } = await fixture(t);
      const { id, manifest } = await publish(server, { docker });
      await images.pull(reference);
      const pulled = server.manifests.get('team/app')?.get('1');
      const pushed = await images.push(reference, `${server.host}/team/copy:2`);
      assert.equal(pushed.digest, sha256(manifest));
      assert.deepEqual(server.manifests.get('team/copy')?.get('2'), pulled, 'its media type too');

      // Where a compression is asked for, the manifest is ours.
      const own = await images.push(reference, `${server.host}/team/copy:3`, { compression: 'gzip' });
      assert.equal(own.mediaType, MANIFEST);
      // Of OCI's form it is the same text here.
      assert.equal(own.digest === pushed.digest, !docker);

      // A registry that has nothing gets a whole image, whatever its manifest.
      const other = await TestRegistry.start(t);
      await images.push(id, `${other.host}/team/app:1`);
      assert.equal((await images.pull(`${other.host}/team/app:1`)).id, id);

      await store.close();
      const notes = join(root, 'layerstore', 'blobs.json');
      const text = await readFile(notes, 'utf8');
      for (const [change, digest] of [
        [(value: string) => value, pushed.digest],
        [(value: string) => value.replaceAll(`"${id}":`, `"${sha256('another')}":`), undefined],
        [(value: string) => value.replace(/"text":"/, '"text":"x'), undefined],
      ] as const) {
        await writeFile(notes, change(text));
        await using again = await openStore({ root, ...OPTIONS });
        const hosts = { [server.host]: { plainHTTP: true } };
        const opened = await openImages(again, { registry: { hosts, credentials: async () => undefined } });
        const found = await opened.push(reference, `${server.host}/team/third:1`);
        if (digest !== undefined) assert.equal(found.digest, digest);
        else assert.equal(found.mediaType, MANIFEST);
      }
    });
  }

  it('says where it cannot know where to', async (t) => {
    const { server, images, reference } = await fixture(t);
    const { id } = await publish(server);
    await images.pull(reference);
    await assert.rejects(images.push(reference, `${server.host}/x@${sha256('')}`), { code: 'ERR_INVALID_ARGUMENT' });
    await images.tag(reference, 'second:name');
    await assert.rejects(images.push(id), { code: 'ERR_INVALID_ARGUMENT', message: /2 names/ });
    await assert.rejects(images.push(reference, undefined, { compression: 'lzma' as 'gzip' }), {
      code: 'ERR_INVALID_ARGUMENT',
    });
  });
});
