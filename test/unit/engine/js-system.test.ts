/** What the JavaScript engine asks of the system: batches, locks, mounts, copies, removal. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { parseMountLine } from '../../../src/engine/js/mount.js';
import { assertSameTree, snapshotTree } from '../../../src/testing/tree-snapshot.js';
import { tempDir } from '../../support/temp.js';
import { engine } from './js-support.js';

const system = (errnoName: string) => (error: unknown) =>
  LayerStoreError.is(error, 'ERR_SYSTEM') && error.errnoName === errnoName;

test('a batch makes, and takes back what it made where a step fails', async (t) => {
  const base = tempDir(t);
  await engine.batch([
    { op: 'mkdir', path: `${base}/x`, mode: 0o710 },
    { op: 'write', path: `${base}/x/f`, mode: 0o644, data: 'hi', sync: true },
    { op: 'mknod', path: `${base}/x/n`, mode: 0o020600, major: 0, minor: 0 },
    { op: 'mkdir', path: `${base}/y`, mode: 0o700 },
    { op: 'exchange', path: `${base}/x`, dest: `${base}/y` },
  ]);
  assert.equal(readFileSync(`${base}/y/f`, 'utf8'), 'hi');
  assert.equal(lstatSync(`${base}/y`).mode & 0o777, 0o710);
  await assert.rejects(
    engine.batch([
      { op: 'mkdir', path: `${base}/z`, mode: 0o700 },
      { op: 'write', path: `${base}/z/f`, mode: 0o600, data: '' },
      { op: 'symlink', path: `${base}/z/l`, target: 'f' },
      { op: 'mkdir', path: `${base}/none/q`, mode: 0o700 },
    ]),
    (error) => system('ENOENT')(error) && (error as LayerStoreError).path === `${base}/none/q`,
  );
  assert.deepEqual(readdirSync(base).sort(), ['x', 'y']);
  await assert.rejects(
    engine.batch([{ op: 'rename', path: `${base}/x`, dest: `${base}/y`, noReplace: true }]),
    system('EEXIST'),
  );
  await assert.rejects(engine.batch([{ op: 'write', path: `${base}/y/f`, mode: 0o600, data: '' }]), system('EEXIST'));
});

test('a lock excludes others, also other processes, until it is released', async (t) => {
  const path = join(tempDir(t), 'lock');
  const held = await engine.lock(path, 'exclusive');
  assert.ok(held);
  assert.equal(await engine.lock(path, 'exclusive'), undefined);
  assert.equal(await engine.lock(path, 'shared'), undefined);
  assert.throws(() => execFileSync('/usr/bin/flock', ['-n', path, 'true']));
  await held.release();
  await held.release();
  execFileSync('/usr/bin/flock', ['-n', path, 'true']);
  const readers = [await engine.lock(path, 'shared'), await engine.lock(path, 'shared')];
  assert.ok(readers.every((lock) => lock !== undefined));
  for (const lock of readers) await lock?.release();
});

test('a lock goes with its process, also a killed one', async (t) => {
  const path = join(tempDir(t), 'lock');
  const script = `import { createJsEngine } from './src/engine/js/index.ts';
    await createJsEngine().lock(process.argv[1], 'exclusive'); process.kill(process.pid, 'SIGKILL');`;
  assert.throws(() => execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script, path]));
  assert.ok(existsSync(path));
  const lock = await engine.lock(path, 'exclusive');
  assert.ok(lock);
  await lock.release();
});

test('mounts: odd names, hundreds of layers, read-only ones, busy ones', async (t) => {
  const base = tempDir(t);
  for (const name of ['u', 'w', 'm', 'one', 'odd, name: "x"']) mkdirSync(join(base, name));
  writeFileSync(join(base, 'odd, name: "x"', 'found'), '1');
  writeFileSync(join(base, 'one', 'a'), '1');
  const target = join(base, 'm');
  const writable = { upper: join(base, 'u'), work: join(base, 'w'), target, options: ['index=off'] };
  await engine.mountOverlay({ ...writable, lowers: [join(base, 'one'), join(base, 'odd, name: "x"')] });
  assert.deepEqual(readdirSync(target).sort(), ['a', 'found']);
  const [entry] = await engine.mounts(base);
  assert.equal(entry?.target, target);
  assert.equal(entry?.fsType, 'overlay');
  const fd = openSync(join(target, 'a'), 'r');
  await assert.rejects(
    engine.unmount(target),
    (error) =>
      system('EBUSY')(error) && (error as LayerStoreError).holders?.some(({ pid }) => pid === process.pid) === true,
  );
  closeSync(fd);
  await engine.unmount(target);
  await assert.rejects(engine.unmount(target), system('EINVAL'));
  await engine.mountOverlay({ lowers: [join(base, 'one')], target, options: [] });
  assert.throws(() => writeFileSync(join(target, 'b'), ''), { code: 'EROFS' });
  await engine.unmount(target);
  const lowers = Array.from({ length: 400 }, (_, index) => join(base, 'many', 'x'.repeat(100) + String(index)));
  for (const lower of lowers) mkdirSync(lower, { recursive: true });
  await engine.mountOverlay({ ...writable, lowers });
  await engine.unmount(target);
  // 45 paths of 36 letters: fewer than a page of UTF-16 units, more than one of bytes.
  const umlauts = Array.from({ length: 45 }, (_, index) => `${base}/${'ä'.repeat(36)}${String(index)}`);
  for (const lower of umlauts) mkdirSync(lower);
  await engine.mountOverlay({ ...writable, lowers: umlauts });
  await engine.unmount(target);
  const options = [`context="${'x'.repeat(3000)}"`];
  await assert.rejects(
    engine.mountOverlay({ ...writable, options, lowers }),
    (error) => LayerStoreError.is(error, 'ERR_NOT_SUPPORTED') && /about \d+ do/.test(error.message),
  );
  await assert.rejects(engine.mountOverlay({ ...writable, lowers: [join(base, 'none')] }), (error) =>
    LayerStoreError.is(error, 'ERR_SYSTEM'),
  );
  assert.deepEqual(await engine.mounts(base), []);
});

test('a line of mountinfo is read, escapes included', () => {
  assert.deepEqual(
    parseMountLine('36 35 98:0 /a\\040b /mnt\\0542 rw,noatime master:1 - ext3 /dev/root rw,errors=continue'),
    {
      id: 36,
      parent: 35,
      fsType: 'ext3',
      source: '/dev/root',
      target: '/mnt,2',
      root: '/a b',
      options: 'rw,errors=continue',
    },
  );
  assert.equal(parseMountLine('garbage'), undefined);
});

test('removal follows no link, copes with depth and odd names, and crosses no mount', async (t) => {
  const base = tempDir(t);
  mkdirSync(join(base, 'outside'));
  writeFileSync(join(base, 'outside', 'kept'), '');
  const tree = join(base, 'tree');
  mkdirSync(tree);
  symlinkSync(join(base, 'outside'), join(tree, 'link'));
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/n`), Buffer.from([0xff, 0xfe])]), '');
  execFileSync('/usr/bin/python3', [
    '-c',
    'import os,sys\nos.chdir(sys.argv[1])\nfor i in range(600):\n os.mkdir("d"); os.chdir("d")\n',
    tree,
  ]);
  mkdirSync(join(tree, 'mounted'));
  execFileSync('/bin/mount', ['-t', 'tmpfs', 'none', join(tree, 'mounted')]);
  await assert.rejects(engine.removeTree(tree), system('EBUSY'));
  execFileSync('/bin/umount', [join(tree, 'mounted')]);
  await engine.removeTree(tree);
  await engine.removeTree(tree);
  assert.deepEqual(readdirSync(base), ['outside']);
  assert.deepEqual(readdirSync(join(base, 'outside')), ['kept']);
});

test('a copy is the same tree, whether times are fine or not', async (t) => {
  const base = tempDir(t);
  for (const [name, time] of [
    ['coarse', '2001-02-03 04:05:06'],
    ['fine', '2001-02-03 04:05:06.123456789'],
    ['old', '1901-02-03 04:05:06.5'],
  ] as const) {
    const source = join(base, name);
    mkdirSync(source);
    execFileSync(
      '/bin/bash',
      [
        '-ec',
        `mkdir -p a/b; echo 1 >a/f; ln a/f hard; ln -s f a/l; mkfifo p; mknod w c 0 0; chmod 4711 a/f; chown 5:6 a/b
      touch a/$'n\\xff\\nl' ./-n
      setfattr -n user.x -v y a/f; setfattr -n trusted.overlay.origin -v z a/f; setfattr -n trusted.overlay.opaque -v y a/b
      find . -print0 | xargs -0 touch -hd '${time}'`,
      ],
      { cwd: source },
    );
    const target = join(base, `${name}-copy`);
    mkdirSync(target);
    await engine.copyTree(source, target);
    execFileSync('/usr/bin/setfattr', ['-x', 'trusted.overlay.origin', 'a/f'], { cwd: source });
    assertSameTree(snapshotTree(target), snapshotTree(source), name);
  }
});

test('syncing paths that are not there is an error', async (t) => {
  const base = tempDir(t);
  await engine.syncFs([base, '/', base]);
  await engine.syncFs([]);
  await assert.rejects(engine.syncFs([join(base, 'none')]), system('ENOENT'));
});
