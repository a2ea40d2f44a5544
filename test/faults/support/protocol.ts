/**
 * Every operation of the store's protocol once, in an order that leads through each of its branches. Each knows what it
 * may change and what it promises, so that a crash or a failure in any of its steps can be judged.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { createChainID, type ChainID, type DiffID } from '../../../src/digest.js';
import { hashFile } from '../../../src/store/without-store.js';
import type { Store } from '../../../src/store/types.js';
import type { Entry, Facts } from './promises.js';
import { sampleTar, type SampleTar } from './tars.js';

export interface Operation {
  name: string;
  /** Keys of the facts it may change. */
  may: readonly string[];
  /** One call, on a store that was opened anew: no handle is left of the operations before. */
  run(store: Store): Promise<Facts>;
}

const LANE = 77;
const tar = (index: number): SampleTar => sampleTar(LANE, index);
const stream = (index: number): Readable => Readable.from([tar(index).bytes]);
const chain = (...indexes: number[]): ChainID => createChainID(indexes.map((index) => tar(index).diffID)) as ChainID;
const layer = (chainID: ChainID): string => `layer:${chainID}`;

/** What box's changes are as a layer: computed from its tar when it is first committed. */
const written = tar(20);

export const FIRST: Facts = {
  [layer(chain(0))]: 'there',
  [layer(chain(0, 1))]: 'there',
  'ref:base': chain(0, 1),
};

/** A store with two layers that a reference keeps. */
export async function prepareProtocol(store: Store): Promise<void> {
  const top = await store.registerChain([0, 1].map((index) => ({ tar: stream(index), diffID: tar(index).diffID })));
  await store.retain(top.chainID, 'base');
  await store.release(top);
}

async function create(store: Store, name: string, parent: ChainID, init: boolean): Promise<Facts> {
  const initFunc = (root: string): void => writeFileSync(join(root, 'init'), 'init\n');
  await store.createRWLayer(name, parent, init ? { initFunc } : {});
  return { [`rw:${name}`]: 'there' };
}

/** Commits the changes that `fill` made: the layer is what their tar would be. */
async function commit(store: Store, name: string, consume: boolean): Promise<Facts> {
  const rw = await store.getRWLayer(name);
  const made = await store.commit(rw, { consume });
  return { [layer(made.chainID)]: 'there', ...(consume ? { [`rw:${name}`]: null } : {}) };
}

async function fill(store: Store, name: string): Promise<Facts> {
  const rw = await store.getRWLayer(name);
  await rw.applyDiff(Readable.from([written.bytes]));
  return {};
}

/** The second mount waits for what the first one left to be torn down later. */
async function mountTwice(store: Store, name: string): Promise<Facts> {
  const rw = await store.getRWLayer(name);
  for (const _ of [1, 2]) {
    await rw.mount();
    await rw.unmount();
  }
  return {};
}

async function view(store: Store, chainID: ChainID): Promise<Facts> {
  const layer = await store.get(chainID);
  const seen = await layer.view();
  await seen[Symbol.asyncDispose]();
  return {};
}

async function release(store: Store, chainID: ChainID): Promise<Facts> {
  const removed = await store.release(await store.get(chainID));
  return Object.fromEntries(removed.map((one) => [layer(one.chainID), null]));
}

/** The chain id that a commit of `fill`'s changes on `parent` gets. */
export async function committedOn(store: Store, name: string): Promise<ChainID> {
  const rw = await store.getRWLayer(name);
  const hash = createHash('sha256');
  for await (const chunk of await rw.tarStream()) hash.update(chunk as Buffer);
  return createChainID([`sha256:${hash.digest('hex')}` as DiffID], rw.parent?.chainID) as ChainID;
}

