/** Batches: order, exact modes, and what a failure takes back. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { tempDir } from '../../support/temp.js';

const engine = loadNativeEngine();

test('a batch does all of its steps in order', async (t) => {
  const dir = tempDir(t);
  const at = (name: string): string => join(dir, name);
  writeFileSync(at('other'), 'other');
  await engine.batch([
    { op: 'mkdir', path: at('a'), mode: 0o750, uid: 12, gid: 34 },
    { op: 'mkdir', path: at('a'), mode: 0o700, existOk: true },
    { op: 'write', path: at('a/text'), mode: 0o640, data: 'text: ä', sync: true, uid: 5, gid: 6 },
    { op: 'write', path: at('a/bytes'), mode: 0o600, data: Uint8Array.of(0, 255, 1).subarray(1) },
    { op: 'write', path: at('a/zero'), mode: 0o600, data: 'zero\0byte' },
    { op: 'symlink', target: '../a/text', path: at('a/link') },
    { op: 'rename', path: at('a/bytes'), dest: at('moved'), noReplace: true },
    { op: 'exchange', path: at('moved'), dest: at('other') },
    { op: 'chmod', path: at('moved'), mode: 0o4755 },
    { op: 'chown', path: at('other'), uid: 7, gid: 8 },
    { op: 'mknod', path: at('a/whiteout'), mode: 0o020000, major: 0, minor: 0 },
    { op: 'setxattr', path: at('a'), name: 'trusted.overlay.opaque', value: Buffer.from('y') },
    { op: 'unlink', path: at('never'), missingOk: true },
    { op: 'rmdir', path: at('never'), missingOk: true },
    { op: 'removexattr', path: at('a'), name: 'trusted.overlay.origin', missingOk: true },
    { op: 'fsync', path: at('a') },
  ]);
  const directory = statSync(at('a'));
  assert.deepEqual(
    [directory.mode & 0o7777, directory.uid, directory.gid],
    [0o750, 12, 34],
    'existOk leaves what is there',
  );
  assert.equal(readFileSync(at('a/text'), 'utf8'), 'text: ä');
  assert.equal(readFileSync(at('a/zero'), 'utf8'), 'zero\0byte');
  assert.equal(statSync(at('a/text')).uid, 5);
  assert.equal(readlinkSync(at('a/link')), '../a/text');
  assert.deepEqual([...readFileSync(at('other'))], [255, 1]);
  assert.equal(statSync(at('other')).uid, 7);
  assert.equal(readFileSync(at('moved'), 'utf8'), 'other');
  assert.equal(statSync(at('moved')).mode & 0o7777, 0o4755);
  const whiteout = lstatSync(at('a/whiteout'));
  assert.ok(whiteout.isCharacterDevice() && whiteout.rdev === 0);
  assert.match(
    execFileSync('getfattr', ['-d', '-m', '-', '--absolute-names', at('a')], { encoding: 'utf8' }),
    /opaque="y"/,
  );
});

test('modes are exact whatever the umask', async (t) => {
  const dir = tempDir(t);
  const before = process.umask(0o777);
  t.after(() => process.umask(before));
  await engine.batch([
    { op: 'mkdir', path: join(dir, 'd'), mode: 0o1777 },
    { op: 'write', path: join(dir, 'f'), mode: 0o664, data: '' },
    { op: 'mknod', path: join(dir, 'p'), mode: 0o010622, major: 0, minor: 0 },
  ]);
  assert.deepEqual(
    ['d', 'f', 'p'].map((name) => statSync(join(dir, name)).mode & 0o7777),
    [0o1777, 0o664, 0o622],
  );
});

test('the first failure takes back what the batch made, and nothing else', async (t) => {
  const dir = tempDir(t);
  const at = (name: string): string => join(dir, name);
  writeFileSync(at('kept'), 'old');
  mkdirSync(at('there'));
  await assert.rejects(
    engine.batch([
      { op: 'mkdir', path: at('there'), mode: 0o700, existOk: true },
      { op: 'mkdir', path: at('a'), mode: 0o700 },
      { op: 'write', path: at('a/f'), mode: 0o600, data: 'x' },
      { op: 'symlink', target: 'x', path: at('a/l') },
      { op: 'mknod', path: at('a/w'), mode: 0o020000, major: 0, minor: 0 },
      { op: 'rename', path: at('missing'), dest: at('elsewhere') },
      { op: 'mkdir', path: at('never'), mode: 0o700 },
    ]),
    (error: unknown) =>
      LayerStoreError.is(error, 'ERR_SYSTEM') &&
      error.errnoName === 'ENOENT' &&
      error.errno === -2 &&
      error.syscall === 'rename' &&
      error.path === at('missing') &&
      error.dest === at('elsewhere'),
  );
  assert.deepEqual(readdirSync(dir).sort(), ['kept', 'there'], 'a file that was there stays');
  assert.ok(existsSync(at('there')));
});

test('a rename does not replace where it must not', async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'a'), 'a');
  writeFileSync(join(dir, 'b'), 'b');
  await assert.rejects(
    engine.batch([{ op: 'rename', path: join(dir, 'a'), dest: join(dir, 'b'), noReplace: true }]),
    (error: unknown) => LayerStoreError.is(error, 'ERR_SYSTEM') && error.errnoName === 'EEXIST',
  );
  assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'b');
});

test('wrong arguments are told by name and touch nothing', async (t) => {
  const dir = tempDir(t);
  const bad: unknown[] = [
    [
      { op: 'mkdir', path: join(dir, 'a'), mode: 0o700 },
      { op: 'destroy', path: dir },
    ],
    [{ op: 'mkdir', path: join(dir, 'a'), mode: '700' }],
    [{ op: 'mkdir', path: `${dir}/a\0b`, mode: 0o700 }],
    [{ op: 'write', path: join(dir, 'a'), mode: 0o600, data: 5 }],
    [null],
    'mkdir',
  ];
  for (const ops of bad) {
    await assert.rejects(engine.batch(ops as never), (error: unknown) =>
      LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'),
    );
  }
  assert.deepEqual(readdirSync(dir), []);
});

test('small files of many directories come in one call, and odd ones by their errno', async (t) => {
  const dir = tempDir(t);
  for (const name of ['one', 'two']) mkdirSync(join(dir, name));
  writeFileSync(join(dir, 'file'), 'no directory');
  writeFileSync(join(dir, 'one/size'), '12345');
  execFileSync('mkfifo', [join(dir, 'one/fifo')]);
  execFileSync('ln', ['-s', '/etc/passwd', join(dir, 'two/size')]);
  execFileSync('ln', ['-s', dir, join(dir, 'link')]);
  const rows = await engine.readSmallFiles(dir, ['size', 'fifo'], 3);
  rows.sort((a, b) => (a.directory < b.directory ? -1 : 1));
  assert.deepEqual(rows, [
    { directory: 'one', files: ['123', { failed: 'EINVAL' }] },
    { directory: 'two', files: [{ failed: 'ELOOP' }, undefined] },
  ]);
});

test('names of a directory come whole, links to directories not among the directories', async (t) => {
  const dir = tempDir(t);
  assert.deepEqual(await engine.names(dir, 'all'), []);
  mkdirSync(join(dir, 'größe'));
  mkdirSync(join(dir, 'new\nline'));
  writeFileSync(join(dir, 'file'), '');
  execFileSync('ln', ['-s', dir, join(dir, 'link')]);
  assert.deepEqual((await engine.names(dir, 'all')).sort(), ['file', 'größe', 'link', 'new\nline'].sort());
  assert.deepEqual((await engine.names(dir, 'directories')).sort(), ['größe', 'new\nline'].sort());
});

test('an unmount takes no keeper but one of the addon', async () => {
  const stranger = { end: () => Promise.resolve() };
  await assert.rejects(async () => engine.unmountAndRemove('/nothing', 1, stranger), /teardown/);
  assert.equal(await engine.unmountAndRemove('/nothing', 1, engine.deferredTeardown()), 'foreign');
});
