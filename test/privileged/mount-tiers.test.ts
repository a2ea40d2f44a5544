/** Overlay mounts of the native engine in each of its tiers: depth, long roots, failures, busy targets, leaks. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync, openSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Engine, MountTier, OverlayMount } from '../../src/engine/engine.js';
import { loadNativeEngine, MOUNT_TIER_VARIABLE } from '../../src/engine/native/index.js';
import { LayerStoreError } from '../../src/errors.js';
import { tempDir } from '../support/temp.js';

const TIERS: readonly MountTier[] = ['fd', 'lowerdir+', 'classic'];

function engineOf(tier: MountTier): Engine {
  const before = process.env[MOUNT_TIER_VARIABLE];
  process.env[MOUNT_TIER_VARIABLE] = tier;
  try {
    return loadNativeEngine();
  } finally {
    if (before === undefined) delete process.env[MOUNT_TIER_VARIABLE];
    else process.env[MOUNT_TIER_VARIABLE] = before;
  }
}

/** `count` lower directories, nearest first; each has a file of its own and its number in `top`. */
function stack(root: string, count: number): Required<Pick<OverlayMount, 'upper' | 'work' | 'lowers' | 'target'>> {
  const lowers = Array.from({ length: count }, (_, index) => {
    const lower = join(root, `lower-${index}`);
    mkdirSync(lower);
    writeFileSync(join(lower, `file-${index}`), String(index));
    writeFileSync(join(lower, 'top'), String(index));
    return lower;
  });
  const id = join(root, 'rw');
  mkdirSync(id);
  for (const name of ['diff', 'work', 'merged']) mkdirSync(join(id, name));
  return { upper: join(id, 'diff'), work: join(id, 'work'), target: join(id, 'merged'), lowers };
}

/** A directory whose path is about `length` bytes long. */
function longRoot(t: TestContext, length: number): string {
  let path = tempDir(t, 'mount');
  while (path.length < length) {
    path = join(path, 'd'.repeat(Math.min(240, Math.max(1, length - path.length - 1))));
    mkdirSync(path);
  }
  return path;
}

function below(root: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(root));
}

for (const tier of TIERS) {
  const engine = engineOf(tier);

  test(`${tier}: is the tier that is used, and says so`, async (t) => {
    const mount = stack(tempDir(t, 'mount'), 2);
    assert.equal(engine.features()['mount'], tier);
    assert.equal(await engine.mountOverlay({ ...mount, options: [] }), tier);
    const [entry, ...more] = await engine.mounts(mount.target);
    assert.equal(more.length, 0);
    assert.equal(entry?.fsType, 'overlay');
    assert.equal(entry.target, mount.target);
    assert.match(entry.options, /upperdir=\S*rw\/diff/, 'the mount table tells which upper directory it is');
    await engine.unmount(mount.target);
    assert.deepEqual(await engine.mounts(mount.target), []);
  });

  test(`${tier}: writes go to the upper directory, the nearest lower wins`, async (t) => {
    const mount = stack(tempDir(t, 'mount'), 3);
    await engine.mountOverlay({ ...mount, options: ['index=off', 'nodev', 'nosuid', 'noexec'] });
    assert.equal(readFileSync(join(mount.target, 'top'), 'utf8'), '0');
    assert.equal(readFileSync(join(mount.target, 'file-2'), 'utf8'), '2');
    writeFileSync(join(mount.target, 'new'), 'new');
    assert.equal(readFileSync(join(mount.upper, 'new'), 'utf8'), 'new');
    const line = below(mount.target)[0]?.split(' ') ?? [];
    for (const option of ['nodev', 'nosuid', 'noexec']) assert.ok(line[5]?.split(',').includes(option), line[5]);
    assert.equal(line[6], '-', 'no propagation');
    await engine.unmount(mount.target);
  });

  test(`${tier}: without an upper directory it is read-only`, async (t) => {
    const { lowers, target } = stack(tempDir(t, 'mount'), 2);
    await engine.mountOverlay({ lowers, target, options: [] });
    assert.throws(() => writeFileSync(join(target, 'new'), ''), { code: 'EROFS' });
    await engine.unmount(target);
  });

  for (const [count, length] of [
    [125, 100],
    [500, 100],
    [125, 3000],
    [500, 3000],
  ] as const) {
    test(`${tier}: ${count} lower directories below a root of ${length} bytes`, async (t) => {
      const mount = stack(longRoot(t, length), count);
      assert.equal(await engine.mountOverlay({ ...mount, options: ['index=off'] }), tier);
      assert.equal(readFileSync(join(mount.target, `file-${count - 1}`), 'utf8'), String(count - 1));
      assert.equal(readFileSync(join(mount.target, 'top'), 'utf8'), '0');
      await engine.unmount(mount.target);
    });
  }

  test(`${tier}: names that mean something in an option string`, async (t) => {
    const root = join(tempDir(t, 'mount'), 'a,b:c\\d "e"');
    mkdirSync(root);
    const mount = stack(root, 2);
    await engine.mountOverlay({ ...mount, options: [] });
    assert.equal(readFileSync(join(mount.target, 'file-1'), 'utf8'), '1');
    assert.equal((await engine.mounts(root)).length, 1);
    await engine.unmount(mount.target);
  });

  test(`${tier}: a mount that fails leaves nothing and says why`, async (t) => {
    const root = tempDir(t, 'mount');
    const mount = stack(root, 2);
    const cases: [Partial<OverlayMount>, string, RegExp][] = [
      [{ options: ['no-such-option=1'] }, 'EINVAL', /cannot mount the layers/],
      [{ lowers: [join(root, 'missing')] }, 'ENOENT', /missing/],
      [{ lowers: [join(root, 'lower-0/file-0')] }, 'ENOTDIR', /file-0/],
      [{ target: join(root, 'missing') }, 'ENOENT', /missing/],
      [{ work: join(root, 'rw/diff') }, 'EINVAL', /cannot mount the layers/],
    ];
    for (const [change, errnoName, message] of cases) {
      await assert.rejects(engine.mountOverlay({ ...mount, options: [], ...change }), (error) => {
        assert.ok(LayerStoreError.is(error, 'ERR_SYSTEM'), String(error));
        assert.equal(error.errnoName, errnoName, error.message);
        assert.match(error.message, message);
        return true;
      });
      assert.deepEqual(below(root), []);
    }
  });

  test(`${tier}: mounting and unmounting leaves no descriptor behind`, async (t) => {
    const mount = stack(tempDir(t, 'mount'), 20);
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    await engine.mountOverlay({ ...mount, options: [] });
    await engine.unmount(mount.target);
    const before = descriptors();
    for (let round = 0; round < 30; round++) {
      await engine.mountOverlay({ ...mount, options: [] });
      await engine.unmount(mount.target);
      await assert.rejects(engine.mountOverlay({ ...mount, options: ['bad=option'] }));
    }
    assert.equal(descriptors(), before);
    assert.deepEqual(below(mount.target), []);
  });
}