/** `boxed` is the chain id of box's commit, known from a first run without faults. */
export function protocol(boxed: ChainID): Operation[] {
  const there = (chainID: ChainID): Facts => ({ [layer(chainID)]: 'there' });
  return [
    {
      name: 'register',
      may: [layer(chain(0, 2))],
      run: async (store) => {
        await store.register(stream(2), chain(0));
        return there(chain(0, 2));
      },
    },
    {
      name: 'registerChain',
      may: [layer(chain(0, 3)), layer(chain(0, 3, 4))],
      run: async (store) => {
        const links = [3, 4].map((index) => ({ tar: stream(index), diffID: tar(index).diffID }));
        await store.registerChain(links, chain(0));
        return { ...there(chain(0, 3)), ...there(chain(0, 3, 4)) };
      },
    },
    {
      name: 'retain',
      may: ['ref:d'],
      run: async (store) => {
        await store.retain(chain(0, 3, 4), 'd');
        return { 'ref:d': chain(0, 3, 4) };
      },
    },
    { name: 'createRWLayer', may: ['rw:box'], run: (store) => create(store, 'box', chain(0, 1), false) },
    { name: 'createRWLayer, init layer', may: ['rw:init'], run: (store) => create(store, 'init', chain(0, 1), true) },
    { name: 'applyDiff', may: [], run: (store) => fill(store, 'box') },
    { name: 'mount', may: [], run: (store) => mountTwice(store, 'init') },
    { name: 'view', may: [], run: (store) => view(store, chain(0, 1)) },
    { name: 'commit', may: [layer(boxed)], run: (store) => commit(store, 'box', false) },
    { name: 'commit, there already', may: [layer(boxed)], run: (store) => commit(store, 'box', false) },
    { name: 'consume, there already', may: [layer(boxed), 'rw:box'], run: (store) => commit(store, 'box', true) },
    { name: 'release', may: [layer(boxed)], run: (store) => release(store, boxed) },
    { name: 'createRWLayer again', may: ['rw:eaten'], run: (store) => create(store, 'eaten', chain(0, 1), false) },
    { name: 'applyDiff again', may: [], run: (store) => fill(store, 'eaten') },
    { name: 'consume', may: [layer(boxed), 'rw:eaten'], run: (store) => commit(store, 'eaten', true) },
    {
      name: 'repair',
      may: [],
      run: async (store) => {
        await store.repair(chain(0), stream(0));
        return {};
      },
    },
    {
      name: 'releaseRWLayer',
      may: ['rw:init'],
      run: async (store) => {
        await store.releaseRWLayer(await store.getRWLayer('init'));
        return { 'rw:init': null };
      },
    },
    {
      name: 'dropReference',
      may: ['ref:d', layer(chain(0, 3)), layer(chain(0, 3, 4))],
      run: async (store) => {
        const removed = await store.dropReference('d');
        return { 'ref:d': null, ...Object.fromEntries(removed.map((one) => [layer(one.chainID), null])) };
      },
    },
  ];
}

/** Operations that promise nothing new: what they read fails too. They follow on `createRWLayer, init layer`. */
export function readings(): Operation[] {
  const reading = (name: string, read: (store: Store) => Promise<unknown>): Operation => ({
    name,
    may: [],
    run: async (store) => {
      await read(store);
      return {};
    },
  });
  return [
    reading('exportTo', async (store) => {
      const file = await open('/dev/null', 'w');
      try {
        await (await store.get(chain(0, 1))).exportTo({ fd: file.fd });
      } finally {
        await file.close();
      }
    }),
    reading('tarStream', async (store) => drain(await (await store.get(chain(0, 1))).tarStream())),
    reading('tarStreamFrom', async (store) => drain(await (await store.get(chain(0, 1))).tarStreamFrom(chain(0)))),
    reading('tarSize', async (store) => (await store.get(chain(0, 1))).tarSize()),
    reading('entries', async (store) => {
      for await (const entry of await (await store.get(chain(0, 1))).entries()) void entry;
    }),
    reading('verify', (store) => store.verify()),
    reading('changes', async (store) => (await store.getRWLayer('init')).changes()),
    reading('size', async (store) => (await store.getRWLayer('init')).size()),
    reading('usage', (store) => store.usage()),
    reading('gc', (store) => store.gc({ dryRun: true })),
    reading('hashFile', () => hashFile(import.meta.filename)),
  ];
}

async function drain(stream: Readable): Promise<void> {
  for await (const chunk of stream) void chunk;
}

/** Runs one operation and writes it down. */
export async function runOperation(
  store: Store,
  operation: Operation,
  op: number,
  log: (entry: Entry) => void,
): Promise<void> {
  log({ at: 'begin', op, what: operation.name, lane: LANE, may: operation.may });
  try {
    log({ at: 'done', op, facts: await operation.run(store) });
  } catch (error) {
    log({ at: 'failed', op, error: String(error) });
    throw error;
  }
}
