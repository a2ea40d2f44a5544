/** One root for dockerd and for us, one after the other. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { ChainID } from '../../src/digest.js';
import { openImages, type Image } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import type { Layer, Store } from '../../src/store/types.js';
import { assertSameTree, snapshotTree } from '../../src/testing/tree-snapshot.js';
import { tempDir } from '../support/temp.js';
import { Docker, inReverse, peerImage, type Hooks } from './support.js';

const NAME = 'peer:1';

/** The image in an archive under {@link NAME}, made by us elsewhere. */
async function archive(t: Hooks): Promise<{ path: string; image: Image }> {
  const scratch = tempDir(t, 'peers');
  const store = await openStore({ root: join(scratch, 'elsewhere'), durability: 'relaxed' });
  try {
    const images = await openImages(store);
    const [loaded] = await images.load({ path: await peerImage(t) });
    await images.tag(loaded?.id ?? '', NAME);
    await images.save(NAME, { path: join(scratch, 'image.tar') });
    return { path: join(scratch, 'image.tar'), image: await images.get(NAME) };
  } finally {
    await store.close();
  }
}

async function withStore<T>(root: string, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore({ root });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

function chain(top: Layer | undefined): Layer[] {
  const layers: Layer[] = [];
  for (let layer = top; layer !== undefined; layer = layer.parent) layers.unshift(layer);
  return layers;
}

async function digest(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of stream) hash.update(chunk);
  return `sha256:${hash.digest('hex')}`;
}

/** What of a root belongs to layers and images. */
function litter(root: string): string[] {
  const list = (path: string): string[] =>
    existsSync(join(root, path)) ? readdirSync(join(root, path)).map((name) => `${path}/${name}`) : [];
  const image = 'image/overlay2';
  return [
    ...list('overlay2').filter((path) => !['overlay2/l', 'overlay2/backingFsBlockDev'].includes(path)),
    ...list('overlay2/l'),
    ...['sha256', 'mounts', 'tmp'].flatMap((name) => list(`${image}/layerdb/${name}`)),
    ...['content', 'metadata'].flatMap((name) => list(`${image}/imagedb/${name}/sha256`)),
    ...list('layerstore/intents'),
  ];
}

