/** The snapshots service on real stores, through its socket: rules, mounts, layers, restarts. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { serveContainerd } from '../../src/containerd/index.js';
import { Snapshots } from '../../src/containerd/snapshots.js';
import { createChainID, type ChainID } from '../../src/digest.js';
import { LayerStoreError, hashFile, type Store } from '../../src/index.js';
import { runAsUser } from '../support/run-as-user.js';
import { refused, serve, writtenDirectory, type WireMount } from '../support/containerd.js';
import { tempDir } from '../support/temp.js';
import { prepare } from './store-support.js';

/** Mounts as containerd does, and runs `work` on the root. */
function mounted<T>(directory: string, [mount]: readonly WireMount[], work: (root: string) => T): T {
  assert.ok(mount !== undefined);
  mkdirSync(directory, { recursive: true });
  const options = mount.options.filter((option) => option !== 'rbind').join(',');
  if (mount.type === 'bind') {
    execFileSync('mount', ['--bind', mount.source, directory]);
    if (mount.options.includes('ro')) execFileSync('mount', ['-o', 'remount,bind,ro', directory]);
  } else {
    execFileSync('mount', ['-t', mount.type, '-o', options, mount.source, directory]);
  }
  try {
    return work(directory);
  } finally {
    execFileSync('umount', [directory]);
  }
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`${driver}: snapshots come, change and go by containerd's rules`, async (t) => {
    const place = prepare(t, 'native', driver);
    const directory = tempDir(t, 'containerd');
    const at = join(directory, 'mnt');
    const { client } = await serve(t, await place.open(), directory);

    const first = await client.prepare('active-1', '', { a: '1', empty: '' });
    mounted(at, first, (root) => {
      writeFileSync(join(root, 'below'), 'below');
      mkdirSync(join(root, 'gone'));
      writeFileSync(join(root, 'gone', 'file'), 'x');
    });
    assert.deepEqual(await client.mounts('active-1'), first);
    const active = await client.stat('active-1');
    assert.equal(active.kind, 2);
    assert.deepEqual(active.labels, { a: '1' });
    assert.deepEqual(active.created_at, active.updated_at);
    assert.ok((await client.usage('active-1')).inodes >= 4);
    await client.commit('base', 'active-1', { labels: { b: '2' } });

    await assert.rejects(client.stat('active-1'), refused('NOT_FOUND'));
    await assert.rejects(client.mounts('base'), refused('FAILED_PRECONDITION'));
    const base = await client.stat('base');
    assert.equal(base.kind, 3);
    assert.deepEqual(base.labels, { b: '2' }, 'labels are replaced, not inherited');
    assert.ok(base.created_at.seconds > 1_700_000_000);
    assert.ok((await client.usage('base')).inodes >= 4);

    const second = await client.prepare('active-2', 'base');
    mounted(at, second, (root) => {
      assert.equal(readFileSync(join(root, 'below'), 'utf8'), 'below');
      execFileSync('rm', ['-r', join(root, 'gone')]);
      writeFileSync(join(root, 'above'), 'above');
    });
    await assert.rejects(client.prepare('active-2', 'base'), refused('ALREADY_EXISTS'));
    await assert.rejects(client.prepare('other', 'active-2'), refused('INVALID_ARGUMENT'));
    await assert.rejects(client.prepare('other', 'missing'), refused('NOT_FOUND'));
    await assert.rejects(client.prepare(''), refused('INVALID_ARGUMENT'));
    await assert.rejects(client.commit('base', 'active-2'), refused('ALREADY_EXISTS'));
    await assert.rejects(client.commit('name', 'base'), refused('FAILED_PRECONDITION'));
    await assert.rejects(client.commit('name', 'missing'), refused('NOT_FOUND'));
    await assert.rejects(client.remove('base'), refused('FAILED_PRECONDITION'));
    await assert.rejects(client.remove('missing'), refused('NOT_FOUND'));
    await assert.rejects(client.usage('missing'), refused('NOT_FOUND'));
    await client.commit('top', 'active-2');

    const view = await client.view('view-1', 'top');
    mounted(at, view, (root) => {
      assert.deepEqual(readdirSync(root).sort(), ['above', 'below']);
      assert.throws(() => writeFileSync(join(root, 'x'), ''), { code: 'EROFS' });
    });
    await assert.rejects(client.commit('name', 'view-1'), refused('FAILED_PRECONDITION'));
    assert.deepEqual(await client.usage('view-1'), { size: 0, inodes: 0 });
    const empty = await client.view('view-2');
    mounted(at, empty, (root) => assert.deepEqual(readdirSync(root), []));

    assert.deepEqual(await client.names(), ['base', 'top', 'view-1', 'view-2']);
    assert.deepEqual(await client.names('kind==committed'), ['base', 'top']);
    assert.deepEqual(await client.names('parent==base', 'name==view-2'), ['top', 'view-2']);
    await assert.rejects(client.names('name=x'), refused('INVALID_ARGUMENT'));

    const updated = await client.update('top', { x: '1', y: '2' });
    assert.deepEqual(updated.labels, { x: '1', y: '2' });
    assert.deepEqual((await client.update('top', { x: '3', z: '4' }, ['labels.x'])).labels, { x: '3', y: '2' });
    assert.deepEqual((await client.update('top', {}, ['labels.x'])).labels, { y: '2' });
    assert.deepEqual((await client.update('top', { z: '4' }, ['labels'])).labels, { z: '4' });
    await assert.rejects(client.update('top', {}, ['parent']), refused('INVALID_ARGUMENT'));
    await assert.rejects(client.update('missing', {}), refused('NOT_FOUND'));
    const { created_at, updated_at } = await client.stat('top');
    assert.ok(updated_at.seconds * 1e9 + updated_at.nanos > created_at.seconds * 1e9 + created_at.nanos);

    for (const key of ['view-1', 'view-2', 'top', 'base']) await client.remove(key);
    await client.cleanup();
    assert.deepEqual(await client.names(), []);
    const trees = join(place.root, driver === 'vfs' ? 'vfs/dir' : 'overlay2');
    for (let tries = 0; readdirSync(trees).some((name) => name !== 'l') && tries < 200; tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.deepEqual(
      readdirSync(trees).filter((name) => name !== 'l'),
      [],
    );
  });
}

