/**
 * Random work on a store, written down as promises. Lanes run at the same time and share nothing but the base layer, so
 * that the order in which their promises resolve is the order of what happened.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createChainID, type ChainID, type DiffID } from '../../../src/digest.js';
import { LayerStoreError, systemError } from '../../../src/errors.js';
import type { Layer, RWLayer, Store } from '../../../src/store/types.js';
import { pick } from '../../support/random.js';
import type { Entry, Expected, Facts } from './promises.js';
import { sampleTar, sourceOf } from './tars.js';

export interface WorkloadOptions {
  store: Store;
  log: (entry: Entry) => void;
  random: () => number;
  lane: number;
  /** Counts the operations of all lanes and processes. */
  nextOp: () => number;
  /** Layers and RW layers of this lane that are there already. */
  layers?: readonly ChainID[];
  rwLayers?: readonly string[];
  references?: ReadonlyMap<string, ChainID>;
  /** What a rejection may be; others end the run. Default: none may. */
  mayFail?: (error: unknown) => boolean;
  /** `false`: RW layers are not mounted (a crash would leave the mount). Default true. */
  mounts?: boolean;
}

const TARS = 8;
const MOST_LAYERS = 10;
const MOST_RW_LAYERS = 4;
export const BASE_LANE = 0;

/** The layer that all lanes build on, kept by the reference `base`. */
export async function makeBase(store: Store, log: (entry: Entry) => void, op: number): Promise<void> {
  const tar = sampleTar(BASE_LANE, 0);
  const chainID = createChainID([tar.diffID]) as ChainID;
  log({ at: 'begin', op, what: 'base', lane: BASE_LANE, may: [`layer:${chainID}`, 'ref:base'] });
  await store.register(
    sourceOf(tar, () => 0.9),
    undefined,
    { diffID: tar.diffID },
  );
  await store.retain(chainID, 'base');
  log({ at: 'done', op, facts: { [`layer:${chainID}`]: 'there', 'ref:base': chainID } });
}

export const baseChain = (): ChainID => createChainID([sampleTar(BASE_LANE, 0).diffID]) as ChainID;

/** Names of RW layers made in this process. */
let names = 0;

export class Workload {
  readonly #options: WorkloadOptions;
  readonly #store: Store;
  /** Handles of this process, one a layer. */
  readonly #layers = new Map<ChainID, Layer>();
  readonly #rwLayers = new Map<string, RWLayer>();
  readonly #references: Map<string, ChainID>;

  private constructor(options: WorkloadOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#references = new Map(options.references);
  }

  static async start(options: WorkloadOptions): Promise<Workload> {
    const made = new Workload(options);
    for (const chainID of options.layers ?? []) made.#layers.set(chainID, await options.store.get(chainID));
    for (const name of options.rwLayers ?? []) made.#rwLayers.set(name, await options.store.getRWLayer(name));
    return made;
  }

  /** Goes on with what a lane had when its process or its store ended. */
  static resume(options: WorkloadOptions, { sure, lanes }: Expected): Promise<Workload> {
    const own = [...sure].filter(([key]) => lanes.get(key) === options.lane);
    const named = (kind: string): [string, string][] =>
      own.filter(([key]) => key.startsWith(kind)).map(([key, value]) => [key.slice(kind.length), value]);
    return Workload.start({
      ...options,
      layers: named('layer:').map(([chainID]) => chainID as ChainID),
      rwLayers: named('rw:').map(([name]) => name),
      references: new Map(named('ref:') as [string, ChainID][]),
    });
  }

