/** Run by driver-faults.test.ts as a user without privileges: prints what the drivers did, as JSON. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { openDriver } from '../../src/driver/select.js';
import { openEngine } from '../../src/engine/select.js';
import { LayerStoreError } from '../../src/errors.js';
import { buildTar } from '../../src/testing/tar-builder.js';
import { silentLogger } from '../../src/util/logger.js';

const [root, engineName] = process.argv.slice(2) as [string, 'native' | 'js'];
const engine = await openEngine({ engine: engineName });
const options = {
  root,
  driver: 'auto',
  driverOptions: {},
  engine,
  durability: 'strict',
  readOnly: false,
  acceptVolatile: false,
  logger: silentLogger,
} as const;

const failureOf = async (work: Promise<unknown>): Promise<LayerStoreError> => {
  try {
    await work;
  } catch (error) {
    if (error instanceof LayerStoreError) return error;
    throw error;
  }
  throw new Error('it did not fail');
};

const overlay2 = await failureOf(openDriver({ ...options, driver: 'overlay2' }));
const driver = await openDriver(options);
const tar = (uid: number): Readable => Readable.from([buildTar([{ name: 'own', content: 'x', uid, gid: uid }])]);
await driver.create('base');
await driver.applyDiff('base', undefined, tar(65534), {});
await driver.createReadWrite('rw', 'base', {});
writeFileSync(join(await driver.get('rw'), 'new'), '');
await driver.create('foreign');
const foreign = await failureOf(driver.applyDiff('foreign', undefined, tar(0), {}));
await driver.remove('foreign');

console.log(
  JSON.stringify({
    driver: driver.name,
    tree: readdirSync(await driver.get('base')),
    changes: (await driver.changes('rw', 'base')).map(({ kind, path }) => `${kind} ${path}`),
    overlay2: overlay2.code,
    foreign: { code: foreign.code, errnoName: foreign.errnoName, path: foreign.path?.includes('own') },
    left: (await driver.list()).sort(),
  }),
);