test('a long list comes in several messages', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const { client } = await serve(t, await place.open({ durability: 'relaxed' }), tempDir(t, 'containerd'));
  await Promise.all(Array.from({ length: 250 }, (_, index) => client.prepare(`box-${index}`)));
  assert.deepEqual(
    (await client.blocks()).map((block) => block.length),
    [100, 100, 50],
  );
});

test('a snapshot begins with the mode and owner of its parent, or with the owner that its mapping says', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const { client } = await serve(t, await place.open(), tempDir(t, 'containerd'));
  const below = writtenDirectory(await client.prepare('below'));
  chownSync(below, 12, 34);
  chmodSync(below, 0o1750);
  await client.commit('base', 'below');
  const root = statSync(writtenDirectory(await client.prepare('box', 'base')));
  assert.deepEqual([root.mode & 0o7777, root.uid, root.gid], [0o1750, 12, 34]);
  const mapping = {
    'containerd.io/snapshot/uidmapping': '1000:5000:1,0:100000:65536',
    'containerd.io/snapshot/gidmapping': '0:200000:65536',
  };
  const mounts = await client.prepare('mapped', 'base', mapping);
  assert.deepEqual(mounts[0]?.options.slice(0, 2), ['uidmap=1000:5000:1,0:100000:65536', 'gidmap=0:200000:65536']);
  const mapped = statSync(writtenDirectory(mounts));
  assert.deepEqual([mapped.mode & 0o7777, mapped.uid, mapped.gid], [0o1750, 100_000, 200_000]);
  for (const wrong of ['', '0:x:1', '5:100000:3', '0:1']) {
    const labels = { ...mapping, 'containerd.io/snapshot/gidmapping': wrong };
    await assert.rejects(client.prepare('wrong', 'base', labels), refused('INVALID_ARGUMENT'), wrong);
  }
  assert.deepEqual(await client.names(), ['base', 'box', 'mapped']);
});

