/**
 * Power cuts: a store at work on a file system whose disk is an image; atomic clones of the image, taken before steps of
 * the protocol, right after promises and at random moments, are what a machine would find after losing power there.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { openStore } from '../../../src/store/open.js';
import { pick, seededRandom } from '../../support/random.js';
import { Disks, type FileSystem } from './disks.js';
import { instrument, type Mutation } from './instrument.js';
import { check, fold, leftovers, type Entry } from './promises.js';
import { makeBase, Workload } from './workload.js';

export interface PowerCutOptions {
  fileSystem: FileSystem;
  seed: number;
  /** Operations of each lane. */
  operations: number;
  /** Clones that are checked, spread over all that were taken. */
  clones: number;
  driver?: 'overlay2' | 'vfs';
  mutation?: Mutation;
  /** Default 2. */
  lanes?: number;
  /** Whether a clone is taken before a step; default: one in four, by chance. */
  cutAt?: (step: string) => boolean;
}

export interface PowerCutResult {
  taken: number;
  checked: number;
  promises: number;
  layers: number;
  rwLayers: number;
  losses: string[];
}

interface Clone {
  image: string;
  /** Entries of the log before the clone was taken. */
  from: number;
  where: string;
}

export async function powerCuts(t: Pick<TestContext, 'after'>, options: PowerCutOptions): Promise<PowerCutResult> {
  const disks = Disks.cloning(t);
  const { clones, log } = await work(disks, options);
  const result: PowerCutResult = { taken: clones.length, checked: 0, promises: 0, layers: 0, rwLayers: 0, losses: [] };
  const every = Math.max(1, clones.length / options.clones);
  for (let at = 0; at < clones.length; at += every) {
    const clone = clones[Math.floor(at)] as Clone;
    const found = await inspect(disks, clone, log, options);
    result.checked += 1;
    result.promises += found.promises;
    result.layers += found.layers;
    result.rwLayers += found.rwLayers;
    result.losses.push(...found.losses.map((loss) => `cut before "${clone.where}": ${loss}`));
  }
  return result;
}

async function work(disks: Disks, options: PowerCutOptions): Promise<{ clones: Clone[]; log: Entry[] }> {
  const { fileSystem, driver = 'overlay2', mutation, seed } = options;
  const image = disks.image(fileSystem);
  const place = disks.mount(image, fileSystem);
  const root = join(place, 'root');
  const random = seededRandom(seed);
  const log: Entry[] = [];
  const clones: Clone[] = [];
  const { lanes: count = 2, cutAt = () => pick(random, 4) === 0 } = options;
  let last = '';
  // Synchronous, so that no promise resolves in between; native threads go on as they like.
  const cut = (where: string): void => {
    const { mtimeNs } = statSync(image, { bigint: true });
    const state = `${mtimeNs} ${log.length}`;
    if (state === last) return;
    last = state;
    clones.push({ image: disks.clone(image), from: log.length, where });
  };
  let armed = false;
  const restore = instrument(root, {
    ...(mutation === undefined ? {} : { mutation }),
    before: (step) => {
      if (armed && cutAt(step)) cut(step);
    },
  });
  try {
    const store = await openStore({ root, engine: 'native', driver });
    let ops = 0;
    const write = (entry: Entry): void => {
      log.push(entry);
      if (armed && entry.at === 'done' && pick(random, 2) === 0) cut(`after operation ${entry.op}`);
    };
    await makeBase(store, write, (ops += 1));
    armed = true;
    const nextOp = (): number => (ops += 1);
    const lanes = Array.from({ length: count }, async (_, index) => {
      const lane = index + 1;
      const workload = await Workload.start({ store, log: write, random, lane, nextOp });
      for (let n = 0; n < options.operations; n += 1) await workload.step();
    });
    await Promise.all(lanes);
    armed = false;
    await store.close();
  } finally {
    restore();
  }
  disks.unmount(place);
  return { clones, log };
}

async function inspect(
  disks: Disks,
  { image, from }: Clone,
  log: readonly Entry[],
  { fileSystem, driver = 'overlay2' }: PowerCutOptions,
): Promise<{ promises: number; layers: number; rwLayers: number; losses: string[] }> {
  const place = disks.mount(image, fileSystem);
  const root = join(place, 'root');
  try {
    const store = await openStore({ root, engine: 'native', driver });
    try {
      const found = await check(store, fold(log, from));
      found.losses.push(...(await leftovers(store, root, driver)).map((what) => `left over: ${what}`));
      return found;
    } finally {
      await store.close();
    }
  } catch (error) {
    return { promises: 0, layers: 0, rwLayers: 0, losses: [`the store does not open: ${String(error)}`] };
  } finally {
    disks.unmount(place);
    disks.remove(image);
  }
}

export function summary(result: PowerCutResult): string {
  const { taken, checked, promises, layers, rwLayers, losses } = result;
  return `${checked} of ${taken} clones checked, ${promises} promises, ${layers} layers exported and compared, ${rwLayers} RW layers mounted, ${losses.length} losses`;
}