  /** One random operation. */
  async step(): Promise<void> {
    const { random } = this.#options;
    const roll = pick(random, 100);
    const layer = this.#one([...this.#layers.keys()]);
    const rw = this.#one([...this.#rwLayers.keys()]);
    if (roll < 22 && this.#layers.size < MOST_LAYERS) return this.register();
    if (roll < 32 && this.#layers.size < MOST_LAYERS) return this.registerChain();
    if (roll < 42 && layer !== undefined) return this.retain(layer);
    if (roll < 50) return this.drop();
    if (roll < 62 && this.#rwLayers.size < MOST_RW_LAYERS) return this.createRW(pick(random, 3) === 0);
    if (roll < 72 && rw !== undefined) return this.write(rw);
    if (roll < 82 && rw !== undefined) return this.commit(rw, pick(random, 2) === 0);
    if (roll < 88 && rw !== undefined) return this.releaseRW(rw);
    if (roll < 91 && layer !== undefined) return this.repair(layer);
    if (layer !== undefined) return this.release(layer);
    return this.register();
  }

  async register(): Promise<void> {
    const { random, lane } = this.#options;
    const tar = sampleTar(lane, pick(random, TARS));
    const parent = this.#parent();
    const chainID = createChainID([tar.diffID], parent) as ChainID;
    await this.#op('register', [`layer:${chainID}`], async () => {
      const options = pick(random, 2) === 0 ? {} : { diffID: tar.diffID };
      await this.#keep(await this.#store.register(sourceOf(tar, random), parent, options));
      return { [`layer:${chainID}`]: 'there' };
    });
  }

  async registerChain(): Promise<void> {
    const { random, lane } = this.#options;
    const parent = this.#parent();
    const links = [0, 1, 2].map(() => sampleTar(lane, pick(random, TARS)));
    const keys: string[] = [];
    let below = parent;
    for (const { diffID } of links) {
      below = createChainID([diffID], below);
      keys.push(`layer:${below}`);
    }
    await this.#op('registerChain', keys, async () => {
      const layers = links.map((tar) => ({ tar: sourceOf(tar, random), diffID: tar.diffID }));
      await this.#keep(await this.#store.registerChain(layers, parent));
      return Object.fromEntries(keys.map((key) => [key, 'there']));
    });
  }

  async retain(chainID: ChainID): Promise<void> {
    const name = `lane-${this.#options.lane}-${pick(this.#options.random, 5)}`;
    if (this.#references.has(name)) return;
    await this.#op('retain', [`ref:${name}`], async () => {
      await this.#store.retain(chainID, name);
      this.#references.set(name, chainID);
      return { [`ref:${name}`]: chainID };
    });
  }

  async drop(): Promise<void> {
    const name = this.#one([...this.#references.keys()]);
    if (name === undefined) return;
    await this.#op('dropReference', [`ref:${name}`, ...this.#chainOf(this.#references.get(name))], async () => {
      const removed = await this.#store.dropReference(name);
      this.#references.delete(name);
      return { [`ref:${name}`]: null, ...gone(removed) };
    });
  }

  async release(chainID: ChainID): Promise<void> {
    const layer = this.#layers.get(chainID) as Layer;
    await this.#op('release', this.#chainOf(chainID), async () => {
      const removed = await this.#store.release(layer);
      this.#layers.delete(chainID);
      return gone(removed);
    });
  }

  async repair(chainID: ChainID): Promise<void> {
    const layer = this.#layers.get(chainID) as Layer;
    await this.#op('repair', [], async () => {
      await this.#store.repair(chainID, await layer.tarStream());
      return {};
    });
  }

  async createRW(withInit: boolean): Promise<void> {
    const { random, lane } = this.#options;
    const name = `rw-${lane}-${process.pid}-${(names += 1)}`;
    const initFunc = withInit ? (root: string) => write(join(root, 'resolv.conf'), name) : undefined;
    await this.#op('createRWLayer', [`rw:${name}`], async () => {
      const parent = pick(random, 6) === 0 ? undefined : (this.#parent() ?? baseChain());
      const rw = await this.#store.createRWLayer(name, parent, initFunc === undefined ? {} : { initFunc });
      this.#rwLayers.set(name, rw);
      return { [`rw:${name}`]: 'there' };
    });
  }

  async write(name: string): Promise<void> {
    const rw = this.#rwLayers.get(name) as RWLayer;
    const { random } = this.#options;
    await this.#op('write', [], async () => {
      if (this.#options.mounts === false) {
        await rw.applyDiff(sourceOf(sampleTar(90, pick(random, 20)), random));
        return {};
      }
      const path = await rw.mount();
      try {
        write(join(path, `file-${pick(random, 50)}`), Buffer.alloc(pick(random, 20_000), name));
      } finally {
        await rw.unmount();
      }
      return {};
    });
  }

  /** The layer's id is known before: a commit is what its tar registered would be. */
  async commit(name: string, consume: boolean): Promise<void> {
    const rw = this.#rwLayers.get(name) as RWLayer;
    const diffID = await this.#diffIDOf(rw);
    if (diffID === undefined) return;
    const chainID = createChainID([diffID], rw.parent?.chainID) as ChainID;
    const keys = [`layer:${chainID}`, ...(consume ? [`rw:${name}`] : [])];
    await this.#op(consume ? 'commit, consuming' : 'commit', keys, async () => {
      const layer = await this.#store.commit(rw, { consume });
      if (layer.chainID !== chainID) throw new Error(`a commit gave ${layer.chainID} where its tar says ${chainID}`);
      await this.#keep(layer);
      if (consume) this.#rwLayers.delete(name);
      return { [`layer:${chainID}`]: 'there', ...(consume ? { [`rw:${name}`]: null } : {}) };
    });
  }

  /** Of its changes; `undefined` where they cannot be read, and that may be. */
  async #diffIDOf(rw: RWLayer): Promise<DiffID | undefined> {
    const hash = createHash('sha256');
    try {
      for await (const chunk of await rw.tarStream()) hash.update(chunk as Buffer);
    } catch (error) {
      if (this.#options.mayFail?.(error) === true && LayerStoreError.is(error)) return undefined;
      throw error;
    }
    return `sha256:${hash.digest('hex')}` as DiffID;
  }

  async releaseRW(name: string): Promise<void> {
    const rw = this.#rwLayers.get(name) as RWLayer;
    await this.#op('releaseRWLayer', [`rw:${name}`, ...this.#chainOf(rw.parent?.chainID)], async () => {
      const removed = await this.#store.releaseRWLayer(rw);
      this.#rwLayers.delete(name);
      return { [`rw:${name}`]: null, ...gone(removed) };
    });
  }

  /** Everything of this lane goes. */
  async clear(): Promise<void> {
    for (const name of [...this.#rwLayers.keys()]) await this.releaseRW(name);
    while (this.#references.size > 0) await this.drop();
    for (const chainID of [...this.#layers.keys()]) await this.release(chainID);
  }

  async #op(what: string, may: readonly string[], work: () => Promise<Facts>): Promise<void> {
    const op = this.#options.nextOp();
    this.#options.log({ at: 'begin', op, what, lane: this.#options.lane, may });
    let facts: Facts;
    try {
      facts = await work();
    } catch (error) {
      this.#options.log({ at: 'failed', op, error: String(error) });
      if (this.#options.mayFail?.(error) === true && LayerStoreError.is(error)) return;
      throw new Error(`${what}: ${String(error)}`, { cause: error });
    }
    this.#options.log({ at: 'done', op, facts });
  }

  /** One handle a layer is enough: a second one goes at once, which removes nothing. */
  async #keep(layer: Layer): Promise<void> {
    if (this.#layers.has(layer.chainID)) await this.#store.release(layer);
    else this.#layers.set(layer.chainID, layer);
  }

  #parent(): ChainID | undefined {
    const roll = pick(this.#options.random, 4);
    if (roll === 0) return undefined;
    return (roll === 1 ? undefined : this.#one([...this.#layers.keys()])) ?? baseChain();
  }

  /** A layer and all below it but the base: what its release may take along. */
  #chainOf(chainID: ChainID | undefined): string[] {
    const keys: string[] = [];
    let layer = chainID === undefined ? undefined : this.#store.map().get(chainID);
    for (; layer !== undefined; layer = layer.parent) {
      if (layer.chainID !== baseChain()) keys.push(`layer:${layer.chainID}`);
    }
    return keys;
  }

  #one<T>(values: readonly T[]): T | undefined {
    return values.length === 0 ? undefined : values[pick(this.#options.random, values.length)];
  }
}

/** What the workload itself writes fails as the store does, which hands on the error of an `initFunc` as it is. */
function write(path: string, content: string | Uint8Array): void {
  try {
    writeFileSync(path, content);
  } catch (error) {
    throw systemError(error, 'write the file');
  }
}

function gone(removed: readonly { chainID: ChainID }[]): Facts {
  return Object.fromEntries(removed.map(({ chainID }) => [`layer:${chainID}`, null]));
}