test('a snapshot that was prepared on nothing is committed on a parent', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const directory = tempDir(t, 'containerd');
  const { client } = await serve(t, await place.open(), directory);
  const parts = { base: 'one', top: 'two' };
  for (const [name, text] of Object.entries(parts)) {
    writeFileSync(join(writtenDirectory(await client.prepare(`unpack ${name}`)), name), text);
  }
  await client.commit('base', 'unpack base');
  await assert.rejects(client.commit('top', 'unpack top', { parent: 'missing' }), refused('NOT_FOUND'));
  await client.commit('top', 'unpack top', { parent: 'base' });
  assert.equal((await client.stat('top')).parent, 'base');
  await assert.rejects(client.remove('base'), refused('FAILED_PRECONDITION'));
  mounted(join(directory, 'mnt'), await client.prepare('box', 'top'), (root) => {
    assert.deepEqual(readdirSync(root).sort(), ['base', 'top']);
  });
  await client.prepare('on base', 'base');
  await assert.rejects(client.commit('other', 'on base', { parent: 'top' }), refused('INVALID_ARGUMENT'));
  await client.commit('other', 'on base', { parent: 'base' });
});

interface Unpacked {
  names: string[];
  chainIDs: ChainID[];
}

/** Unpacks tars as containerd does, beside the socket, which has no Apply of its own in this test. */
async function unpack(snapshots: Snapshots, tars: readonly string[], namespace: string): Promise<Unpacked> {
  const found: Unpacked = { names: [], chainIDs: [] };
  for (const [index, path] of tars.entries()) {
    const { diffID, digest, size } = await hashFile(path);
    const chainID = createChainID([diffID], found.chainIDs.at(-1)) as ChainID;
    const key = `${namespace}/${index}/extract-1 ${chainID}`;
    const mounts = await snapshots.prepare('active', key, found.names.at(-1) ?? '', {});
    assert.equal(await snapshots.writtenBy(mounts[0]?.writes ?? ''), key);
    const blob = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size };
    await snapshots.apply(key, { tar: { path }, blob, signal: undefined, onProgress: undefined });
    const name = `${namespace}/${index}/${chainID}`;
    await snapshots.commit(name, key, { 'containerd.io/snapshot.ref': chainID }, '');
    found.names.push(name);
    found.chainIDs.push(chainID);
  }
  return found;
}

async function assertLayers(store: Store, { names, chainIDs }: Unpacked, tars: readonly string[]): Promise<void> {
  assert.deepEqual([...store.map().keys()].sort(), [...chainIDs].sort());
  assert.deepEqual(
    store
      .references()
      .map(({ name, chainID }) => [name, chainID])
      .sort(),
    names.map((name, index) => [`containerd:${name}`, chainIDs[index]]).sort(),
  );
  assert.equal((await store.verify()).ok, true);
  for (const [index, chainID] of chainIDs.entries()) {
    const layer = await store.get(chainID);
    const path = join(store.root, 'exported.tar');
    await layer.exportTo({ path });
    assert.ok(readFileSync(path).equals(readFileSync(tars[index] as string)), 'the exact tar');
    await store.release(layer);
  }
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`${driver}: what is applied and committed under its chain id is a layer of the store, as long as it is there`, async (t) => {
    const place = prepare(t, 'native', driver);
    const tars = place.tars.map(({ path }) => path);
    const store = await place.open();
    const snapshots = await Snapshots.open({ store, reuseLayers: true });
    const unpacked = await unpack(snapshots, tars, 'lab');
    await assertLayers(store, unpacked, tars);
    assert.deepEqual(readdirSync(join(place.root, 'layerstore', 'containerd', 'applied')), []);
    assert.deepEqual((await store.gc()).removed, []);
    await snapshots.close();
    await store.close();

    const again = await place.open();
    const { client, close } = await serve(t, again, tempDir(t, 'containerd'));
    await assertLayers(again, unpacked, tars);
    assert.deepEqual(await client.names(), unpacked.names);
    await client.prepare('box', unpacked.names.at(-1));
    await client.remove('box');
    for (const name of [...unpacked.names].reverse()) await client.remove(name);
    assert.equal(again.map().size, 0);
    assert.deepEqual(again.references(), []);
    await close();
  });
}

