import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { ChainID } from '../../../src/digest.js';
import { openImages, type CreateImageOptions, type Image, type Images } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';
import { entries, oci, sampleConfig, sampleLayers, sha256, tar } from './archives.js';
import { FakeStore } from './fake-store.js';

const CREATED = new Date('2024-02-03T04:05:06Z');
const TOLD = { created: '2024-02-03T04:05:06Z', created_by: 'layerstore' };

let store: FakeStore & Store;
let images: Images;
let layers: Buffer[];
beforeEach(async () => {
  store = await FakeStore.open();
  images = await openImages(store);
  layers = await sampleLayers();
});
afterEach(async () => store.dispose());

/** The image `base:1` of the first layer. */
async function base(extra: object = {}, count = 1): Promise<Image> {
  const chain = layers.slice(0, count);
  const path = join(store.root, 'archive');
  await writeFile(path, await tar(entries(oci(chain, { name: 'base:1', config: sampleConfig(chain, extra) }).files)));
  const [image] = await images.load({ path });
  return image as Image;
}

/** A layer that nobody but an image keeps afterwards. */
async function onTop(
  parent: ChainID | undefined,
  bytes: Buffer | undefined,
  work: (chainID: ChainID) => Promise<void>,
) {
  const layer = await store.register(Readable.from([bytes], { objectMode: false }), parent);
  await work(layer.chainID);
  await store.release(layer);
}

