import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createReadStream, readdirSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { extract } from 'tar-stream';
import { openImages, type Image, type SaveOptions, type SaveProgress } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';
import { entries, oci, sampleConfig, sampleLayers, sha256, tar } from './archives.js';
import { FakeStore } from './fake-store.js';
import { loadInto } from './load-support.js';

let store: FakeStore & Store;
let layers: Buffer[];
let target: string;
beforeEach(async () => {
  store = await FakeStore.open();
  layers = await sampleLayers();
  target = join(store.root, 'saved.tar');
});
afterEach(async () => store.dispose());

async function load(chain: readonly Uint8Array[] = layers): Promise<Image> {
  const path = join(store.root, 'archive');
  await writeFile(path, await tar(entries(oci(chain, { name: 'sample:1' }).files)));
  const [image] = await (await openImages(store)).load({ path });
  return image as Image;
}

async function unpack(archive: Buffer): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  const reader = extract();
  Readable.from([archive], { objectMode: false }).pipe(reader);
  for await (const entry of reader) files.set(entry.header.name, await buffer(entry));
  return files;
}

const json = (bytes: Buffer | undefined): never => JSON.parse(String(bytes)) as never;

const FORMS: readonly SaveOptions[] = [
  {},
  { format: 'docker', compression: 'gzip' },
  { format: 'oci' },
  { format: 'oci', compression: 'gzip' },
];

