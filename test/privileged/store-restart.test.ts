/** Restarts: live mounts, killed processes, a mount that went away, a busy one. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LayerStoreError } from '../../src/errors.js';
import type { Store } from '../../src/store/types.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { runUntilItSpeaks } from '../support/other-process.js';
import { tempDir } from '../support/temp.js';
import { bytesOf, NOTHING, prepare, remains, type Place } from './store-support.js';

const code = (expected: string) => (error: unknown) => LayerStoreError.is(error) && error.code === expected;

/** Opens once a killed predecessor's lock is gone: the pure-JavaScript engine's helper ends a moment after it. */
async function reopen(place: Place): Promise<Store> {
  for (let round = 0; ; round += 1) {
    try {
      return await place.open();
    } catch (error) {
      if (!LayerStoreError.is(error, 'ERR_STORE_LOCKED') || round === 6_000) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Runs `body` in a process of its own, with `store` and `tars` in scope, and kills it when it prints "now". */
async function killed(place: Place, engine: string, driver: string, body: string): Promise<void> {
  const url = new URL('../../src/store/open.js', import.meta.url).href;
  const tars = place.tars.map(({ path, diffID }) => ({ path, diffID }));
  const script = `
    const { openStore } = await import(${JSON.stringify(url)});
    const store = await openStore(${JSON.stringify({ root: place.root, engine, driver })});
    const tars = ${JSON.stringify(tars)};
    const { createReadStream } = await import('node:fs');
    const now = () => new Promise(() => console.log('now'));
    ${body}`;
  await (await runUntilItSpeaks(script)).kill();
}

/** A process dies while it fills the init layer of "box", which stays mounted: where. */
async function killedInInit(place: Place, engine: string): Promise<string> {
  await killed(
    place,
    engine,
    'overlay2',
    `
    const layer = await store.register({ path: tars[0].path });
    await store.retain(layer.chainID, 'kept');
    await store.createRWLayer('box', layer.chainID, { initFunc: now });`,
  );
  const [mount, ...more] = mountsBelow(place.root);
  assert.ok(mount !== undefined && more.length === 0, 'the init layer is mounted');
  return mount;
}

/** Nothing of "box" is there, and it can be made again. */
async function assertOnlyTheLayer(place: Place, store: Store): Promise<void> {
  assert.deepEqual(mountsBelow(place.root), []);
  assert.equal(store.mounts().size, 0);
  const home = join(place.root, 'overlay2');
  assert.equal(readdirSync(home).filter((name) => /^[0-9a-f]{64}(-init)?$/.test(name)).length, 1, 'the layer alone');
  assert.deepEqual(readdirSync(join(place.root, 'layerstore', 'intents')), []);
  await store.releaseRWLayer(await store.createRWLayer('box', store.references()[0]?.chainID));
}

for (const engine of ['native', 'js'] as const) {
  test(`${engine}: killed while an init layer is filled, its mount and all of the RW layer go at the next open`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    await killedInInit(place, engine);
    const store = await reopen(place);
    await assertOnlyTheLayer(place, store);
    await store.close();
  });

  test(`${engine}: where that mount is busy, cleanup() takes it away as soon as it no longer is`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    const mount = await killedInInit(place, engine);
    const holder = spawn('sleep', ['1000'], { cwd: mount, stdio: 'ignore' });
    t.after(() => holder.kill('SIGKILL'));
    await once(holder, 'spawn');
    const store = await reopen(place);
    assert.ok(place.lines.some(({ message }) => message.startsWith('an unfinished layer cannot be removed')));
    const [left] = (await store.cleanup()).items;
    assert.equal(left, undefined, 'nothing could be removed yet');
    assert.deepEqual(mountsBelow(place.root), [mount]);
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    const { items } = await store.cleanup();
    assert.deepEqual(
      items.map(({ kind }) => kind),
      ['leftover'],
    );
    await assertOnlyTheLayer(place, store);
    await store.close();
  });

  test(`${engine}, vfs: a view of a killed daemon goes at the next open, and a new one can be made`, async (t) => {
    const place = prepare(t, engine, 'vfs');
    await killed(
      place,
      engine,
      'vfs',
      `
      const layer = await store.register({ path: tars[0].path });
      await store.retain(layer.chainID, 'kept');
      await layer.view();
      await now();`,
    );
    assert.equal(mountsBelow(place.root).length, 1);
    const store = await reopen(place);
    assert.deepEqual(mountsBelow(place.root), []);
    const [reference] = store.references();
    assert.ok(reference !== undefined);
    const layer = await store.get(reference.chainID);
    const [first, second] = [await layer.view(), await layer.view()];
    assert.equal(first.path, second.path);
    await first[Symbol.asyncDispose]();
    assert.throws(() => writeFileSync(join(second.path, 'x'), ''), { code: 'EROFS' });
    await second[Symbol.asyncDispose]();
    assert.deepEqual(mountsBelow(place.root), []);
    await store.close();
  });

  test(`${engine}: a daemon that is killed finds its live mounts again`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    await killed(
      place,
      engine,
      'overlay2',
      `
      const layer = await store.register({ path: tars[0].path });
      const box = await store.createRWLayer('box', layer.chainID);
      await box.mount(); await box.mount();
      const idle = await store.createRWLayer('idle', layer.chainID);
      const view = await layer.view();
      await now();`,
    );
    const before = mountsBelow(place.root);
    assert.ok(before.length >= 1);
    const store = await reopen(place);
    const info = store.mounts().get('box');
    assert.equal(info?.mountCount, 1);
    assert.ok(before.includes(info.path ?? ''));
    assert.equal(store.mounts().get('idle')?.mountCount, 0);
    const box = await store.getRWLayer('box');
    writeFileSync(join(info.path ?? '', 'x'), 'after the restart');
    assert.equal(await box.mount(), info.path);
    assert.equal(mountsBelow(place.root).filter((path) => path === info.path).length, 1, 'nothing is mounted twice');
    await box.unmount();
    await box.unmount();
    await assert.rejects(box.unmount(), code('ERR_NOT_MOUNTED'));
    assert.deepEqual(mountsBelow(place.root), [], 'the view of the dead process is gone too');
    assert.deepEqual(await box.changes(), [{ path: '/x', kind: 'add' }]);
    await store.releaseRWLayer(box);
    await store.releaseRWLayer(await store.getRWLayer('idle'));
    await store.close();
    assert.deepEqual(remains(place, 'overlay2'), NOTHING);
  });

  for (const driver of ['overlay2', 'vfs'] as const) {
    test(`${engine}, ${driver}: what a killed process had promised is there, what it had begun is not`, async (t) => {
      const place = prepare(t, engine, driver);
      await killed(
        place,
        engine,
        driver,
        `
        const layer = await store.register({ path: tars[0].path });
        await store.retain(layer.chainID, 'kept');
        await store.createRWLayer('box', layer.chainID, { initFunc: () => undefined });
        const stalled = (async function* () { yield* createReadStream(tars[1].path, { end: 4000 }); await now(); })();
        await store.register(stalled, layer.chainID);`,
      );
      const store = await reopen(place);
      assert.equal(store.map().size, 1);
      assert.deepEqual(
        store.references().map(({ name }) => name),
        ['kept'],
      );
      const [layer] = [...store.map().values()];
      assert.deepEqual(await bytesOf(await (layer as typeof layer & object).tarStream()), place.tars[0]?.bytes);
      assert.deepEqual((await store.cleanup()).foreign, []);
      await store.releaseRWLayer(await store.getRWLayer('box'));
      assert.equal((await store.dropReference('kept')).length, 1);
      await store.close();
      assert.deepEqual(remains(place, driver), NOTHING);
    });
  }

  test(`${engine}: killed while a tar is applied to a mounted RW layer, nothing but the tar's own is among its changes`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    // A file twice, then a file in the place of a directory that the layer below has; then it stalls.
    const directory = tempDir(t, 'replacing');
    const tar = join(directory, 'replacing.tar');
    for (const [mode, name] of [
      ['-cf', 'one'],
      ['-rf', 'one'],
      ['-rf', 'data'],
      ['-rf', 'last'],
      ['-rf', 'much'],
    ] as const) {
      // The last is more than what is read ahead.
      writeFileSync(join(directory, name), name === 'much' ? Buffer.alloc(3 << 20) : mode + name);
      execFileSync('tar', [mode, tar, '-C', directory, name]);
    }
    await killed(
      place,
      engine,
      'overlay2',
      `
      const layer = await store.register({ path: tars[0].path });
      const rw = await store.createRWLayer('box', layer.chainID);
      const merged = await rw.mount();
      const { existsSync } = await import('node:fs');
      const bytes = async function* () { yield* createReadStream(${JSON.stringify(tar)}, { end: 3 << 20 }); await new Promise(() => {}); };
      void rw.applyDiff(bytes());
      while (!existsSync(merged + '/much')) await new Promise((resolve) => setTimeout(resolve, 5));
      await now();`,
    );
    const store = await reopen(place);
    const box = await store.getRWLayer('box');
    const path = store.mounts().get('box')?.path ?? '';
    assert.deepEqual(readdirSync(path).sort(), ['data', 'etc', 'last', 'much', 'one']);
    assert.equal(readFileSync(join(path, 'one'), 'utf8'), '-rfone', 'the later one');
    const changes = [
      { path: '/data', kind: 'modify' },
      { path: '/last', kind: 'add' },
      { path: '/much', kind: 'add' },
      { path: '/one', kind: 'add' },
    ];
    assert.deepEqual(await box.changes(), changes);
    await box.unmount();
    assert.deepEqual(await box.changes(), changes);
    assert.equal(readdirSync(join(place.root, 'overlay2')).length, 3, 'a layer, an RW layer, the links');
    await store.releaseRWLayer(box);
    await store.close();
  });

  test(`${engine}: a mount that somebody took away is noticed`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    const store = await place.open();
    const layer = await store.register({ path: place.tars[0]?.path ?? '' });
    const box = await store.createRWLayer('box', layer.chainID);
    const path = await box.mount();
    execFileSync('umount', [path]);
    assert.equal(await box.mount(), path);
    assert.ok(existsSync(join(path, 'etc', 'passwd')), 'it is mounted again');
    assert.ok(place.lines.some(({ message }) => message.includes('vanished')));
    await box.unmount();
    execFileSync('umount', [path]);
    await box.unmount();
    assert.equal(box.mountCount, 0);
    await store.releaseRWLayer(box);
  });

  test(`${engine}: a busy mount stays counted, and the error names who holds it`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    const store = await place.open();
    const layer = await store.register({ path: place.tars[0]?.path ?? '' });
    const box = await store.createRWLayer('box', layer.chainID);
    const path = await box.mount();
    const holder = spawn('sleep', ['60'], { cwd: path, stdio: 'ignore' });
    await once(holder, 'spawn');
    await assert.rejects(box.unmount(), (error) => {
      assert.ok(LayerStoreError.is(error, 'ERR_SYSTEM'));
      assert.equal(error.errnoName, 'EBUSY');
      assert.ok(error.holders?.some(({ pid }) => pid === holder.pid));
      return true;
    });
    assert.equal(box.mountCount, 1);
    assert.equal(readFileSync(join(path, 'etc', 'passwd'), 'utf8').length, 11);
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    await box.unmount();
    await store.releaseRWLayer(box);
  });

  test(`${engine}: mounts stay at close, and are there for the next open in the same process`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    const store = await place.open();
    const layer = await store.register({ path: place.tars[0]?.path ?? '' });
    const box = await store.createRWLayer('box', layer.chainID);
    const path = await box.mount();
    await store.close();
    assert.deepEqual(mountsBelow(place.root), [path]);
    await assert.rejects(box.unmount(), code('ERR_STORE_CLOSED'));
    const again = await place.open();
    const back = await again.getRWLayer('box');
    assert.equal(back.mountCount, 1);
    await back.unmount();
    assert.deepEqual(mountsBelow(place.root), []);
    await again.releaseRWLayer(back);
  });
}
