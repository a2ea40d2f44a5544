/** Any byte of any record of a store changed: it opens all the same, works, stays within its root, and says what is wrong. */
import assert from 'node:assert/strict';
import { cpSync, lstatSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import test from 'node:test';
import fc from 'fast-check';
import { LayerStoreError } from '../../src/errors.js';
import { openStore } from '../../src/store/open.js';
import { buildTar } from '../../src/testing/tar-builder.js';
import { makeTempDir, removeTempDir } from '../support/temp.js';
import { holds } from './budget.js';

const base = buildTar([{ name: 'a', content: 'content' }]);
const top = buildTar([{ name: 'b', content: 'more' }]);

/** A closed store with two layers, an RW layer and a reference. */
async function makeStore(root: string): Promise<void> {
  const store = await openStore({ root, driver: 'overlay2', durability: 'relaxed' });
  const first = await store.register(Readable.from([base]));
  const second = await store.register(Readable.from([top]), first.chainID);
  await store.retain(second.chainID, 'kept');
  await store.createRWLayer('web', second.chainID);
  await store.close();
}

/** Every small file that is a record: not what layers hold. */
function recordsOf(root: string): string[] {
  return readdirSync(root, { recursive: true })
    .map((name) => join(root, String(name)))
    .filter(
      (path) => lstatSync(path).isFile() && !/\/(diff|work|merged)\/|\/lock$/.test(path) && lstatSync(path).size > 0,
    )
    .sort();
}

test('any byte of any record changed: the store opens, works and reports', async (t) => {
  const directory = makeTempDir('damage');
  t.after(() => removeTempDir(directory));
  const model = join(directory, 'model');
  await makeStore(model);
  const records = recordsOf(model).map((path) => relative(model, path));
  assert.ok(records.length >= 15, records.join(' '));
  const damage = fc.record({
    record: fc.constantFrom(...records),
    changes: fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { minLength: 1, maxLength: 3 }),
    cut: fc.option(fc.nat(200), { freq: 5 }),
  });
  const property = fc.asyncProperty(damage, async ({ record, changes, cut }) => {
    const scratch = makeTempDir('damaged');
    try {
      const root = join(scratch, 'root');
      cpSync(model, root, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
      const bytes = readFileSync(join(root, record));
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      writeFileSync(join(root, record), cut === null ? bytes : bytes.subarray(0, cut % (bytes.length + 1)));
      await survives(root);
      assert.deepEqual(readdirSync(scratch), ['root'], 'nothing outside the root');
    } finally {
      removeTempDir(scratch);
    }
  });
  await holds(t, property);
});

/** Opens, reads all that is there, registers a layer, closes. Only errors of the contract are allowed on the way. */
async function survives(root: string): Promise<void> {
  const store = await openStore({ root, driver: 'overlay2', durability: 'relaxed' });
  try {
    for (const layer of store.map().values()) {
      const handle = await store.get(layer.chainID);
      const exported = await attempt(async () => buffer(await handle.tarStream()));
      // What is given back at all is right.
      if (exported !== undefined) assert.ok(exported.equals(base) || exported.equals(top));
      await attempt(() => handle.size());
    }
    await attempt(async () => {
      const rw = await store.getRWLayer('web');
      await rw.mount();
      await rw.unmount();
    });
    await attempt(() => store.verify());
    await attempt(() => store.gc({ dryRun: true }));
    const fresh = await store.register(Readable.from([buildTar([{ name: 'fresh', content: 'f' }])]));
    assert.equal(await fresh.size(), 1);
  } finally {
    await store.close();
  }
}

async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    assert.ok(error instanceof LayerStoreError, String(error));
    return undefined;
  }
}
