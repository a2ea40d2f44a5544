/** The same image unpacked by us and by others: the same tree, entry by entry. */
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { mkdirSync } from 'node:fs';
import { openImages } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import { assertSameTree, snapshotTree, type TreeSnapshot } from '../../src/testing/tree-snapshot.js';
import { tempDir } from '../support/temp.js';
import { command, containerd, corpusImage, inReverse, peerImage, podman, requirePeers, type Hooks } from './support.js';

const NAME = 'peer:1';

interface Ours {
  /** Of the mounted image. */
  tree: () => TreeSnapshot;
  /** An OCI archive and an OCI layout directory of it. */
  archive: string;
  layout: string;
}

async function ours(t: Hooks): Promise<Ours> {
  const scratch = tempDir(t, 'peers');
  const store = await openStore({ root: join(scratch, 'root'), durability: 'relaxed' });
  t.after(() => store.close());
  const images = await openImages(store);
  const [image] = await images.load({ path: corpusImage() ?? (await peerImage(t)) });
  if (image?.chainID === undefined) throw new Error('the sample image is empty');
  await images.tag(image.id, NAME);
  const layer = await store.get(image.chainID);
  const view = await layer.view();
  t.after(async () => {
    await view[Symbol.asyncDispose]();
    await store.release(layer);
  });
  const archive = join(scratch, 'image.tar');
  await images.save(NAME, { path: archive }, { format: 'oci', compression: 'gzip' });
  await images.save(NAME, { path: join(scratch, 'layout/') }, { format: 'oci', compression: 'gzip' });
  return { tree: () => snapshotTree(view.path), archive, layout: join(scratch, 'layout') };
}

describe('the tree of an image', () => {
  it('podman', async (context) => {
    const t = inReverse(context);
    const pod = podman(t);
    const { tree, archive } = await ours(t);
    await pod('load', '-i', archive);
    const path = await pod('image', 'mount', `docker.io/library/${NAME}`);
    t.after(() => pod('image', 'umount', '--all'));
    assertSameTree(tree(), snapshotTree(path), 'podman');
  });

  it('umoci', async (context) => {
    const t = inReverse(context);
    requirePeers('umoci');
    const { tree, layout } = await ours(t);
    const bundle = join(tempDir(t, 'umoci'), 'bundle');
    await command('umoci', ['unpack', '--image', `${layout}:1`, bundle]);
    assertSameTree(tree(), snapshotTree(join(bundle, 'rootfs')), 'umoci');
  });

  it('ctr', async (context) => {
    const t = inReverse(context);
    const ctr = await containerd(t);
    const { tree, archive } = await ours(t);
    await ctr('images', 'import', archive);
    const path = join(tempDir(t, 'ctr-mount'), 'mnt');
    mkdirSync(path);
    await ctr('images', 'mount', `docker.io/library/${NAME}`, path);
    t.after(() => ctr('images', 'unmount', '--rm', path));
    assertSameTree(tree(), snapshotTree(path), 'ctr');
  });
});
