/** What is on disk is what Docker writes, and what Docker wrote is understood. */
import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { createChainID, type ChainID, type DiffID } from '../../../src/digest.js';
import { openImages, type Image } from '../../../src/image/index.js';
import { DockerImages } from '../../../src/image/images.js';
import type { Store } from '../../../src/store/types.js';
import { entries, hex, oci, sampleConfig, sampleLayers, sha256, tar } from './archives.js';
import { FakeStore } from './fake-store.js';

let store: FakeStore & Store;
let layers: Buffer[];
let directory: string;
beforeEach(async () => {
  store = await FakeStore.open();
  layers = await sampleLayers();
  directory = join(store.root, 'image/overlay2');
});
afterEach(async () => store.dispose());

async function load(count = 3, name = 'sample:1'): Promise<Image> {
  const path = join(store.root, 'archive');
  await writeFile(path, await tar(entries(oci(layers.slice(0, count), { name }).files)));
  const [image] = await (await openImages(store)).load({ path });
  return image as Image;
}

const names = async (): Promise<unknown> => JSON.parse(await readFile(join(directory, 'repositories.json'), 'utf8'));

describe('records', () => {
  it("have Docker's names, modes and bytes", async () => {
    const { id } = await load(3, 'docker.io/library/sample:1');
    assert.equal(
      await readFile(join(directory, 'repositories.json'), 'utf8'),
      `{"Repositories":{"sample":{"sample:1":"${id}"}}}`,
    );
    const content = join(directory, 'imagedb/content/sha256', id.slice(7));
    assert.equal(await readFile(content, 'utf8'), sampleConfig(layers));
    const metadata = join(directory, 'imagedb/metadata/sha256', id.slice(7));
    assert.deepEqual(await readdir(metadata), ['lastUpdated']);
    assert.match(await readFile(join(metadata, 'lastUpdated'), 'utf8'), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/);
    for (const file of [content, join(directory, 'repositories.json'), join(metadata, 'lastUpdated')])
      assert.equal((await stat(file)).mode & 0o777, 0o600);
    for (const path of [directory, join(directory, 'imagedb'), metadata])
      assert.equal((await stat(path)).mode & 0o777, 0o700);
  });

  it('are read again by another process', async () => {
    const image = await load();
    await load(2, 'base:1');
    const again = await DockerImages.open(store);
    assert.deepEqual(
      again.list().map(({ names: list }) => list),
      [['base:1'], ['sample:1']],
    );
    assert.deepEqual(await again.get('sample:1'), image);
    assert.deepEqual(again.problems(), []);
  });

  it('that are damaged are left out and told, and gc is refused', async () => {
    const good = await load();
    const bad = await load(2, 'bad:1');
    await writeFile(join(directory, 'imagedb/content/sha256', bad.id.slice(7)), '{}');
    const again = await DockerImages.open(store);
    assert.deepEqual(
      again.list().map(({ id }) => id),
      [good.id],
    );
    assert.equal(again.problems().length, 1);
    assert.match(again.problems()[0] as string, new RegExp(bad.id));
    // One source names the images, another what a load under way keeps: gc deletes nothing where any of them throws.
    await assert.rejects(Promise.all(store.sources.map((source) => source())), { code: 'ERR_BAD_IMAGE' });
  });

  it('whose layers are gone are left out', async () => {
    await load();
    store.nodes.clear();
    const again = await DockerImages.open(store);
    assert.deepEqual(again.list(), []);
    assert.match(again.problems()[0] as string, /not in the store/);
  });

  it('a repositories.json that is not understood is never overwritten', async () => {
    const image = await load();
    await writeFile(join(directory, 'repositories.json'), '{"Repositories":[]}');
    const again = await DockerImages.open(store);
    assert.deepEqual(
      again.list().map(({ id, names: list }) => [id, list]),
      [[image.id, []]],
    );
    await assert.rejects(again.tag(image.id, 'x:1'), { code: 'ERR_BAD_IMAGE' });
    assert.equal(await readFile(join(directory, 'repositories.json'), 'utf8'), '{"Repositories":[]}');
  });

  it('name every chain id for gc, read fresh from disk', async () => {
    const source = async (): Promise<ChainID[]> =>
      [...(await (store.sources[0] as () => Promise<Iterable<ChainID>>)())].sort();
    await openImages(store);
    assert.deepEqual(await source(), []);
    await load();
    const diffIDs = layers.map(sha256) as DiffID[];
    const chains = diffIDs.map((_, index) => createChainID(diffIDs.slice(0, index + 1)) as ChainID).sort();
    assert.deepEqual(await source(), chains);
    await rm(join(directory, 'imagedb'), { recursive: true });
    assert.deepEqual(await source(), []);
  });

  it('a failed write of names takes the image back', async () => {
    await openImages(store);
    await mkdir(join(directory, 'repositories.json'), { recursive: true });
    await assert.rejects(load(), { code: 'ERR_SYSTEM' });
    assert.deepEqual(await readdir(join(directory, 'imagedb/content/sha256')), []);
    assert.equal(store.nodes.size, 0);
    assert.deepEqual((await openImages(store)).list(), []);
  });

  it('that cannot be taken back keep no handle, and are told', async () => {
    const images = await openImages(store);
    await mkdir(join(directory, 'repositories.json'), { recursive: true });
    await mkdir(join(directory, 'imagedb'));
    await writeFile(join(directory, 'imagedb/metadata'), 'no directory: nothing below it can be removed');
    await assert.rejects(load(), { code: 'ERR_SYSTEM', message: /record the image names/ });
    assert.deepEqual(images.list(), []);
    assert.equal(store.handles, 0);
    assert.match(images.problems()[0] as string, /is left behind.*ENOTDIR/);
  });

  it('stand although a handle that they do not need cannot be released', async () => {
    const images = await openImages(store);
    const { id } = await load();
    const release = store.release.bind(store);
    store.release = (layer) => {
      const node = store.nodes.get(layer.chainID);
      if (node?.handles.size === 2) throw new Error('no');
      return release(layer);
    };
    assert.equal((await load(3, 'again:1')).id, id);
    assert.deepEqual((await images.get(id)).names, ['again:1', 'sample:1']);
  });
});

