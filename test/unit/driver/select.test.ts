import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
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
