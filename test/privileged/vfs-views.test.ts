/** Views of vfs trees: counted with plain paths, and what is given where they cannot be mounted. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import type { Engine, OverlayMount } from '../../src/engine/engine.js';
import { LayerStoreError } from '../../src/errors.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { tempDir } from '../support/temp.js';
import { js, native, prepare, type FullDriver, type LogLine } from './driver-support.js';

/** `engine` whose overlay mounts fail with EINVAL where `refuses` says so; what was asked for is kept. */
function refusing(engine: Engine, refuses: (mount: OverlayMount) => boolean): Engine & { asked: OverlayMount[] } {
  const asked: OverlayMount[] = [];
  const mountOverlay: Engine['mountOverlay'] = (mount) => {
    asked.push(mount);
    if (!refuses(mount)) return engine.mountOverlay(mount);
    throw new LayerStoreError('ERR_SYSTEM', 'cannot mount: EINVAL', { errno: -22, errnoName: 'EINVAL' });
  };
  const own = { asked, mountOverlay };
  return new Proxy(engine as Engine & typeof own, {
    get: (target, name: keyof Engine) => {
      if (name in own) return own[name as keyof typeof own];
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

async function withTree(
  t: TestContext,
  engine: Engine,
  root?: string,
): Promise<{ driver: FullDriver; logged: LogLine[] }> {
  const place = prepare(t, engine, root);
  mkdirSync(join(place.root, 'layerstore'), { mode: 0o700 });
  const driver = await place.open({ driver: 'vfs' });
  await driver.create('tree');
  return { driver, logged: place.logged };
}

for (const [label, engine] of [
  ['native', native],
  ['js', js],
] as const) {
  for (const order of [
    ['get', 'view'],
    ['view', 'get'],
  ] as const) {
    test(`${label}: after ${order.join(' and ')} of one id the first put takes the path back, the second the view`, async (t) => {
      const { driver } = await withTree(t, engine);
      const paths: Record<string, string> = {};
      for (const call of order) paths[call] = await driver[call]('tree');
      const { get = '', view = '' } = paths;
      assert.notEqual(get, view);
      writeFileSync(join(get, 'x'), '');
      assert.deepEqual(mountsBelow(view), [view]);
      await driver.put('tree');
      assert.deepEqual(mountsBelow(view), [view]);
      assert.throws(() => writeFileSync(join(view, 'y'), ''), { code: 'EROFS' });
      await driver.put('tree');
      assert.deepEqual(mountsBelow(view), []);
      assert.equal(await driver.view('tree'), view, 'and it can be made again');
      await driver.put('tree');
      await driver.close();
    });
  }

  test(`${label}: get and put between view and put leave the view alone`, async (t) => {
    const { driver } = await withTree(t, engine);
    const view = await driver.view('tree');
    await driver.get('tree');
    await driver.put('tree');
    assert.deepEqual(mountsBelow(view), [view]);
    await driver.put('tree');
    assert.deepEqual(mountsBelow(view), []);
    await driver.close();
  });

  test(`${label}: where overlayfs takes nothing from the file system, a view is the tree itself`, async (t) => {
    // Overlays can be stacked twice, and the view would be the third.
    const directory = tempDir(t, 'stacked');
    const paths = ['lower', 'upper', 'work', 'merged', 'upper2', 'work2', 'root'].map((name) => join(directory, name));
    for (const path of paths) mkdirSync(path);
    const [lower, , , merged] = paths as [string, string, string, string];
    const mount = (lowers: string, upper: string, work: string, target: string): void => {
      const options = `lowerdir=${lowers},upperdir=${join(directory, upper)},workdir=${join(directory, work)}`;
      execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, target]);
    };
    mount(lower, 'upper', 'work', merged);
    const root = join(directory, 'root');
    mount(merged, 'upper2', 'work2', root);
    const { driver, logged } = await withTree(t, engine, root);
    const view = await driver.view('tree');
    assert.equal(view, await driver.get('tree'));
    assert.ok(logged.some(({ message }) => message.startsWith('a view is the tree itself')));
    await driver.put('tree');
    await driver.put('tree');
    assert.deepEqual(mountsBelow(join(root, 'layerstore')), []);
    await driver.close();
  });

  test(`${label}: a view that the kernel refuses although it takes the file system is an error`, async (t) => {
    const faulty = refusing(engine, ({ lowers }) => lowers[0]?.endsWith('/tree') === true);
    const { driver } = await withTree(t, faulty);
    await assert.rejects(driver.view('tree'), (error) => LayerStoreError.is(error) && error.errnoName === 'EINVAL');
    assert.equal(faulty.asked.length, 2);
    assert.deepEqual(mountsBelow((await driver.get('tree')).replace(/\/vfs\/.*/, '')), []);
    await driver.close();
  });
}