test('a layer that is here already is neither fetched nor unpacked, unless that is turned off', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open();
  let top: ChainID | undefined;
  const chain: ChainID[] = [];
  for (const { path } of place.tars) {
    top = (await store.register({ path }, top)).chainID;
    chain.push(top);
  }
  const directory = tempDir(t, 'containerd');
  const { client, close } = await serve(t, store, directory);
  const ref = (chainID: ChainID): Record<string, string> => ({ 'containerd.io/snapshot.ref': chainID });
  const [first, second, third] = chain as [ChainID, ChainID, ChainID];
  await assert.rejects(client.prepare('lab/1/extract-1 x', '', ref(first)), refused('ALREADY_EXISTS'));
  assert.deepEqual(await client.names(), [`lab/1/${first}`]);
  const [{ kind, labels } = { kind: 0, labels: {} }] = (
    await client.blocks(`labels."containerd.io/snapshot.ref"==${first},parent==""`)
  ).flat();
  assert.deepEqual([kind, labels], [3, ref(first)]);
  // Again, and from another namespace: the same snapshot.
  await assert.rejects(client.prepare('other/2/extract-2 x', '', ref(first)), refused('ALREADY_EXISTS'));
  assert.equal((await client.names()).length, 1);
  // On the wrong parent it is another snapshot.
  await client.prepare('lab/3/extract-3 x', '', ref(second));
  await client.prepare('lab/4/extract-4 x', `lab/1/${first}`, ref(third));
  await Promise.all(
    [5, 6].map((number) =>
      assert.rejects(
        client.prepare(`lab/${number}/extract-5 x`, `lab/1/${first}`, ref(second)),
        refused('ALREADY_EXISTS'),
      ),
    ),
  );
  assert.equal((await client.names('kind==committed')).length, 2);
  assert.ok((await client.usage((await client.names('kind==committed'))[1] ?? '')).inodes > 0);
  await client.prepare(
    'box',
    (await client.names(`labels."containerd.io/snapshot.ref"==${second}`)).find((name) => !name.includes('extract')),
  );
  await close();

  const off = await serve(t, store, directory, { reuseLayers: false });
  await off.client.prepare('lab/7/extract-7 x', '', ref(first));
});

test('what was mounted again after it was applied is a snapshot, and no layer', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open();
  const snapshots = await Snapshots.open({ store, reuseLayers: true });
  t.after(() => snapshots.close());
  const [tar] = place.tars;
  assert.ok(tar !== undefined);
  const { digest, size } = await hashFile(tar.path);
  const source = {
    tar: { path: tar.path },
    blob: { mediaType: 'x', digest, size },
    signal: undefined,
    onProgress: undefined,
  };
  await snapshots.prepare('active', 'one', '', {});
  await snapshots.apply('one', source);
  const [mount] = await snapshots.mounts('one');
  writeFileSync(join(mount?.writes ?? '', 'more'), '');
  await snapshots.commit(`lab/1/${tar.diffID}`, 'one', {}, '');
  await snapshots.prepare('active', 'two', '', {});
  await snapshots.apply('two', source);
  await snapshots.commit('under another name', 'two', {}, '');
  await snapshots.prepare('active', 'three', '', {});
  await snapshots.apply('three', source);
  await snapshots.apply('three', source);
  await snapshots.commit(`lab/3/${tar.diffID}`, 'three', {}, '');
  assert.equal(store.map().size, 0);
  assert.deepEqual(readdirSync(join(place.root, 'layerstore', 'containerd', 'applied')), []);
  await assert.rejects(snapshots.writtenBy('/etc'), { status: 'NOT_FOUND' });
  await assert.rejects(snapshots.writtenBy(`${mount?.writes ?? ''}/more`), { status: 'NOT_FOUND' });
});

