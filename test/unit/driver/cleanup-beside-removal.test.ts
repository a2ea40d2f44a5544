/** Two that unlink one tree at the same time, by real engines: recovery begins a removal and cleanup() meets it. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Overlay2Driver } from '../../../src/driver/overlay2/driver.js';
import { mountProfile, parseMountOptions } from '../../../src/driver/options.js';
import type { DriverContext } from '../../../src/driver/context.js';
import { VfsDriver } from '../../../src/driver/vfs/driver.js';
import { createJsEngine } from '../../../src/engine/js/index.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { openStore } from '../../../src/store/open.js';
import { tempDir } from '../../support/temp.js';

const ID = 'd'.repeat(64);

/** Wide enough that two removers always meet in it. */
function fill(directory: string): void {
  for (let outer = 0; outer < 40; outer++) {
    for (let inner = 0; inner < 5; inner++) {
      const folder = join(directory, `outer-${outer}`, `inner-${inner}`);
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'file'), 'x');
    }
  }
}

function gather(): { logger: DriverContext['logger']; complaints: string[] } {
  const complaints: string[] = [];
  const note = (_fields: object, message: string): void => void complaints.push(message);
  return { logger: { debug() {}, info() {}, warn: note, error: note }, complaints };
}

function context(t: TestContext, engine: DriverContext['engine'], logger: DriverContext['logger']): DriverContext {
  const root = tempDir(t, 'driver');
  return {
    root,
    engine,
    durability: 'relaxed',
    readOnly: false,
    acceptVolatile: false,
    logger,
    privilege: 'full',
    ownersShifted: false,
    reason: 'a test',
  };
}

for (const engine of [loadNativeEngine(), createJsEngine()]) {
  const drivers = {
    overlay2(given: DriverContext) {
      const home = join(given.root, 'overlay2');
      mkdirSync(join(home, 'l'), { recursive: true });
      const profile = mountProfile(parseMountOptions(''), true);
      return { home, driver: new Overlay2Driver(given, { profile, size: undefined, labels: false, found: [] }) };
    },
    vfs(given: DriverContext) {
      const home = join(given.root, 'vfs', 'dir');
      mkdirSync(home, { recursive: true });
      return { home, driver: new VfsDriver(given, []) };
    },
  };
  for (const [name, make] of Object.entries(drivers)) {
    test(`${name}, ${engine.name}: cleanup beside a removal of the same layer ends with nothing left, and no complaint`, async (t) => {
      const { logger, complaints } = gather();
      const { home, driver } = make(context(t, engine, logger));
      await driver.create(ID);
      fill(join(home, ID, name === 'vfs' ? '' : 'diff'));
      const unlink = await driver.detach(ID);
      const first = unlink();
      await Promise.all([driver.cleanup(), driver.cleanup()]);
      assert.deepEqual(
        readdirSync(home).filter((entry) => entry !== 'l'),
        [],
      );
      await first;
      assert.deepEqual(complaints, []);
    });

    test(`${name}, ${engine.name}: a cleanup that is aborted returns without complaint, and the next one goes on`, async (t) => {
      const { logger, complaints } = gather();
      const { home, driver } = make(context(t, engine, logger));
      await driver.create(ID);
      fill(join(home, ID));
      await driver.detach(ID);
      await driver.cleanup(AbortSignal.abort());
      assert.equal(readdirSync(home).filter((entry) => entry.startsWith('.removing-')).length, 1);
      await driver.cleanup();
      assert.equal(readdirSync(home).filter((entry) => entry.startsWith('.removing-')).length, 0);
      assert.deepEqual(complaints, []);
    });
  }

  for (const [name, make] of Object.entries(drivers)) {
    test(`${name}, ${engine.name}: what is to be removed is counted until it is gone`, async (t) => {
      const { logger } = gather();
      const { home, driver } = make(context(t, engine, logger));
      const told = async (): Promise<unknown[]> =>
        (await driver.leftovers()).map(({ pending, inodes, bytes }) => ({
          pending,
          many: inodes > 400,
          bytes: bytes > 0,
        }));
      await driver.create(ID);
      fill(join(home, ID));
      const unlink = await driver.detach(ID);
      assert.deepEqual(await told(), [{ pending: true, many: true, bytes: true }]);
      await assert.rejects(unlink(AbortSignal.abort()));
      assert.deepEqual(await told(), [{ pending: false, many: true, bytes: true }]);
      await driver.cleanup(AbortSignal.abort());
      assert.deepEqual(await told(), [{ pending: false, many: true, bytes: true }], 'nobody is at it any more');
      await driver.cleanup();
      assert.deepEqual(await told(), []);
    });
  }

  test(`${engine.name}: cleanup() right after an open that found an unfinished layer leaves nothing of it`, async (t) => {
    const root = tempDir(t, 'store');
    const { logger, complaints } = gather();
    const options = { root, engine: engine.name, driver: 'vfs', logger } as const;
    await (await openStore(options)).close();
    const home = join(root, 'vfs', 'dir');
    for (let round = 0; round < 2; round++) fill(join(home, ID, String(round)));
    writeFileSync(join(root, 'layerstore', 'intents', ID), '{"kind":"layer"}');
    await using store = await openStore(options);
    await store.cleanup();
    assert.deepEqual(readdirSync(home), []);
    assert.deepEqual(complaints, []);
  });
}
