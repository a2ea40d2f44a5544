/**
 * Unmodified containerd on our plugin: images come, run, are changed and go. 1.6 unpacks by itself into the mounts of our
 * snapshots; later releases leave that to our differ, and then every snapshot of an image is a layer of the store.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createChainID, type DiffID } from '../../../src/digest.js';
import { openImages } from '../../../src/image/index.js';
import { openStore } from '../../../src/store/open.js';
import { assertSameTree, snapshotTree, type TreeSnapshot } from '../../../src/testing/tree-snapshot.js';
import { startServer } from '../../registry/servers.js';
import { tempDir } from '../../support/temp.js';
import { command, inReverse, peerImage, type Hooks } from '../support.js';
import { assertAgree, assertNothingLeft } from './agreement.js';
import { pullByKubelet } from './clients.js';
import { NAMESPACE, Pair, SNAPSHOTTER } from './daemons.js';
import { RELEASES, WITH_DIFFER } from './releases.js';

const NAME = 'docker.io/library/peer:1';
const TAR = 'application/vnd.oci.image.layer.v1.tar';

interface Sample {
  /** An OCI archive. */
  readonly archive: string;
  readonly diffIDs: readonly DiffID[];
  /** Base first. */
  readonly chainIDs: readonly string[];
  readonly tree: TreeSnapshot;
}

/** The image, and what our own load makes of it. */
async function sample(t: Hooks): Promise<Sample> {
  const archive = await peerImage(t);
  const store = await openStore({ root: join(tempDir(t, 'sample'), 'root'), durability: 'relaxed' });
  try {
    const [image] = await (await openImages(store)).load({ path: archive });
    assert.ok(image?.chainID !== undefined);
    await using view = await (await store.get(image.chainID)).view();
    const { diffIDs } = image;
    const chainIDs = diffIDs.map((_, index) => createChainID(diffIDs.slice(0, index + 1)) ?? '');
    return { archive, diffIDs, chainIDs, tree: snapshotTree(view.path) };
  } finally {
    await store.close();
  }
}

const sorted = (names: Iterable<string>): string[] => [...names].sort();

/** The layers of the image are the store's, whole; asked beside the plugin, which has the store open. */
async function assertLayers(root: string, { chainIDs, diffIDs }: Sample): Promise<void> {
  const store = await openStore({ root, readOnly: true });
  try {
    assert.deepEqual(sorted(store.map().keys()), sorted(chainIDs));
    const report = await store.verify();
    assert.ok(report.ok, JSON.stringify(report));
    for (const [chainID, layer] of store.map()) {
      const hash = createHash('sha256');
      for await (const chunk of await layer.tarStream()) hash.update(chunk as Uint8Array);
      assert.equal(`sha256:${hash.digest('hex')}`, diffIDs[chainIDs.indexOf(chainID)], 'the exact tar');
    }
  } finally {
    await store.close();
  }
}

/** What containerd's mount of the top snapshot shows. (`ctr images mount` of 1.6 asks another snapshotter than it is told to.) */
async function assertTree(t: Hooks, pair: Pair, { chainIDs, tree }: Sample, namespace = NAMESPACE): Promise<void> {
  const path = tempDir(t, 'mount');
  const snapshots = (...words: string[]): Promise<string> =>
    pair.ctrIn(namespace, 'snapshots', '--snapshotter', SNAPSHOTTER, ...words);
  const line = await snapshots('view', '--target', path, 'look', chainIDs.at(-1) ?? '');
  execFileSync('sh', ['-c', line]);
  try {
    assertSameTree(tree, snapshotTree(path), 'containerd');
  } finally {
    execFileSync('umount', [path]);
    // Nothing keeps it, so containerd may have collected it meanwhile.
    await snapshots('rm', 'look').catch((error: unknown) => assert.match(String(error), /does not exist/));
  }
}

describe('containerd on our snapshots', () => {
  for (const release of RELEASES) {
    const differ = WITH_DIFFER.includes(release);

    it(`imports, runs, commits and prunes: ${release}`, async (context) => {
      const t = inReverse(context);
      const image = await sample(t);
      const pair = await Pair.start(t, release);
      await pair.ctr('images', 'import', '--snapshotter', SNAPSHOTTER, image.archive);
      assert.deepEqual(
        (await pair.snapshots()).map(({ name, kind }) => `${name} ${kind}`),
        sorted(image.chainIDs).map((name) => `${name} Committed`),
      );
      await assertAgree(pair);
      await assertTree(t, pair, image);
      if (differ) await assertLayers(pair.root, image);

      assert.equal(await pair.ctr('run', '--snapshotter', SNAPSHOTTER, NAME, 'box'), 'hello');
      // The view is removed on our side by containerd's next collection, whenever that is.
      await assertAgree(pair, { orphans: true });
      // The difference is made by containerd's own differ: ours says that it makes none.
      const path = join(tempDir(t, 'diff'), 'diff.tar');
      pair.ctrTo(path, 'snapshots', '--snapshotter', SNAPSHOTTER, 'diff', '--media-type', TAR, 'box');
      assert.match(execFileSync('tar', ['-tf', path], { encoding: 'utf8' }), /^made$/m);
      assert.equal(execFileSync('tar', ['-xOf', path, 'made'], { encoding: 'utf8' }), 'made inside\n');
      await pair.ctr('containers', 'rm', 'box');
      await assertNothingLeft(pair);
    });

    it(`pulls as the kubelet does: ${release}`, async (context) => {
      const t = inReverse(context);
      const image = await sample(t);
      const server = await startServer(context, 'plain');
      const there = `${server.host}/team/peer:1`;
      await command('skopeo', ['copy', '--dest-tls-verify=false', `oci-archive:${image.archive}`, `docker://${there}`]);
      const pair = await Pair.start(t, release, { cri: true });
      await pullByKubelet(pair.address, there);
      await assertAgree(pair, { namespace: 'k8s.io' });
      assert.deepEqual(
        (await pair.snapshots('k8s.io')).map(({ name }) => name),
        sorted(image.chainIDs),
      );
      if (differ) await assertLayers(pair.root, image);
    });

    it(`neither fetches nor unpacks what our load brought: ${release}`, async (context) => {
      const t = inReverse(context);
      const image = await sample(t);
      const root = join(tempDir(t, 'shared'), 'root');
      const store = await openStore({ root });
      await (await openImages(store)).load({ path: image.archive });
      await store.close();
      const server = await startServer(context, 'plain');
      const there = `${server.host}/team/peer:1`;
      await command('skopeo', ['copy', '--dest-tls-verify=false', `oci-archive:${image.archive}`, `docker://${there}`]);

      const pair = await Pair.start(t, release, { root, cri: true });
      await pullByKubelet(pair.address, there);
      await assertAgree(pair, { namespace: 'k8s.io' });
      await assertTree(t, pair, image, 'k8s.io');
      // The manifest and the configuration alone.
      assert.equal((await pair.ctrIn('k8s.io', 'content', 'ls', '-q')).split('\n').length, 2);
    });
  }
});
