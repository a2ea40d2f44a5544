/**
 * The tar of an RW layer with all that one can hold, given to others: GNU tar and bsdtar list and unpack it; docker and
 * podman load an image whose top layer it is, and show the tree that the RW layer's mount shows.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { openStore } from '../../src/store/open.js';
import { assertSameTree, snapshotTree, type TreeSnapshot } from '../../src/testing/tree-snapshot.js';
import { tempDir } from '../support/temp.js';
import { dockerFolders, entries, tar } from '../unit/image/archives.js';
import { command, Docker, inReverse, podman, requirePeers, type Hooks } from './support.js';

const LONG = 'long'.repeat(50);

const BASE = `
  mkdir -p etc var/opaque var/removed usr/lib bin; echo one > etc/one; echo old > var/opaque/old; echo x > var/removed/x
  echo shared > usr/lib/shared; setfattr -n user.base -v kept usr/lib/shared; echo data > usr/lib/metadata; ln -s one etc/link`;

/** Through the mount: overlayfs makes whiteouts and opaque directories of it. */
const CHANGES = `
  rm etc/one; rm -r var/removed; rm -r var/opaque; mkdir var/opaque; echo new > var/opaque/new; chmod 2750 var/opaque
  echo linked > etc/first; ln etc/first etc/second; ln etc/first usr/third; ln -s ../etc/first usr/link
  setfattr -n user.note -v 'with spaces' etc/first; setfattr -n user.on-directory -v yes var/opaque
  setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 usr/lib/shared
  mkdir -p ${LONG}/${LONG}; echo deep > ${LONG}/${LONG}/${LONG}; ln -s ${LONG}/${LONG}/${LONG} usr/long-link
  printf bytes > "$(printf 'etc/n\\344me-\\377')"; mkdir "$(printf 'etc/d\\303\\244\\200')"
  mkdir dev; mknod dev/char c 1 3; mknod dev/block b 7 200; mkfifo dev/fifo; chown 1000:70000 dev/fifo
  truncate -s 3M var/sparse; printf middle | dd of=var/sparse bs=1 seek=1500000 conv=notrunc status=none
  chmod 4711 usr/lib/metadata; chown 100000:100001 usr/lib/metadata; touch -d '2001-02-03 04:05:06.123456789' usr/lib/metadata
  touch -h -d '1969-12-31 23:00:00' usr/link; : > empty`;

interface Ours {
  scratch: string;
  layers: [base: Buffer, top: Buffer];
  /** The top one again, with holes as sparse entries. */
  sparse: Buffer;
  /** What the mounted RW layer shows. */
  tree: TreeSnapshot;
}

async function ours(t: Hooks): Promise<Ours> {
  const scratch = tempDir(t, 'rw-tars');
  const sh = (cwd: string, script: string): void => void execFileSync('sh', ['-euc', script], { cwd });
  const files = join(scratch, 'files');
  mkdirSync(files);
  sh(files, BASE);
  const path = join(scratch, 'base.tar');
  execFileSync('tar', ['-C', files, '--sort=name', '--xattrs', '--format=pax', '-cf', path, '.']);
  const store = await openStore({ root: join(scratch, 'root'), durability: 'relaxed' });
  try {
    const rw = await store.createRWLayer('rw', (await store.register({ path })).chainID);
    sh(await rw.mount(), CHANGES);
    await rw.unmount();
    const top = await buffer(await rw.tarStream());
    const sparse = await buffer(await rw.tarStream({ sparse: true }));
    assert.ok(sparse.length < top.length - 2_000_000, 'without its holes');
    const tree = snapshotTree(await rw.mount());
    await rw.unmount();
    return { scratch, layers: [readFileSync(path), top], sparse, tree };
  } finally {
    await store.close();
  }
}

/** A tree of the layer as tools see it that know no whiteouts: `.wh.` names are files. */
function withoutMarkers(tree: TreeSnapshot): { tree: TreeSnapshot; markers: string[] } {
  const isMarker = (path: string): boolean => /\/\.wh\.[^/]*$/.test(path);
  return {
    tree: new Map([...tree].filter(([path]) => !isMarker(path))),
    markers: [...tree.keys()].filter(isMarker).sort(),
  };
}

describe('the tar of an RW layer', () => {
  it('unpacked by GNU tar and bsdtar', async (context) => {
    const t = inReverse(context);
    requirePeers('tar', 'bsdtar');
    const { scratch, layers, sparse, tree } = await ours(t);
    const programs = [
      ['tar', '--warning=no-timestamp', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-xpf'],
      ['bsdtar', '--xattrs', '--numeric-owner', '-xpf'],
    ];
    const trials = [layers[1], sparse].flatMap((content) => programs.map((words) => ({ content, words })));
    const trees = trials.map(({ content, words: [program = '', ...options] }, index) => {
      const path = join(scratch, `rw-${index}.tar`);
      writeFileSync(path, content);
      const directory = join(scratch, `${program}-${index}`);
      mkdirSync(directory);
      const { status, stderr } = spawnSync(program, [...options, path, '-C', directory], { encoding: 'utf8' });
      assert.deepEqual({ program, status, stderr }, { program, status: 0, stderr: '' });
      const { tree: found, markers } = withoutMarkers(snapshotTree(directory, { root: false }));
      assert.deepEqual(markers, ['/etc/.wh.one', '/var/.wh.removed', '/var/opaque/.wh..wh..opq'], program);
      for (const [at, entry] of found) {
        if (at === '/') continue;
        assert.deepEqual({ [at]: entry }, { [at]: tree.get(at) }, program);
      }
      assert.ok(found.has('/etc/n\xe4me-\xff') && found.has(`/${LONG}/${LONG}/${LONG}`), 'long and odd names');
      return found;
    });
    for (const other of trees.slice(1)) assertSameTree(trees[0] as TreeSnapshot, other, 'GNU tar and bsdtar');
  });

  it('as the top layer of an image, loaded by podman and docker', async (context) => {
    const t = inReverse(context);
    const { scratch, layers, tree } = await ours(t);
    const archive = join(scratch, 'image.tar');
    writeFileSync(archive, await tar(entries(dockerFolders(layers, ['rw:1']))));

    const pod = podman(t);
    await pod('load', '-i', archive);
    const path = await pod('image', 'mount', 'rw:1');
    t.after(() => pod('image', 'umount', '--all'));
    assertSameTree(tree, snapshotTree(path), 'podman');

    const root = join(tempDir(t, 'd'), 'root');
    const docker = await Docker.start(t, root, tempDir(t, 'd'));
    await docker.run('load', '-i', archive);
    const data = JSON.parse(await docker.run('image', 'inspect', '--format', '{{json .GraphDriver.Data}}', 'rw:1')) as {
      UpperDir: string;
      LowerDir: string;
    };
    await docker.stop();
    const mounted = join(scratch, 'mounted');
    mkdirSync(mounted);
    await command('mount', [
      '-t',
      'overlay',
      '-o',
      `ro,lowerdir=${data.UpperDir}:${data.LowerDir}`,
      'overlay',
      mounted,
    ]);
    t.after(() => command('umount', [mounted]));
    assertSameTree(tree, snapshotTree(mounted), 'docker');
  });
});