describe('an image that is made', () => {
  it('begins where its base ends: configuration member by member, history, platform, what else the base says', async () => {
    const history = [
      { created: '2020-01-01T00:00:00Z', created_by: 'ADD rootfs' },
      { created_by: 'CMD', empty_layer: true },
    ];
    const from = await base({
      architecture: 'arm64',
      variant: 'v8',
      author: 'somebody',
      container_config: { Cmd: ['/bin/build'] },
      config: { Cmd: ['/bin/sh'], Env: ['PATH=/bin', 'A=1'], Labels: { a: '1' }, OnBuild: ['RUN x'] },
      history,
    });
    await onTop(from.chainID, layers[1], async (chainID) => {
      const config = { Env: ['B=2'], Labels: {}, ExposedPorts: { '80/tcp': {} }, StopSignal: 'SIGINT' };
      const image = await images.create({ base: 'base:1', chainID, config, names: ['app', 'x/y:2'], created: CREATED });
      assert.deepEqual(image.names, ['app:latest', 'x/y:2']);
      assert.deepEqual([image.chainID, image.diffIDs], [chainID, layers.slice(0, 2).map(sha256)]);
      assert.equal(image.id, sha256(image.rawConfig));
      assert.deepEqual(image.config, {
        architecture: 'arm64',
        author: 'somebody',
        config: { Cmd: ['/bin/sh'], OnBuild: ['RUN x'], ...config },
        created: '2024-02-03T04:05:06Z',
        history: [...history, TOLD],
        os: 'linux',
        rootfs: { type: 'layers', diff_ids: image.diffIDs },
        variant: 'v8',
      });
    });
    assert.deepEqual((await images.remove('base:1')).length, 0, 'its layers are in use by the new image');
    await images.remove('app');
    assert.equal((await images.remove('x/y:2')).length, 2);
    assert.equal(store.nodes.size, 0);
  });

  it('without a base: all layers are new, for this machine', async () => {
    await base({}, 3);
    const [chainID] = [...store.nodes.keys()].slice(-1);
    const image = await images.create({ chainID: chainID as ChainID, created: CREATED, comment: 'made' });
    assert.deepEqual(
      image.config.history,
      [1, 2, 3].map(() => ({ ...TOLD, comment: 'made' })),
    );
    assert.deepEqual([image.config.os, image.config.config], ['linux', {}]);
    assert.deepEqual(image.names, []);
  });

  it('without layers', async () => {
    const bare = await images.create({ names: ['bare:1'], config: { Labels: { a: 'b' } }, platform: 'linux/arm/v6' });
    assert.deepEqual([bare.chainID, bare.diffIDs, bare.size], [undefined, [], 0]);
    assert.deepEqual(
      [bare.config.architecture, bare.config.variant, bare.config.history, bare.config.rootfs.diff_ids],
      ['arm', 'v6', [], []],
    );
    // A base without layers holds whatever comes.
    await onTop(undefined, layers[0], async (chainID) => {
      const image = await images.create({ base: 'bare:1', chainID });
      assert.deepEqual(image.config.config, { Labels: { a: 'b' } });
      assert.equal(image.config.history?.length, 1);
    });
    await images.save('bare:1', { path: join(store.root, 'bare.tar') });
    assert.deepEqual(await images.load({ path: join(store.root, 'bare.tar') }), [bare]);
  });

  it('with the layers of its base: another configuration, another platform', async () => {
    const from = await base({ variant: 'v9' });
    const image = await images.create({ base: from.id, config: { User: 'nobody' }, platform: 'linux/riscv64' });
    assert.equal(image.chainID, from.chainID);
    assert.deepEqual([image.config.architecture, image.config.variant], ['riscv64', undefined]);
    assert.deepEqual(image.config.history, [{}], 'the entry that the base does not have');
    const told = await images.create({ base: 'base:1', comment: 'only a comment', created: CREATED });
    assert.deepEqual(told.config.history?.at(-1), { ...TOLD, comment: 'only a comment', empty_layer: true });
    assert.equal(store.handles, 3, 'one for each image');
  });

  it('is reproducible: the same content gives the same id, in whatever order it is given', async () => {
    await base();
    const options = {
      base: 'base:1',
      created: CREATED,
      config: { Labels: { b: '1', a: '2' }, Cmd: ['x'], User: '1' },
    };
    const first = await images.create(options);
    const again = await images
      .create({
        created: CREATED,
        names: ['again:1'],
        config: { User: '1', Cmd: ['x'], Labels: { a: '2', b: '1' } },
        base: 'base',
      })
      .catch(() => undefined);
    assert.equal(again, undefined, 'base:latest is no image here');
    const second = await images.create({ ...options, config: { User: '1', Labels: { a: '2', b: '1' }, Cmd: ['x'] } });
    assert.deepEqual(second, first);
    assert.equal(store.handles, 2);
    assert.notEqual((await images.create({ ...options, created: new Date(0) })).id, first.id);
    assert.notEqual((await images.create({ base: 'base:1' })).config.created, undefined);
  });

  it('takes a name over, and is what it was after a restart', async () => {
    await base();
    const image = await images.create({ base: 'base:1', names: ['base:1'], comment: 'next' });
    assert.deepEqual(image.names, ['base:1']);
    assert.deepEqual(
      images.list().map(({ names }) => names),
      [['base:1'], []],
    );
  });

  const circle: Record<string, unknown> = {};
  circle['circle'] = circle;
  const REFUSED: readonly [string, CreateImageOptions | undefined, string, RegExp][] = [
    ['no options', undefined, 'ERR_INVALID_ARGUMENT', /options/],
    ['a base that is not there', { base: 'none:1' }, 'ERR_IMAGE_DOES_NOT_EXIST', /"none:1".*load or pull/],
    ['a base by an unknown id', { base: 'f'.repeat(64) }, 'ERR_IMAGE_DOES_NOT_EXIST', /does not exist/],
    ['an empty base', { base: '' }, 'ERR_INVALID_ARGUMENT', /name or an id/],
    ['a layer that is not there', { chainID: sha256('x') as ChainID }, 'ERR_LAYER_DOES_NOT_EXIST', /no /],
    ['a name with a digest', { names: [`a@${sha256('x')}`] }, 'ERR_INVALID_ARGUMENT', /digest/],
    ['a name that is none', { names: ['A B'] }, 'ERR_INVALID_ARGUMENT', /image name/],
    ['names that are no list', { names: 'a' as never }, 'ERR_INVALID_ARGUMENT', /"names"/],
    ['a date that is none', { created: new Date('x') }, 'ERR_INVALID_ARGUMENT', /"created"/],
    ['a platform that is none', { platform: 'x' }, 'ERR_INVALID_ARGUMENT', /platform/],
    ['another system', { platform: 'windows/amd64' }, 'ERR_NOT_SUPPORTED', /windows/],
    ['a comment that is none', { comment: 1 as never }, 'ERR_INVALID_ARGUMENT', /"comment"/],
    ['a config that is none', { config: [] as never }, 'ERR_INVALID_ARGUMENT', /"config"/],
    ['a command that is no list', { config: { Cmd: 'sh' as never } }, 'ERR_INVALID_ARGUMENT', /config\.Cmd/],
    ['a variable without a value', { config: { Env: ['A'] } }, 'ERR_INVALID_ARGUMENT', /config\.Env.*NAME=VALUE/],
    ['a zero byte', { config: { User: 'a\0' } }, 'ERR_INVALID_ARGUMENT', /config\.User/],
    ['a label that is a number', { config: { Labels: { a: 1 as never } } }, 'ERR_INVALID_ARGUMENT', /config\.Labels/],
    ['a volume that is none', { config: { Volumes: { '/x': 1 as never } } }, 'ERR_INVALID_ARGUMENT', /config\.Volumes/],
    ['what JSON cannot say', { config: circle }, 'ERR_INVALID_ARGUMENT', /JSON/],
    ['what is too long', { config: { User: 'x'.repeat(9 << 20) } }, 'ERR_LIMIT_EXCEEDED', /maxJsonBytes/],
  ];
  for (const [title, options, code, message] of REFUSED) {
    it(`is refused: ${title}`, async () => {
      await assert.rejects(images.create(options as CreateImageOptions), { code, message });
      assert.deepEqual(images.list(), []);
      assert.equal(store.handles, 0);
    });
  }

  it('is refused where the layer does not stand on the base', async () => {
    await base();
    await onTop(undefined, layers[1], async (chainID) => {
      await assert.rejects(images.create({ base: 'base:1', chainID }), {
        code: 'ERR_INVALID_ARGUMENT',
        message: /does not stand on/,
      });
    });
    assert.equal(images.list().length, 1);
    assert.equal(store.handles, 1);
  });

  it('is refused on a closed store and on one that is read only', async () => {
    await base();
    store.readOnly = true;
    await assert.rejects(images.create({ base: 'base:1' }), { code: 'ERR_READ_ONLY' });
    store.closed = true;
    await assert.rejects(images.create({ base: 'base:1' }), { code: 'ERR_STORE_CLOSED' });
  });
});