describe('a root shared with dockerd', () => {
  it("an image that we loaded is one of dockerd's, through its whole life", async (context) => {
    const t = inReverse(context);
    const { path, image } = await archive(t);
    const scratch = tempDir(t, 'd');
    const root = join(scratch, 'root');
    await withStore(root, async (store) => {
      const [loaded] = await (await openImages(store)).load({ path });
      assert.deepEqual(loaded, image);
    });

    const docker = await Docker.start(t, root, scratch);
    assert.equal(
      await docker.run('images', '--no-trunc', '--format', '{{.Repository}}:{{.Tag}} {{.ID}}'),
      `${NAME} ${image.id}`,
    );
    const saved = join(scratch, 'saved.tar');
    await docker.run('save', '-o', saved, NAME);
    await docker.run('create', '--name', 'box', NAME, '/bin/hello', '/made');
    assert.equal(await docker.run('run', '--rm', '--network', 'none', NAME, '/bin/hello', '/made'), 'hello');
    assert.equal(await docker.run('start', '--attach', 'box'), 'hello');
    await docker.run('cp', 'box:/made', join(scratch, 'made'));
    assert.equal(readFileSync(join(scratch, 'made'), 'utf8'), 'made inside\n');
    assert.match(await docker.run('diff', 'box'), /^A \/made$/m);
    await docker.run('commit', 'box', 'committed:1');
    await docker.run('rm', 'box');
    await docker.stop();

    await withStore(root, async (store) => {
      const images = await openImages(store);
      assert.deepEqual(images.problems(), []);
      const committed = await images.get('committed:1');
      assert.deepEqual(committed.diffIDs.slice(0, -1), image.diffIDs);
      assert.equal((await store.verify(committed.chainID)).ok, true);
      const elsewhere = tempDir(t, 'again');
      const [again] = await withStore(join(elsewhere, 'root'), async (other) =>
        (await openImages(other)).load({ path: saved }),
      );
      assert.deepEqual(again, image, 'docker saved it unchanged');
    });

    const last = await Docker.start(t, root, scratch);
    await last.run('rmi', 'committed:1', NAME);
    await last.stop();
    assert.deepEqual(litter(root), []);
    await withStore(root, async (store) => {
      assert.equal(store.map().size, 0);
      assert.deepEqual((await openImages(store)).list(), []);
      const { removed, refused } = await store.gc();
      assert.deepEqual([removed, refused], [[], undefined]);
    });
  });

  it('an image that dockerd loaded, with a container on it, is read by us and left intact', async (context) => {
    const t = inReverse(context);
    const { path, image } = await archive(t);
    const scratch = tempDir(t, 'd');
    const root = join(scratch, 'root');
    writeFileSync(join(scratch, 'note'), 'put in by cp\n');
    const docker = await Docker.start(t, root, scratch);
    await docker.run('load', '-i', path);
    await docker.run('create', '--name', 'box', NAME, '/bin/hello', '/made');
    assert.equal(await docker.run('start', '--attach', 'box'), 'hello');
    await docker.run('cp', join(scratch, 'note'), 'box:/note');
    const before = {
      inspect: await docker.run('image', 'inspect', NAME),
      diff: (await docker.run('diff', 'box')).split('\n').sort(),
    };
    await docker.stop();

    await withStore(root, async (store) => {
      const images = await openImages(store);
      assert.deepEqual(await images.get(NAME), image);
      assert.equal(store.mounts().size, 1, 'the container');
      assert.equal((await store.verify()).ok, true);
      const top = await store.get(image.chainID as ChainID);
      for (const layer of chain(top)) assert.equal(await digest(await layer.tarStream()), layer.diffID);
      assert.doesNotMatch(
        readFileSync('/proc/self/mountinfo', 'utf8'),
        new RegExp(`${root}.*overlay`),
        'exported without a mount',
      );

      const [name] = store.mounts().keys();
      const container = await store.getRWLayer(name as string);
      const changes = (await container.changes()).map(
        ({ kind, path: at }) => `${{ add: 'A', modify: 'C', delete: 'D' }[kind]} ${at}`,
      );
      assert.deepEqual(changes.sort(), before.diff);

      const ours = await store.createRWLayer('ours', image.chainID);
      const mounted = await ours.mount();
      const view = await top.view();
      assertSameTree(snapshotTree(view.path), snapshotTree(mounted), 'a writable layer of ours on it');
      await view[Symbol.asyncDispose]();
      writeFileSync(join(mounted, 'ours'), 'x');
      await ours.unmount();
      await store.releaseRWLayer(ours);
      await store.release(top);
      await assert.rejects(images.remove(NAME), { code: 'ERR_LAYER_IN_USE' });
      const { removed, refused } = await store.gc();
      assert.deepEqual([removed, refused], [[], undefined]);
    });

    const again = await Docker.start(t, root, scratch);
    assert.equal(await again.run('image', 'inspect', NAME), before.inspect);
    assert.deepEqual((await again.run('diff', 'box')).split('\n').sort(), before.diff);
    assert.equal(await again.run('start', '--attach', 'box'), 'hello');
    await again.run('cp', 'box:/note', join(scratch, 'note2'));
    assert.equal(readFileSync(join(scratch, 'note2'), 'utf8'), 'put in by cp\n');
    await again.run('rm', 'box');
    await again.run('rmi', NAME);
    await again.stop();
    assert.deepEqual(litter(root), []);
  });

  it('never two writers at once', async (context) => {
    const t = inReverse(context);
    const { path, image } = await archive(t);
    const scratch = tempDir(t, 'd');
    const root = join(scratch, 'root');
    const docker = await Docker.start(t, root, scratch);
    await docker.run('load', '-i', path);
    await assert.rejects(openStore({ root }), { code: 'ERR_STORE_LOCKED', message: /dockerd/i });
    const reader = await openStore({ root, readOnly: true });
    const images = await openImages(reader);
    assert.deepEqual(images.list(), [image]);
    await docker.run('tag', NAME, 'second:1');
    await images.refresh();
    assert.deepEqual((await images.get(image.id)).names, [NAME, 'second:1']);
    await assert.rejects(images.remove(NAME), { code: 'ERR_READ_ONLY' });
    await reader.close();
    await docker.stop();

    await withStore(root, async () => {
      const refused = Docker.spawn(t, root, scratch);
      assert.notEqual(await refused.daemon.exited(), 0);
      assert.match(refused.daemon.said, /timeout/);
    });
    const after = await Docker.start(t, root, scratch);
    assert.equal(await after.run('image', 'inspect', '--format', '{{.Id}}', 'second:1'), image.id);
    await after.stop();
  });
});
