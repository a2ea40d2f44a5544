/** In a relaxed store an overlay ends after its unmount has resolved: nobody may notice but by the time it takes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { LayerStoreError } from '../../src/errors.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { NOTHING, prepare, remains } from './store-support.js';

/** Descriptors that keep a file system whose mount is gone. */
function kept(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[fscontext]';
    } catch {
      return false; // the descriptor of this very listing
    }
  }).length;
}

async function untilNoneIsKept(): Promise<void> {
  for (let n = 0; kept() > 0; n++) {
    assert.ok(n < 3000, `${kept()} overlays are still there after a minute`);
    await setTimeout(20);
  }
}

test('an unmount resolves with the mount gone, and the overlay ends soon', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({ durability: 'relaxed' });
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  const rw = await store.createRWLayer('box', layer.chainID);
  writeFileSync(join(await rw.mount(), 'written'), 'text');
  await rw.unmount();
  assert.deepEqual(mountsBelow(place.root), []);
  assert.equal(kept(), 1);
  assert.equal((await rw.changes()).length, 1);
  await untilNoneIsKept();
  assert.equal(readFileSync(join(await rw.mount(), 'written'), 'utf8'), 'text');
  await rw.unmount();
  await store.releaseRWLayer(rw);
  await store.release(layer);
  await store.close();
  assert.equal(kept(), 0, 'close waits for it');
  assert.deepEqual(remains(place, 'overlay2'), NOTHING);
});

// With index=on the kernel refuses an upper directory that another overlay still uses.
test('a layer is mounted again at once, again and again, and no two overlays share its upper directory', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({
    durability: 'relaxed',
    driverOptions: { 'overlay2.mountopt': 'index=on' },
  });
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  const boxes = await Promise.all(['a', 'b', 'c'].map((name) => store.createRWLayer(name, layer.chainID)));
  await Promise.all(
    boxes.map(async (rw) => {
      for (let n = 0; n < 25; n++) {
        writeFileSync(join(await rw.mount(), `file${n}`), String(n));
        await rw.unmount();
        if (n % 5 === 0) await setTimeout(n * 2); // into the middle of an end
      }
      assert.equal((await rw.changes()).length, 25);
    }),
  );
  for (const rw of boxes) await store.releaseRWLayer(rw);
  await store.close();
  assert.deepEqual(mountsBelow(place.root), []);
  assert.equal(kept(), 0);
});

test('an init layer is done with before it is mounted below its RW layer', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({
    durability: 'relaxed',
    driverOptions: { 'overlay2.mountopt': 'index=on' },
  });
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  for (let n = 0; n < 10; n++) {
    const rw = await store.createRWLayer(`box-${n}`, layer.chainID, {
      initFunc: async (root) => writeFileSync(join(root, 'init'), String(n)),
    });
    assert.equal(readFileSync(join(await rw.mount(), 'init'), 'utf8'), String(n));
    await rw.unmount();
    await store.releaseRWLayer(rw);
  }
});

test('a commit takes the directory of a layer over whose overlay has ended', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({ durability: 'relaxed' });
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  const rw = await store.createRWLayer('box', layer.chainID);
  writeFileSync(join(await rw.mount(), 'written'), 'text');
  await rw.unmount();
  assert.equal(kept(), 1);
  const committed = await store.commit(rw, { consume: true });
  assert.equal(kept(), 0);
  assert.equal((await store.verify()).ok, true);
  await store.release(committed);
  await store.release(layer);
  await store.close();
  assert.deepEqual(remains(place, 'overlay2'), NOTHING);
});

test('a busy target is EBUSY, keeps its count and leaves nothing kept', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({ durability: 'relaxed' });
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  const rw = await store.createRWLayer('box', layer.chainID);
  const fd = openSync(join(await rw.mount(), 'etc/passwd'), 'r');
  await assert.rejects(rw.unmount(), (error) => LayerStoreError.is(error) && error.errnoName === 'EBUSY');
  assert.equal(kept(), 0);
  assert.equal(mountsBelow(place.root).length, 1);
  closeSync(fd);
  await rw.unmount();
  assert.deepEqual(mountsBelow(place.root), []);
  await store.releaseRWLayer(rw);
});

test('a strict store waits for the end of each overlay, and so do volatile mounts', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  for (const options of [
    { durability: 'strict' },
    { durability: 'relaxed', driverOptions: { 'overlay2.mountopt': 'volatile' } },
  ] as const) {
    const store = await place.open(options);
    const layer = await store.register({ path: place.tars[0]?.path ?? '' });
    const rw = await store.createRWLayer('box', layer.chainID);
    await rw.mount();
    await rw.unmount();
    assert.equal(kept(), 0, JSON.stringify(options));
    await store.releaseRWLayer(rw);
    await store.release(layer);
    await store.close();
  }
});

test('hundreds at once keep a bounded number of descriptors, and all of them end', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const store = await place.open({ durability: 'relaxed' });
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  let most = 0;
  const cycle = async (n: number): Promise<void> => {
    const rw = await store.createRWLayer(`box-${n}`, layer.chainID);
    await rw.mount();
    await rw.unmount();
    most = Math.max(most, kept());
    await store.releaseRWLayer(rw);
  };
  await Promise.all(
    Array.from({ length: 50 }, async (_, first) => {
      for (let n = 0; n < 8; n++) await cycle(first * 8 + n);
    }),
  );
  // 128 that wait, those that are ending just then, and one for each that is about to be counted.
  assert.ok(most > 0 && most <= 128 + 128 + 50, `${most} at once`);
  await untilNoneIsKept();
  await store.release(layer);
  await store.cleanup();
  await store.close();
  assert.deepEqual(remains(place, 'overlay2'), NOTHING);
});

test('a process that exits without closing its store waits for nothing and leaves nothing mounted', async (t) => {
  const place = prepare(t, 'native', 'overlay2');
  const script = `
    import { openStore } from ${JSON.stringify(new URL('../../src/index.ts', import.meta.url).href)};
    const store = await openStore({ root: ${JSON.stringify(place.root)}, driver: 'overlay2', engine: 'native', durability: 'relaxed' });
    const rw = await store.createRWLayer('box');
    await store.releaseRWLayer(rw);
    const layer = await store.register({ path: ${JSON.stringify(place.tars[0]?.path)} });
    const stays = await store.createRWLayer('stays', layer.chainID);
    await stays.mount();
    await stays.unmount();
    console.log('unmounted');
    process.exit(0);
  `;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '-e', script],
    { encoding: 'utf8', timeout: 60_000 },
  );
  assert.equal(status, 0, stderr);
  assert.equal(stdout, 'unmounted\n');
  assert.deepEqual(mountsBelow(place.root), []);
  const store = await place.open({
    durability: 'relaxed',
    driverOptions: { 'overlay2.mountopt': 'index=on' },
  });
  const rw = await store.getRWLayer('stays');
  await rw.mount();
  await rw.unmount();
  await store.close();
});