test('after a kill -9 the snapshots are there, and what no record names is gone', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open();
  const directory = tempDir(t, 'containerd');
  const { client, close } = await serve(t, store, directory);
  const home = join(place.root, 'overlay2');
  await client.prepare('kept');
  const [tree = ''] = readdirSync(home).filter((name) => name !== 'l');
  await close();
  // As a crash in a Prepare leaves it: a tree of ours without a record; and one of somebody else's.
  const orphan = `${tree.slice(0, 16)}${'0'.repeat(48)}`;
  for (const name of [orphan, 'f'.repeat(64)]) mkdirSync(join(home, name, 'diff'), { recursive: true });
  const again = await serve(t, store, directory);
  assert.deepEqual(await again.client.names(), ['kept']);
  assert.equal(existsSync(join(home, orphan)), false);
  assert.equal(existsSync(join(home, 'f'.repeat(64))), true);
  assert.deepEqual(
    (await store.cleanup()).foreign.map(({ what }) => what),
    ['f'.repeat(64)],
    'trees of snapshots are nobody else’s',
  );
  // A snapshot whose tree somebody deleted is no snapshot any more.
  await again.close();
  execFileSync('rm', ['-r', join(home, tree)]);
  const third = await serve(t, store, directory);
  assert.deepEqual(await third.client.names(), []);
});

test('a cleanup beside a commit leaves the files of the layer that comes to be', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({ durability: 'relaxed' });
  const snapshots = await Snapshots.open({ store, reuseLayers: true });
  t.after(() => snapshots.close());
  const [tar] = place.tars;
  assert.ok(tar !== undefined);
  const { digest, size } = await hashFile(tar.path);
  const blob = { mediaType: 'x', digest, size };
  const [mount] = await snapshots.prepare('active', 'one', '', {});
  await snapshots.apply('one', { tar: { path: tar.path }, blob, signal: undefined, onProgress: undefined });
  const [, prefix = ''] = /\/overlay2\/([0-9a-f]{16})/.exec(mount?.writes ?? '') ?? [];
  // So many to remove that the commit ends before the last of them is.
  const home = join(place.root, 'overlay2');
  for (let index = 0; index < 500; index += 1) {
    mkdirSync(join(home, `${prefix}${String(index).padStart(48, '0')}`, 'diff'), { recursive: true });
  }
  let cleaned = false;
  const cleanup = snapshots.cleanup().then(() => void (cleaned = true));
  await snapshots.commit(`lab/1/${tar.diffID}`, 'one', {}, '');
  assert.equal(cleaned, false, 'both ran at once');
  await cleanup;
  assert.equal((await store.verify()).ok, true);
  await snapshots.prepare('active', 'box', `lab/1/${tar.diffID}`, {});
});

test('usage counts snapshots with files of their own; layers count as layers', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open();
  const { client } = await serve(t, store, tempDir(t, 'containerd'));
  assert.deepEqual((await store.usage()).snapshots, { count: 0, bytes: 0, inodes: 0 });
  const { chainID } = await store.register({ path: place.tars[0]?.path ?? '' });
  const ref = { 'containerd.io/snapshot.ref': chainID };
  await assert.rejects(client.prepare('lab/1/extract', '', ref), refused('ALREADY_EXISTS'));
  const below = await client.prepare('below');
  writeFileSync(join(writtenDirectory(below), 'file'), Buffer.alloc(10_000));
  await client.commit('base', 'below');
  await client.prepare('box', 'base');
  await client.view('view', 'base');
  const { snapshots, layers } = await store.usage();
  assert.equal(layers.count, 1);
  assert.equal(snapshots.count, 2);
  assert.ok(snapshots.bytes >= 10_000 && snapshots.bytes < 40_000, `${snapshots.bytes} bytes`);
  assert.equal(snapshots.inodes, 3);
});