describe('save of several', () => {
  for (const options of FORMS) {
    it(`images that share a layer come back with all of their names, the layer written once: ${JSON.stringify(options)}`, async () => {
      const whole = await load();
      const path = join(store.root, 'other');
      await writeFile(path, await tar(entries(oci(layers.slice(0, 1), { name: 'base:1' }).files)));
      const images = await openImages(store);
      const [base] = await images.load({ path });
      await images.tag('base:1', 'base:2');
      const heard = new Set<string>();
      await images.save(
        ['sample:1', 'base:2', 'base:1', 'base:1'],
        { path: target },
        { ...options, onProgress: ({ image, layer }) => heard.add(`${image} ${layer}`) },
      );
      const piped = buffer(
        await (async () => {
          const stream = new PassThrough();
          void images
            .save(['sample:1', 'base:2', 'base:1'], stream, options)
            .catch((error: Error) => stream.destroy(error));
          return stream;
        })(),
      );
      const names = [...(await unpack(await readFile(target))).keys()];
      assert.equal(
        names.filter((name) => name.startsWith('blobs/sha256/') && !name.endsWith('/')).length,
        layers.length + 4,
      );
      assert.equal(heard.size, layers.length);
      for (const archive of [await readFile(target), await piped]) {
        const other = await FakeStore.open();
        try {
          const found = await loadInto(other, archive, 'path');
          assert.deepEqual(
            new Map(found.map((image) => [image.id, image.names])),
            new Map([
              [whole.id, ['sample:1']],
              [base?.id, ['base:1', 'base:2']],
            ]),
          );
        } finally {
          await other.dispose();
        }
      }
      assert.equal(store.handles, 2, 'no handle is left');
    });
  }

  it('nothing to save, and a name that is not there, are told before anything is written', async () => {
    await load();
    const images = await openImages(store);
    await assert.rejects(images.save([], { path: target }), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(images.save(['sample:1', 'nobody'], { path: target }), /nobody/);
    await assert.rejects(stat(target), { code: 'ENOENT' });
  });
});

describe('save', () => {
  for (const options of FORMS) {
    it(`an archive that says the right things: ${JSON.stringify(options)}`, async () => {
      const image = await load();
      await (await openImages(store)).save('sample:1', { path: target }, options);
      const files = await unpack(await readFile(target));
      assert.equal([...files.keys()][0], 'oci-layout');
      const index = json(files.get('index.json')) as {
        manifests: { digest: string; size: number; annotations: Record<string, string> }[];
      };
      assert.equal(index.manifests[0]?.annotations['io.containerd.image.name'], 'docker.io/library/sample:1');
      assert.equal(index.manifests[0]?.annotations['org.opencontainers.image.ref.name'], '1');
      const blob = (digest: string): Buffer => {
        const bytes = files.get(`blobs/sha256/${digest.slice(7)}`);
        assert.ok(bytes !== undefined && sha256(bytes) === digest);
        return bytes;
      };
      const manifestBytes = blob(index.manifests[0]?.digest ?? '');
      assert.equal(manifestBytes.length, index.manifests[0]?.size);
      const manifest = json(manifestBytes) as {
        config: { digest: string };
        layers: { digest: string; size: number; mediaType: string }[];
      };
      assert.equal(String(blob(manifest.config.digest)), sampleConfig(layers));
      const written = manifest.layers.map(({ digest, size, mediaType }) => {
        const bytes = blob(digest);
        assert.equal(bytes.length, size);
        assert.equal(mediaType.endsWith('+gzip'), options.compression === 'gzip');
        return options.compression === 'gzip' ? gunzipSync(bytes) : bytes;
      });
      assert.deepEqual(written, layers);
      const docker = files.get('manifest.json');
      if (options.format === 'oci') assert.equal(docker, undefined);
      else {
        const paths = manifest.layers.map(({ digest }) => `blobs/sha256/${digest.slice(7)}`);
        assert.deepEqual(json(docker), [
          { Config: `blobs/sha256/${image.id.slice(7)}`, RepoTags: ['sample:1'], Layers: paths },
        ]);
      }
      assert.equal(store.handles, 1, 'no handle is left');
    });

    it(`what is saved loads again, in one pass: ${JSON.stringify(options)}`, async () => {
      const image = await load();
      const images = await openImages(store);
      const stream = new PassThrough();
      const saved = buffer(stream);
      await images.save('sample:1', stream, options);
      await images.remove(image.id);
      const [again] = await images.load(Readable.from([await saved], { objectMode: false }), {
        limits: { maxSpoolBytes: 0 },
      });
      assert.deepEqual(again, image);
    });
  }

  it('the same bytes each time', async () => {
    await load();
    const images = await openImages(store);
    await images.save('sample:1', { path: target });
    await images.save('sample:1', { path: `${target}2` });
    assert.ok((await readFile(target)).equals(await readFile(`${target}2`)));
  });

  it('by id: without a name', async () => {
    const { id } = await load();
    await (await openImages(store)).save(id, { path: target });
    const files = await unpack(await readFile(target));
    assert.equal((json(files.get('manifest.json')) as { RepoTags: unknown }[])[0]?.RepoTags, null);
    assert.equal(
      (json(files.get('index.json')) as { manifests: { annotations: unknown }[] }).manifests[0]?.annotations,
      undefined,
    );
  });

  it('a layer that comes twice is written once; an image without layers is whole', async () => {
    const images = await openImages(store);
    for (const chain of [[layers[0], layers[1], layers[0]] as Buffer[], []]) {
      const image = await load(chain);
      await images.save('sample:1', { path: target });
      assert.equal(
        [...(await unpack(await readFile(target))).keys()].filter((name) => /^blobs\/sha256\/./.test(name)).length,
        2 + new Set(chain).size,
      );
      await images.remove(image.id);
      assert.deepEqual(await images.load({ path: target }), [image]);
      await images.remove(image.id);
    }
  });

  for (const compression of ['none', 'gzip'] as const) {
    it(`an OCI layout directory, ${compression}`, async () => {
      const image = await load();
      const images = await openImages(store);
      const path = join(store.root, 'new/layout');
      await images.save('sample:1', { path: `${path}/` }, { format: 'oci', compression });
      assert.deepEqual((await readdir(path)).sort(), ['blobs', 'index.json', 'oci-layout']);
      assert.equal((await readdir(join(path, 'blobs/sha256'))).length, 5);
      assert.deepEqual(await readdir(join(store.root, 'new')), ['layout']);
      await images.remove(image.id);
      assert.deepEqual(await images.load({ path }), [image]);
    });
  }

  it('tells how far each layer is, into a file and down a stream', async () => {
    const image = await load();
    const images = await openImages(store);
    for (const [to, compression] of [
      ['file', 'none'],
      ['file', 'gzip'],
      ['stream', 'none'],
    ] as const) {
      const seen: SaveProgress[] = [];
      const sink = new PassThrough().resume();
      await images.save('sample:1', to === 'file' ? { path: target } : sink, {
        compression,
        onProgress: (progress) => seen.push(progress),
      });
      for (const [layer, diffID] of image.diffIDs.entries()) {
        const mine = seen.filter((progress) => progress.layer === layer);
        const about = { image: image.id, diffID, layer, layers: 3, totalBytes: layers[layer]?.length };
        assert.deepEqual(mine[0], { ...about, bytesWritten: 0 });
        assert.deepEqual(mine.at(-1), { ...about, bytesWritten: about.totalBytes });
      }
    }
  });

  it('down a stream the same files as into a file, and nothing is kept on disk for plain layers', async () => {
    await load();
    const images = await openImages(store);
    for (const format of ['docker', 'oci'] as const) {
      const sink = new PassThrough();
      let seen: string[] = [];
      sink.once('data', () => (seen = readdirSync(join(store.root, 'layerstore'))));
      const [bytes] = await Promise.all([buffer(sink), images.save('sample:1', sink, { format })]);
      await images.save('sample:1', { path: target }, { format });
      assert.equal((await unpack(bytes)).size, (await unpack(await readFile(target))).size);
      assert.deepEqual(seen, [], 'no spool');
      const index = json((await unpack(bytes)).get('index.json')) as { manifests: { digest: string }[] };
      const manifest = (await unpack(bytes)).get(
        `blobs/sha256/${index.manifests[0]?.digest.slice('sha256:'.length) ?? ''}`,
      );
      assert.equal(sha256(manifest ?? Buffer.alloc(0)), index.manifests[0]?.digest);
      for (const layer of layers) assert.ok(bytes.includes(layer), 'layers byte for byte');
    }
  });

  it('into an empty directory, but into no other', async () => {
    await load();
    const images = await openImages(store);
    const empty = join(store.root, 'empty');
    await mkdir(empty);
    await images.save('sample:1', { path: empty }, { format: 'oci' });
    await assert.rejects(images.save('sample:1', { path: empty }, { format: 'oci' }), {
      code: 'ERR_INVALID_ARGUMENT',
      message: /something in it/,
    });
    await assert.rejects(images.save('sample:1', { path: `${store.root}/x/` }), { code: 'ERR_INVALID_ARGUMENT' });
  });

  for (const compression of ['none', 'gzip'] as const) {
    it(`a device, a FIFO and links stay what they are, ${compression}`, async () => {
      await load();
      const images = await openImages(store);
      const place = (name: string): string => join(store.root, name);
      execFileSync('mkfifo', [place('fifo')]);
      await symlink('/dev/null', place('null'));
      await symlink(target, place('link'));
      await mkdir(place('directory'));
      await symlink('directory', place('to-directory'));
      const save = (path: string): Promise<void> => images.save('sample:1', { path }, { compression });
      const [piped] = await Promise.all([buffer(createReadStream(place('fifo'))), save(place('fifo'))]);
      await save(place('null'));
      await save(place('link'));
      await images.save('sample:1', { path: place('to-directory') }, { format: 'oci', compression });
      const archive = await readFile(target);
      assert.equal((await unpack(piped)).size, (await unpack(archive)).size);
      assert.ok((await lstat(place('fifo'))).isFIFO());
      for (const link of ['null', 'link', 'to-directory']) assert.ok((await lstat(place(link))).isSymbolicLink());
      assert.deepEqual((await readdir(place('directory'))).sort(), ['blobs', 'index.json', 'oci-layout']);
      await assert.rejects(save('/dev/full'), { code: 'ERR_SYSTEM', errnoName: 'ENOSPC' });
      assert.deepEqual(
        (await readdir(store.root)).filter((name) => name.includes('tmp')),
        [],
      );
    });
  }

  it('a failure leaves nothing behind and an older file in place', async () => {
    await load();
    const images = await openImages(store);
    await writeFile(target, 'older');
    const [, node] = [...store.nodes.values()];
    const map = store.nodes;
    if (node !== undefined) node.tar = undefined as never;
    for (const path of [target, join(store.root, 'layout/')]) {
      await assert.rejects(images.save('sample:1', { path }, { format: 'oci' }));
    }
    assert.equal(await readFile(target, 'utf8'), 'older');
    assert.deepEqual((await readdir(store.root)).sort(), ['archive', 'image', 'layerstore', 'saved.tar']);
    assert.equal(map.size, 3);
    assert.equal(store.handles, 1);
  });

  it('into a stream that fails, or after an abort', async () => {
    await load();
    const images = await openImages(store);
    const reason = new Error('no more');
    const failing = new Writable({ write: (_chunk, _encoding, done) => done(reason) });
    await assert.rejects(images.save('sample:1', failing), (error) => error === reason);
    await assert.rejects(
      images.save('sample:1', { path: target }, { signal: AbortSignal.abort(reason) }),
      (error) => error === reason,
    );
    await assert.rejects(stat(target), { code: 'ENOENT' });
    assert.deepEqual(await readdir(join(store.root, 'layerstore')), []);
    assert.equal(store.handles, 1);
  });

  it('refuses what it does not know', async () => {
    await load();
    const images = await openImages(store);
    await assert.rejects(images.save('none:1', { path: target }), { code: 'ERR_IMAGE_DOES_NOT_EXIST' });
    await assert.rejects(images.save('sample:1', { path: target }, { format: 'zip' as 'oci' }), {
      code: 'ERR_INVALID_ARGUMENT',
    });
    await assert.rejects(images.save('sample:1', { path: target }, { compression: 'xz' as 'gzip' }), {
      code: 'ERR_INVALID_ARGUMENT',
    });
    await assert.rejects(images.save('sample:1', { path: '' }), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(images.save('sample:1', { path: join(store.root, 'no/such/file') }), {
      code: 'ERR_SYSTEM',
      errnoName: 'ENOENT',
    });
  });
});