describe('names', () => {
  it('tag, move and go', async () => {
    const images = await openImages(store);
    const image = await load();
    const base = await load(2, 'base:1');
    await images.tag('sample:1', 'team/app');
    await images.tag(image.id, 'docker.io/library/also:2');
    assert.deepEqual((await images.get('also:2')).names, ['also:2', 'sample:1', 'team/app:latest']);
    await images.tag(base.id, 'also:2');
    assert.deepEqual((await images.get(base.id)).names, ['also:2', 'base:1']);
    assert.deepEqual(await names(), {
      Repositories: {
        also: { 'also:2': base.id },
        base: { 'base:1': base.id },
        sample: { 'sample:1': image.id },
        'team/app': { 'team/app:latest': image.id },
      },
    });

    assert.deepEqual(await images.remove('team/app'), []);
    const removed = await images.remove('sample:1');
    assert.deepEqual(
      removed.map(({ chainID }) => chainID),
      [image.chainID],
      'what base:1 uses stays',
    );
    await assert.rejects(images.get(image.id), { code: 'ERR_IMAGE_DOES_NOT_EXIST' });
    assert.deepEqual((await images.remove(base.id)).map(({ chainID }) => chainID).length, 2, 'by id all names go');
    assert.deepEqual(await names(), { Repositories: {} });
    assert.equal(store.nodes.size, 0);
    assert.deepEqual(await readdir(join(directory, 'imagedb/content/sha256')), []);
    assert.deepEqual(await readdir(join(directory, 'imagedb/metadata/sha256')), []);
  });

  it('find an image by id, beginning of an id, and any spelling of a name', async () => {
    const images = await openImages(store);
    const { id } = await load();
    for (const key of [
      id,
      id.slice(7),
      id.slice(7, 15),
      id.slice(0, 19),
      'sample:1',
      'docker.io/library/sample:1',
      'library/sample:1',
    ]) {
      assert.equal((await images.get(key)).id, id, key);
    }
    for (const key of ['sample', 'sample:2', id.slice(7, 14), hex('other'), 'Sample:1', '../x'])
      await assert.rejects(images.get(key), { code: 'ERR_IMAGE_DOES_NOT_EXIST' });
    await assert.rejects(images.get(''), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(images.tag('sample:1', 'Not A Name'), { code: 'ERR_INVALID_ARGUMENT' });
    await assert.rejects(images.tag('sample:1', `x@${id}`), { code: 'ERR_INVALID_ARGUMENT' });
  });

  it('with a digest, as Docker keeps for what it pulled', async () => {
    const { id } = await load();
    const byDigest = `sample@${sha256('manifest')}`;
    await writeFile(
      join(directory, 'repositories.json'),
      JSON.stringify({ Repositories: { sample: { 'sample:1': id, [byDigest]: id } } }),
    );
    const images = await openImages(store);
    await images.refresh();
    const image = await images.get(byDigest);
    assert.deepEqual([image.names, image.digests], [['sample:1'], [byDigest]]);
    await images.remove('sample:1');
    assert.deepEqual(images.list(), [], 'the last tag takes the names with a digest along');
  });

  it('many at once', async () => {
    const images = await openImages(store);
    const { id } = await load();
    await Promise.all(Array.from({ length: 40 }, (_, index) => images.tag(id, `many:${index}`)));
    assert.equal((await images.get(id)).names.length, 41);
    assert.equal(Object.keys(((await names()) as { Repositories: { many: object } }).Repositories.many).length, 40);
  });
});

describe('removing', () => {
  it('is refused while an RW layer was made from the image', async () => {
    const images = await openImages(store);
    const { chainID } = await load();
    store.rwLayers.set('box', { name: 'box', mountID: '1', parent: chainID as ChainID, mountCount: 0 });
    await assert.rejects(images.remove('sample:1'), { code: 'ERR_LAYER_IN_USE', message: /"box"/ });
    assert.equal(images.list().length, 1);
    await images.tag('sample:1', 'other:1');
    assert.deepEqual(await images.remove('sample:1'), [], 'a name that is not the last goes');
  });

  it('forgets who was built on it', async () => {
    const images = await openImages(store);
    const base = await load(2, 'base:1');
    const child = await load();
    const metadata = join(directory, 'imagedb/metadata/sha256', child.id.slice(7));
    await writeFile(join(metadata, 'parent'), base.id);
    await images.remove('base:1');
    assert.deepEqual(await readdir(metadata), ['lastUpdated']);
  });
});

describe('stores that are not open for writing', () => {
  it('read-only: lists, and writes nothing', async () => {
    const { id } = await load();
    store.readOnly = true;
    const images = await DockerImages.open(store);
    const handles = store.handles;
    assert.deepEqual(
      images.list().map((image) => image.id),
      [id],
    );
    assert.equal(store.handles, handles);
    for (const call of [images.load({ path: '/x' }), images.tag(id, 'x:1'), images.remove(id)])
      await assert.rejects(call, { code: 'ERR_READ_ONLY' });
  });

  it('closed', async () => {
    const { id } = await load();
    const images = await openImages(store);
    store.closed = true;
    for (const call of [
      images.load({ path: '/x' }),
      images.tag(id, 'x:1'),
      images.remove(id),
      images.get(id),
      images.save(id, { path: '/x' }),
      images.refresh(),
    ]) {
      await assert.rejects(call, { code: 'ERR_STORE_CLOSED' });
    }
  });

  it('one object for one store', async () => {
    const images = await openImages(store);
    const sources = store.sources.length;
    assert.equal(await openImages(store), images);
    assert.equal(store.sources.length, sources);
    await mkdir(join(directory, 'imagedb/content'), { recursive: true });
    await chmod(join(directory, 'imagedb'), 0o700);
  });
});

describe("Docker's builder", () => {
  const chain = (name: string): ChainID => sha256(name) as ChainID;

  /** The first page of a bolt database of `pages` pages, and whatever text behind it. */
  function database(pages: number, text: string, length = 16_384): Buffer {
    const file = Buffer.alloc(length);
    file.writeUInt32LE(0xed0cdaed, 16);
    file.writeUInt32LE(2, 20);
    file.writeUInt32LE(4_096, 24);
    file.writeBigUInt64LE(BigInt(pages), 56);
    file.write(text, 8_192);
    return file;
  }

  async function chains(content?: Buffer): Promise<ChainID[]> {
    await mkdir(join(store.root, 'buildkit'), { recursive: true });
    if (content !== undefined) await writeFile(join(store.root, 'buildkit/snapshots.db'), content);
    await openImages(store);
    return [...(await (store.sources[0] as () => Promise<Iterable<ChainID>>)())].sort();
  }

  it('names chains in its database', async () => {
    assert.deepEqual(await chains(), []);
    assert.deepEqual(await chains(Buffer.alloc(0)), []);
    assert.deepEqual(await chains(database(4, '')), []);
    assert.deepEqual(
      await chains(database(4, `chainid${chain('a')}committed\u0001${chain('b')}`)),
      [chain('a'), chain('b')].sort(),
    );
  });

  it('also where two reads of the file meet', async () => {
    const file = database(1_024, '', 4 * 1024 * 1024);
    const names = [1, 2, 3].map((part) => chain(`at ${part}`));
    // Each straddles the end of a chunk of 1 MiB less the overlap.
    names.forEach((name, part) => file.write(name, (part + 1) * (1024 * 1024 - 71) - 30));
    assert.deepEqual(await chains(file), names.sort());
  });

  it('makes gc refuse where its database is damaged', async () => {
    for (const content of [Buffer.from('no database'), database(5, ''), database(4, '').subarray(0, 10_000)]) {
      await assert.rejects(chains(content), { code: 'ERR_BAD_IMAGE', message: /bolt/ });
    }
  });

  it('a real database of dockerd with nothing in it', async () => {
    const meta =
      'AAAAAAAAAAAEAAAAAAAAAO3aDO0CAAAAABAAAAAAAAADAAAAAAAAAAAAAAAAAAAAAgAAAAAAAAAEAAAAAAAAAAAAAAAAAAAA7v2JRhFuUQc=';
    const file = Buffer.alloc(16_384);
    Buffer.from(meta, 'base64').copy(file);
    assert.deepEqual(await chains(file), []);
  });
});
