/** Whole stores in each way of mounting, and stacks as deep as overlayfs takes below a root of any length. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { ChainID } from '../../src/digest.js';
import { openStore } from '../../src/store/open.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { buildTar } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';

const SUITES = ['store-main', 'store-restart', 'driver-mounts', 'driver-commit'].map((name) =>
  join(import.meta.dirname, `${name}.test.ts`),
);

for (const tier of ['fd', 'lowerdir+', 'classic']) {
  test(`${tier}: the suites of stores and drivers pass where it is forced`, () => {
    // A run of its own, not a part of this one: the variable that says otherwise stays here.
    const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
    const words = ['--import', 'tsx', '--test', '--test-concurrency=1', '--test-name-pattern=^native', ...SUITES];
    const run = spawnSync(process.execPath, words, {
      encoding: 'utf8',
      env: { ...environment, LAYERSTORE_MOUNT_TIER: tier },
      maxBuffer: 64 << 20,
    });
    assert.equal(run.status, 0, run.stdout.slice(-20_000));
    assert.ok(Number(/# pass (\d+)/.exec(run.stdout)?.[1]) > 20, 'it ran the tests');
  });

  test(`${tier}: RW layers on 125 and on 500 layers, below a root of 3,000 bytes`, async (t) => {
    const before = process.env['LAYERSTORE_MOUNT_TIER'];
    t.after(() => {
      if (before === undefined) delete process.env['LAYERSTORE_MOUNT_TIER'];
      else process.env['LAYERSTORE_MOUNT_TIER'] = before;
    });
    process.env['LAYERSTORE_MOUNT_TIER'] = tier;
    let root = tempDir(t, 'deep');
    while (root.length < 2_900) root = join(root, 'd'.repeat(90));
    root = join(root, 'r'.repeat(3_000 - root.length - 1));
    assert.equal(root.length, 3_000);
    mkdirSync(root, { recursive: true });
    await using store = await openStore({
      root,
      driver: 'overlay2',
      engine: 'native',
      durability: 'relaxed',
      maxDepth: 500,
    });
    const chain: ChainID[] = [];
    for (let i = 1; i <= 500; i++) {
      const tar = buildTar([
        { name: `layer-${i}`, content: String(i) },
        { name: 'top', content: String(i) },
      ]);
      chain.push((await store.register(Readable.from([tar]), chain.at(-1))).chainID);
    }
    for (const depth of [125, 500]) {
      const rw = await store.createRWLayer(`box-${depth}`, chain[depth - 1]);
      const path = await rw.mount();
      assert.equal(readFileSync(join(path, 'top'), 'utf8'), String(depth));
      assert.equal(readFileSync(join(path, 'layer-1'), 'utf8'), '1');
      assert.equal(existsSync(join(path, `layer-${depth + 1}`)), false);
      writeFileSync(join(path, 'mine'), 'm');
      await rw.unmount();
      assert.deepEqual(await rw.changes(), [{ path: '/mine', kind: 'add' }]);
      await store.releaseRWLayer(rw);
    }
    assert.equal(new Map(store.driverStatus()).get('Mount tier'), tier);
    await assert.rejects(store.register(Readable.from([buildTar([{ name: 'x', content: '' }])]), chain.at(-1)), {
      code: 'ERR_MAX_DEPTH_EXCEEDED',
    });
    assert.deepEqual(mountsBelow(root), []);
  });
}
