import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { GraphDriver } from '../../../src/driver/graph-driver.js';
import { openDriver, type OpenDriverOptions } from '../../../src/driver/select.js';
import { silentLogger } from '../../../src/util/logger.js';
import { tempDir } from '../../support/temp.js';
import { asEngine, failure, FakeEngine } from './fake-engine.js';
import { modeOf } from './fixture.js';

/** The fake's mounts show nothing: a probe finds that overlayfs does not work, which is what a host without it looks like. */
function setup(t: TestContext): {
  root: string;
  open: (more?: Partial<OpenDriverOptions>) => Promise<GraphDriver>;
  engine: FakeEngine;
} {
  const root = tempDir(t, 'select');
  const engine = new FakeEngine();
  engine.before = (step) => {
    if (step.startsWith('mount ')) throw failure('EPERM', -1, 'mount', step);
  };
  const open = (more: Partial<OpenDriverOptions> = {}): Promise<GraphDriver> =>
    openDriver({
      root,
      driver: 'auto',
      driverOptions: {},
      acceptVolatile: false,
      engine: asEngine(engine),
      durability: 'strict',
      readOnly: false,
      logger: silentLogger,
      ...more,
    });
  return { root, open, engine };
}

test('auto on an empty root takes vfs where overlay does not work, and says why', async (t) => {
  const { root, open } = setup(t);
  const driver = await open();
  assert.equal(driver.name, 'vfs');
  assert.match(Object.fromEntries(driver.status())['Chosen'] ?? '', /overlay2 does not work: .*EPERM/);
  assert.equal(modeOf(join(root, 'vfs')), '0710');
  assert.deepEqual(readdirSync(root).sort(), ['layerstore', 'vfs']);
  assert.deepEqual(readdirSync(join(root, 'layerstore')), [], 'no scratch directory is left');
});

test('a probe that a full or broken disk stops chooses no driver', async (t) => {
  for (const [code, errno] of [
    ['ENOSPC', -28],
    ['EIO', -5],
    ['EMFILE', -24],
  ] as const) {
    const { root, open, engine } = setup(t);
    engine.before = (step) => {
      if (step.startsWith('mknod ')) throw failure(code, errno, 'mknod', step);
    };
    await assert.rejects(open(), { code: 'ERR_SYSTEM', errnoName: code });
    assert.deepEqual(readdirSync(root), ['layerstore']);
    assert.deepEqual(readdirSync(join(root, 'layerstore')), [], 'no scratch directory is left');
  }
});

test('layers under the root decide', async (t) => {
  const { root, open } = setup(t);
  mkdirSync(join(root, 'overlay2/l'), { recursive: true });
  assert.equal((await open()).name, 'vfs', 'a home without layers is no state');
  mkdirSync(join(root, 'overlay2/layer'));
  await assert.rejects(open(), { code: 'ERR_NOT_SUPPORTED' });
  await assert.rejects(open({ driver: 'overlay2' }), { code: 'ERR_NOT_SUPPORTED' });
  assert.equal((await open({ driver: 'vfs' })).name, 'vfs');
  mkdirSync(join(root, 'vfs/dir/layer'));
  await assert.rejects(open(), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'ERR_INVALID_ARGUMENT');
    assert.match(error.message, /overlay2, vfs/);
    return true;
  });
});

test('layers of a driver that is not ours are not overlooked', async (t) => {
  const { root, open } = setup(t);
  mkdirSync(join(root, 'btrfs/subvolumes/layer'), { recursive: true });
  await assert.rejects(open(), { code: 'ERR_NOT_SUPPORTED', message: /btrfs/ });
});

test('opening for reading probes nothing and makes nothing', async (t) => {
  const { root, open, engine } = setup(t);
  mkdirSync(join(root, 'overlay2/layer'), { recursive: true });
  const driver = await open({ readOnly: true });
  assert.equal(driver.name, 'overlay2');
  assert.deepEqual(await driver.list(), ['layer']);
  assert.deepEqual(engine.log, []);
  assert.deepEqual(readdirSync(root), ['overlay2']);
});

test('what is asked for is checked before anything is made', async (t) => {
  const { root, open } = setup(t);
  const INVALID = { code: 'ERR_INVALID_ARGUMENT' };
  await assert.rejects(open({ driver: 'aufs' as 'vfs' }), INVALID);
  await assert.rejects(open({ driverOptions: { 'overlay2.mountopt': 'rw' } }), INVALID);
  await assert.rejects(open({ driverOptions: { unknown: '1' } }), INVALID);
  await assert.rejects(open({ driver: 'vfs', driverOptions: { 'overlay2.size': '1G' } }), INVALID);
  const capabilities = { independentDiffs: true, reproducesExactDiffs: true, hardSizeLimit: false, mounts: false };
  const custom = { name: 'mine', capabilities } as GraphDriver;
  assert.equal((await open({ driver: custom })).name, 'mine');
  await assert.rejects(open({ driver: custom, driverOptions: { x: 'y' } }), INVALID);
  assert.deepEqual(readdirSync(root), []);
});