test('the socket of a server that is too busy to accept is not taken', async (t) => {
  const directory = tempDir(t, 'containerd');
  const address = join(directory, 'sock');
  const busy = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen({ path: ${JSON.stringify(address)}, backlog: 1 }, () => {
      console.log('listening');
      setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
    })`,
  ]);
  t.after(() => busy.kill('SIGKILL'));
  await once(busy.stdout, 'data');
  const code = (probe: Socket): Promise<string> =>
    new Promise((done) => {
      probe.once('connect', () => done('connected'));
      probe.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? ''));
    });
  let last = 'connected';
  for (let tries = 0; last === 'connected' && tries < 10; tries += 1) {
    const probe = connect(address);
    t.after(() => probe.destroy());
    last = await code(probe);
  }
  assert.equal(last, 'EAGAIN');
  const { ino } = statSync(address);
  const store = await prepare(t, 'native', 'overlay2').open();
  await assert.rejects(serveContainerd({ store, address }), (error) =>
    LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'),
  );
  assert.equal(statSync(address).ino, ino);
});

test('the socket is for its own user, is not taken from others, and goes with the server', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open();
  const directory = tempDir(t, 'containerd');
  chmodSync(directory, 0o755);
  const { server, close } = await serve(t, store, directory);
  assert.equal((statSync(server.address).mode & 0o7777).toString(8), '600');
  assert.deepEqual(readdirSync(directory), ['sock']);
  const attempt = `import { connect } from 'node:net';
    connect(${JSON.stringify(server.address)}).on('error', (e) => console.log(e.code)).on('connect', () => process.exit(1));`;
  assert.equal((await runAsUser(attempt)).stdout.trim(), 'EACCES');
  const code = (expected: string) => (error: unknown) => LayerStoreError.is(error) && error.code === expected;
  await assert.rejects(serveContainerd({ store, address: join(directory, 'other') }), code('ERR_INVALID_ARGUMENT'));
  const second = await prepare(t, 'native', 'overlay2').open();
  await assert.rejects(serveContainerd({ store: second, address: server.address }), code('ERR_INVALID_ARGUMENT'));
  await close();
  assert.deepEqual(readdirSync(directory), []);
  writeFileSync(join(directory, 'file'), '');
  for (const address of [join(directory, 'file'), 'relative', join(directory, 'x'.repeat(120))]) {
    await assert.rejects(serveContainerd({ store, address }), code('ERR_INVALID_ARGUMENT'), address);
  }
  await assert.rejects(serveContainerd({ store, address: join(directory, 'no', 'sock') }), code('ERR_SYSTEM'));
  assert.deepEqual(readdirSync(directory), ['file']);
  // Closing the store ends its server, an aborted signal too.
  const stop = new AbortController();
  await serve(t, store, directory, { signal: stop.signal });
  stop.abort();
  for (let tries = 0; existsSync(join(directory, 'sock')) && tries < 200; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.deepEqual(readdirSync(directory), ['file']);
});

test('a store that is open for reading, or closed, is not served', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open();
  const reader = await place.open({ readOnly: true });
  const address = join(tempDir(t, 'containerd'), 'sock');
  await assert.rejects(serveContainerd({ store: reader, address }), (error) =>
    LayerStoreError.is(error, 'ERR_READ_ONLY'),
  );
  await store.close();
  await assert.rejects(serveContainerd({ store, address }), (error) => LayerStoreError.is(error, 'ERR_STORE_CLOSED'));
});