test('a busy target tells who keeps it, and stays mounted', async (t) => {
  const engine = loadNativeEngine();
  const mount = stack(tempDir(t, 'mount'), 2);
  await engine.mountOverlay({ ...mount, options: [] });
  const fd = openSync(join(mount.target, 'file-1'), 'r');
  await assert.rejects(engine.unmount(mount.target), (error) => {
    assert.ok(LayerStoreError.is(error, 'ERR_SYSTEM'), String(error));
    assert.equal(error.errnoName, 'EBUSY');
    assert.deepEqual(
      error.holders?.map((holder) => holder.pid),
      [process.pid],
    );
    assert.match(error.message, new RegExp(`end the processes that use it: ${process.pid} \\(`));
    return true;
  });
  assert.equal((await engine.mounts(mount.target)).length, 1);
  closeSync(fd);
  await engine.unmount(mount.target);
  await assert.rejects(
    engine.unmount(mount.target),
    (error) => LayerStoreError.is(error, 'ERR_SYSTEM') && error.errnoName === 'EINVAL',
  );
});

test('a busy target can be detached', async (t) => {
  const engine = loadNativeEngine();
  const mount = stack(tempDir(t, 'mount'), 2);
  await engine.mountOverlay({ ...mount, options: [] });
  const fd = openSync(join(mount.target, 'file-1'), 'r');
  await engine.unmount(mount.target, { detach: true });
  assert.deepEqual(await engine.mounts(mount.target), []);
  closeSync(fd);
});

test('mounts are told by the name that was asked for, in mount order', async (t) => {
  const engine = loadNativeEngine();
  const root = tempDir(t, 'mount');
  const mount = stack(root, 2);
  await engine.mountOverlay({ ...mount, options: [] });
  await engine.mountOverlay({ lowers: mount.lowers, target: mount.target, options: [] });
  const found = await engine.mounts(root);
  assert.deepEqual(
    found.map((entry) => entry.target),
    [mount.target, mount.target],
    'stacked mounts show both',
  );
  assert.ok((found[0]?.id ?? 0) < (found[1]?.id ?? 0));
  await engine.unmount(mount.target);
  await engine.unmount(mount.target);
  rmSync(mount.target, { recursive: true });
  assert.deepEqual(await engine.mounts(mount.target), [], 'a directory that is gone has no mounts');
});