test('a root that cannot hold a driver says so', async (t) => {
  const { root, open } = setup(t);
  const file = join(root, 'file');
  writeFileSync(file, '');
  for (const driver of ['overlay2', 'vfs', 'auto'] as const) {
    await assert.rejects(open({ root: file, driver }), { code: 'ERR_SYSTEM', errnoName: 'ENOTDIR' }, driver);
  }
});

test('the mark of what the layers were made with is read only where it is a file of a known word', async (t) => {
  const { root, open } = setup(t);
  mkdirSync(join(root, 'layerstore'));
  const mark = join(root, 'layerstore/privilege');
  const elsewhere = join(root, 'elsewhere');
  writeFileSync(elsewhere, 'none\n');
  for (const [what, make, code, message] of [
    ['FIFO', () => execFileSync('mkfifo', [mark]), 'ERR_LAYER_CORRUPT', /is not a regular file; restore the file/],
    ['link', () => symlinkSync(elsewhere, mark), 'ERR_LAYER_CORRUPT', /is a symbolic link; restore the file/],
    ['directory', () => mkdirSync(mark), 'ERR_LAYER_CORRUPT', /restore the file/],
    ['long', () => writeFileSync(mark, 'none\n'.repeat(100)), 'ERR_LAYER_CORRUPT', /holds more than 32 bytes/],
    ['empty', () => writeFileSync(mark, ''), 'ERR_NOT_SUPPORTED', /says ""/],
    ['word', () => writeFileSync(mark, 'some\n'), 'ERR_NOT_SUPPORTED', /says "some".*newer version/],
  ] as const) {
    make();
    for (const readOnly of [false, true]) await assert.rejects(open({ readOnly }), { code, message }, what);
    rmSync(mark, { recursive: true });
  }
  writeFileSync(mark, 'none\n');
  const driver = await open();
  assert.equal(Object.fromEntries(driver.status())['Privilege'], 'none');
});

test('userxattr and the mount options that the kernel refuses beside it', async (t) => {
  const { root, open } = setup(t);
  mkdirSync(join(root, 'layerstore'));
  writeFileSync(join(root, 'layerstore/privilege'), 'none\n');
  for (const [mountopt, refused] of [
    ['metacopy=on', 'metacopy=on'],
    ['redirect_dir=on', 'redirect_dir=on'],
    ['redirect_dir=off', 'redirect_dir=off'],
    ['nodev,redirect_dir=follow', 'redirect_dir=follow'],
  ] as const) {
    await assert.rejects(open({ driver: 'overlay2', driverOptions: { 'overlay2.mountopt': mountopt } }), {
      code: 'ERR_INVALID_ARGUMENT',
      message: new RegExp(`has "${refused}", which the kernel does not take.*omit it`),
    });
  }
  for (const mountopt of ['', 'metacopy=off', 'redirect_dir=nofollow', 'nodev,xino=off']) {
    // The trial mount is what fails then.
    await assert.rejects(open({ driver: 'overlay2', driverOptions: { 'overlay2.mountopt': mountopt } }), {
      code: 'ERR_NOT_SUPPORTED',
      message: /EPERM/,
    });
  }
});

test('owners are ignored from the first layer on, or not at all', async (t) => {
  const driverOptions = { ignore_chown_errors: 'true' };
  const privilegeOf = (driver: GraphDriver): string | undefined => Object.fromEntries(driver.status())['Privilege'];
  const { geteuid } = process;
  assert.ok(geteuid !== undefined);
  process.geteuid = () => 1000;
  t.after(() => (process.geteuid = geteuid));
  {
    const { root, open } = setup(t);
    mkdirSync(join(root, 'vfs/dir/layer'), { recursive: true });
    await assert.rejects(open({ driverOptions }), {
      code: 'ERR_INVALID_ARGUMENT',
      message: /cannot begin to ignore owners: ".*" holds layers that have theirs; choose another root, or omit/,
    });
    assert.deepEqual(readdirSync(root), ['vfs'], 'nothing is made, nor marked');
  }
  const { root, open } = setup(t);
  assert.equal(privilegeOf(await open({ driverOptions })), 'none');
  assert.deepEqual(readdirSync(join(root, 'layerstore')), ['privilege'], 'no temporary file is left');
  assert.equal(readFileSync(join(root, 'layerstore/privilege'), 'latin1'), 'none\n');
  assert.equal(modeOf(join(root, 'layerstore/privilege')), '0600');
  mkdirSync(join(root, 'vfs/dir/layer'));
  assert.equal(privilegeOf(await open()), 'none', 'the root remembers it');
  assert.equal(privilegeOf(await open({ driverOptions })), 'none');
});
