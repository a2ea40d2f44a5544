/** What durability costs: syncs are counted where they are made. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { tempDir } from '../support/temp.js';
import { instrument } from './support/instrument.js';
import { sampleTar } from './support/tars.js';

async function counted(t: TestContext, durability: 'strict' | 'relaxed'): Promise<{ store: Store; steps: string[] }> {
  const root = join(tempDir(t, 'group'), 'root');
  const steps: string[] = [];
  t.after(instrument(root, { before: (step) => void steps.push(step) }));
  const store = await openStore({ root, engine: 'native', driver: 'overlay2', durability });
  t.after(() => store.close());
  steps.length = 0;
  return { store, steps };
}

const syncs = (steps: readonly string[]): number => steps.filter((step) => step === 'syncFs').length;
const source = (index: number): Readable => Readable.from([sampleTar(6, index).bytes]);

test('an image costs one data sync, however many layers it has', async (t) => {
  const { store, steps } = await counted(t, 'strict');
  await store.registerChain(
    [0, 1, 2, 3, 4, 5].map((index) => ({ tar: source(index), diffID: sampleTar(6, index).diffID })),
  );
  assert.equal(syncs(steps), 1);
});

test('registrations at once share data syncs', async (t) => {
  const { store, steps } = await counted(t, 'strict');
  const COUNT = 24;
  await Promise.all(Array.from({ length: COUNT }, (_, index) => store.register(source(10 + index))));
  t.diagnostic(`${COUNT} registrations, ${syncs(steps)} data syncs`);
  assert.ok(syncs(steps) >= 1 && syncs(steps) <= COUNT / 2, `${syncs(steps)} syncs`);
});

test('an RW layer is made without a sync of the file system', async (t) => {
  const { store, steps } = await counted(t, 'strict');
  const layer = await store.register(source(1));
  steps.length = 0;
  const rw = await store.createRWLayer('box', layer.chainID);
  await store.releaseRWLayer(rw);
  assert.equal(syncs(steps), 0);
  assert.ok(steps.some((step) => step.startsWith('fsync')));
});

test('relaxed: no sync of any kind', async (t) => {
  const { store, steps } = await counted(t, 'relaxed');
  const layer = await store.register(source(2));
  await store.retain(layer.chainID, 'name');
  const rw = await store.createRWLayer('box', layer.chainID);
  await store.commit(rw, { consume: true });
  assert.deepEqual(
    steps.filter((step) => step.startsWith('fsync') || step === 'syncFs'),
    [],
  );
});
