/** RW layers whose record or mount point somebody else had a hand in, or whose intents lie elsewhere: nothing is left. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { prepare } from './store-support.js';

for (const durability of ['relaxed', 'strict'] as const) {
  for (const engine of ['native', 'js'] as const) {
    const left = (root: string): string[] => [
      ...readdirSync(join(root, 'layerstore/intents')),
      ...readdirSync(join(root, 'image/overlay2/layerdb/mounts')),
      ...readdirSync(join(root, 'image/overlay2/layerdb/tmp')),
      ...readdirSync(join(root, 'overlay2')).filter((name) => name !== 'l'),
      ...readdirSync(join(root, 'overlay2/l')),
    ];

    test(`${engine}, ${durability}: a record that vanished does not keep its RW layer from going`, async (t) => {
      const place = prepare(t, engine, 'overlay2');
      const { root } = place;
      const store = await place.open({ durability });
      const rw = await store.createRWLayer('box');
      rmSync(join(root, 'image/overlay2/layerdb/mounts/box'), { recursive: true });
      assert.deepEqual(await store.releaseRWLayer(rw), []);
      await store.cleanup();
      await store.close();
      assert.deepEqual(left(root), []);
    });

    test(`${engine}, ${durability}: a record that nobody knows of gives way to a new RW layer of its name`, async (t) => {
      const place = prepare(t, engine, 'overlay2');
      const { root, tars } = place;
      const store = await place.open({ durability });
      const layer = await store.register({ path: tars[0]?.path ?? '' });
      const stale = join(root, 'image/overlay2/layerdb/mounts/box');
      mkdirSync(stale);
      writeFileSync(join(stale, 'mount-id'), 'f'.repeat(64));
      const rw = await store.createRWLayer('box', layer.chainID);
      await rw.mount();
      assert.equal(mountsBelow(root).length, 1);
      await rw.unmount();
      assert.notEqual(await store.getMountID('box'), 'f'.repeat(64));
      await store.releaseRWLayer(rw);
      await store.release(layer);
      await store.cleanup();
      await store.close();
      assert.deepEqual(left(root), []);
      assert.deepEqual(mountsBelow(root), []);
    });

    test(`${engine}, ${durability}: an RW layer with a mount of somebody else's on it stays until that is gone`, async (t) => {
      const place = prepare(t, engine, 'overlay2');
      const { root, tars } = place;
      const store = await place.open({ durability });
      const layer = await store.register({ path: tars[0]?.path ?? '' });
      for (const options of [{}, { initFunc: () => undefined }]) {
        const rw = await store.createRWLayer('box', layer.chainID, options);
        const target = join(root, 'overlay2', await store.getMountID('box'), 'merged');
        mkdirSync(target);
        execFileSync('mount', ['-t', 'tmpfs', 'theirs', target]);
        try {
          await assert.rejects(store.releaseRWLayer(rw), { code: 'ERR_ACTIVE_MOUNT' });
        } finally {
          execFileSync('umount', [target]);
        }
        assert.deepEqual(await rw.changes(), []);
        await store.releaseRWLayer(rw);
      }
      await store.release(layer);
      await store.close();
      assert.deepEqual(left(root), []);
    });

    test(`${engine}, ${durability}: an RW layer that is read goes at once, and its files when nobody reads them`, async (t) => {
      const place = prepare(t, engine, 'overlay2');
      const { root } = place;
      for (const options of [{}, { initFunc: () => undefined }]) {
        const store = await place.open({ durability });
        const rw = await store.createRWLayer('box', undefined, options);
        const id = await store.getMountID('box');
        const stream = await rw.tarStream();
        await store.releaseRWLayer(rw);
        assert.deepEqual([...store.mounts().keys()], []);
        assert.deepEqual(readdirSync(join(root, 'layerstore/intents')), [id]);
        assert.ok(readdirSync(join(root, 'overlay2')).includes(id));
        assert.deepEqual((await store.cleanup()).items, []); // this process ends it
        stream.resume(); // its files go behind it, and close() waits for that
        await once(stream, 'close');
        await store.close();
        assert.deepEqual(left(root), []);
      }
    });

    test(`${engine}, ${durability}: intents on a file system of their own take no records`, async (t) => {
      const place = prepare(t, engine, 'overlay2');
      const { root, tars } = place;
      const intents = join(root, 'layerstore/intents');
      mkdirSync(intents, { recursive: true });
      execFileSync('mount', ['-t', 'tmpfs', 'intents', intents]);
      try {
        const store = await place.open({ durability });
        const layer = await store.register({ path: tars[0]?.path ?? '' });
        for (const [name, options] of [
          ['box', {}],
          ['another', { initFunc: () => undefined }],
        ] as const) {
          const rw = await store.createRWLayer(name, layer.chainID, options);
          await rw.mount();
          await rw.unmount();
          await store.releaseRWLayer(rw);
        }
        await store.release(layer);
        await store.cleanup();
        await store.close();
        assert.deepEqual(left(root), []);
      } finally {
        execFileSync('umount', [intents]);
      }
    });
  }
}
