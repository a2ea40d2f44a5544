/** One layer from a tar: unpacked into a draft, made durable, published; equal registrations at once are done once. */
import { availableParallelism } from 'node:os';
import { type ChainID, createChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { Engine, Progress, TarSource } from '../engine/engine.js';
import { digestMismatch, invalidArgument } from '../errors.js';
import type { Descriptor, LayerRecord } from '../metadata/metadata-store.js';
import { anySignal, raceAbort } from '../util/abort.js';
import { mapConcurrent } from '../util/concurrent.js';
import { defined } from '../util/defined.js';
import type { SingleFlight } from '../util/single-flight.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../util/throttle.js';
import type { Draft, Drafts } from './draft.js';
import type { LayerHandles } from './layer-handle.js';
import type { LayerMap, LayerNode } from './layer-map.js';
import type { Observed } from './lifecycle.js';
import type { Removals } from './removal.js';
import { isFile, sourceIdentity } from './source.js';
import type { ChainLink, Layer, RegisterOptions } from './types.js';
import type { Verification } from './verify.js';

/** Layers unpacked at once: one keeps about two threads busy, and two at least hide each other's waits. */
const SIDE_BY_SIDE = Math.max(2, Math.ceil(availableParallelism() / 2));

interface Link extends ChainLink {
  chainID: ChainID;
}

/** The pins of one chain, bottom first. Each is held until the end of the call, also when the call fails. */
class Pins {
  readonly #nodes: LayerNode[] = [];
  readonly #made: LayerNode[] = [];

  get top(): LayerNode | undefined {
    return this.#nodes.at(-1);
  }

  /** Adds a node that was pinned for this chain. */
  add(node: LayerNode): void {
    this.#nodes.push(node);
  }

  /** Adds the pin of a layer that this call published. */
  addMade(node: LayerNode): void {
    this.#made.push(node);
    this.add(node);
  }

  /** After a failure: ends the pins and removes the published layers that nothing else keeps. */
  abandonMade(): void {
    for (const node of this.#made) if (node.handles === 0) node.abandoned = true;
  }

  /** Top first, because removing a layer removes its unused parents. */
  async release(removals: Removals): Promise<void> {
    for (const node of this.#nodes.splice(0).reverse()) await removals.unpin(node);
  }
}

interface RegistrationParts {
  readonly drafts: Drafts;
  readonly driver: Driver;
  readonly engine: Engine;
  readonly flights: SingleFlight<LayerNode>;
  readonly handles: LayerHandles;
  readonly layers: LayerMap;
  readonly removals: Removals;
  readonly verification: Verification;
}

export class Registrations {
  readonly #parts: RegistrationParts;

  constructor(parts: RegistrationParts) {
    this.#parts = parts;
  }

  async register(
    tar: TarSource,
    parentID: ChainID | undefined,
    options: Observed<RegisterOptions>,
    descriptor?: Descriptor,
  ): Promise<Layer> {
    let parent: LayerNode | undefined;
    try {
      options.signal?.throwIfAborted();
      parent = this.#parts.layers.pinParent(parentID, 1);
      return await this.#registerOnce(tar, parent, options, descriptor);
    } finally {
      await this.#parts.removals.unpin(parent);
    }
  }

  /** Waits for an equal registration under way, or is the one that others wait for. */
  async #registerOnce(
    tar: TarSource,
    parent: LayerNode | undefined,
    options: Observed<RegisterOptions>,
    descriptor: Descriptor | undefined,
  ): Promise<Layer> {
    const { signal, diffID } = options;
    const expected = diffID === undefined ? undefined : createChainID([diffID], parent?.chainID);
    const identity = await sourceIdentity(tar);
    // By chain id an equal layer of a chain is one with this, whoever was first. Without a diff id the chain id is known only
    // when all is unpacked: equal files are told by their identity among such calls, equal streams and a chain's not at all.
    // What comes out twice then is published once.
    // The descriptor is part of what a file must fit; a known chain id is one layer whatever it came in.
    const key = expected ?? (identity && `${parent?.chainID ?? ''} ${identity} ${JSON.stringify(descriptor ?? null)}`);
    let joined = false;
    for (;;) {
      signal?.throwIfAborted();
      const there = expected === undefined ? undefined : this.#parts.layers.find(expected);
      if (there !== undefined) {
        there.pins += 1; // before the first await, so that it stays
        try {
          await this.#reuse(there, tar, options, descriptor, joined);
          return this.#parts.handles.create(there);
        } finally {
          await this.#parts.removals.unpin(there);
        }
      }
      const flight = key === undefined ? undefined : this.#parts.flights.of(key);
      if (flight === undefined) break;
      const outcome = await raceAbort(flight, signal);
      joined = true;
      if (outcome !== undefined && !outcome.gone && outcome.parent === parent)
        return this.#parts.handles.create(outcome);
    }
    const finish = key === undefined ? undefined : this.#parts.flights.start([key]);
    let node: LayerNode | undefined;
    try {
      node = await this.#registerDraft(tar, parent, options, descriptor);
      return this.#parts.handles.create(node);
    } finally {
      finish?.(node);
      await this.#parts.removals.unpin(node);
    }
  }

  /** The layer is there: its contents are checked if asked for, and the tar is checked against what it should be. */
  async #reuse(
    node: LayerNode,
    tar: TarSource,
    options: Observed<RegisterOptions>,
    descriptor: Descriptor | undefined,
    joined: boolean,
  ): Promise<void> {
    if (options.verifyExisting === true && (await this.#parts.verification.isDamaged(node, options.signal))) {
      await this.#parts.verification.repairLayer(node, tar, options, descriptor);
      return;
    }
    if (joined || options.verifyExisting === true) return;
    if (isFile(tar) && tar.offset === undefined) {
      const found = await this.#parts.engine.hashFile(tar.path, defined({ signal: options.signal }));
      check('the diff id of the tar', found.diffID, node.diffID);
      if (descriptor !== undefined) {
        check('the digest of the blob', found.digest, descriptor.digest);
        check('the size of the blob in bytes', found.size, descriptor.size);
      }
      return;
    }
    // A stream is checked by unpacking it into a draft that is discarded.
    const draft = await this.#parts.drafts.begin({ kind: 'layer' }, options);
    try {
      await this.#unpack(draft, node.parent, tar, options, descriptor);
    } finally {
      await this.#parts.drafts.discard(draft);
    }
  }

  async #unpack(
    draft: Draft,
    parent: LayerNode | undefined,
    tar: TarSource,
    options: Observed<RegisterOptions>,
    descriptor: Descriptor | undefined,
  ): Promise<void> {
    await this.#parts.driver.create(draft.cacheID, parent?.cacheID);
    await this.#parts.drafts.unpack(
      draft,
      parent,
      tar,
      this.#parts.drafts.applyOptions(options, descriptor),
      descriptor,
    );
  }

  /** Makes the layer; the node comes back with a pin. */
  async #registerDraft(
    tar: TarSource,
    parent: LayerNode | undefined,
    options: Observed<RegisterOptions>,
    descriptor: Descriptor | undefined,
  ): Promise<LayerNode> {
    const draft = await this.#parts.drafts.begin({ kind: 'layer' }, options);
    let node: LayerNode | undefined;
    try {
      await this.#unpack(draft, parent, tar, options, descriptor);
      await this.#parts.drafts.sync([draft.cacheID], options.signal);
      // A chain that makes the same layer also makes layers above it, bound to its own directory: wait for it.
      if (options.diffID === undefined) await this.#parts.flights.of((draft.record as LayerRecord).chainID);
      options.signal?.throwIfAborted();
      const published = await this.#parts.drafts.publish(draft, parent);
      node = published.node;
      if (published.fresh) {
        await this.#parts.drafts.end(draft);
        return node;
      }
      if (options.verifyExisting === true && (await this.#parts.verification.isDamaged(node, options.signal))) {
        await this.#parts.verification.exchangeDraft(node, draft);
      }
      await this.#parts.drafts.discard(draft);
      return node;
    } catch (error) {
      await this.#parts.drafts.discard(draft);
      await this.#parts.removals.unpin(node);
      throw error;
    }
  }

  async registerChain(
    layers: readonly ChainLink[],
    parentID: ChainID | undefined,
    options: Observed<RegisterOptions>,
  ): Promise<Layer> {
    const pins = new Pins();
    try {
      options.signal?.throwIfAborted();
      if (layers.length === 0) {
        if (parentID === undefined)
          throw invalidArgument('registerChain() needs a layer, or a parent to give a handle on');
        return this.#parts.handles.create(this.#parts.layers.require(parentID));
      }
      const parent = this.#parts.layers.pinParent(parentID, layers.length);
      if (parent !== undefined) pins.add(parent);
      await this.#registerLinks(withChainIDs(layers, parentID), pins, options);
      return this.#parts.handles.create(pins.top as LayerNode); // a chain that is not empty has one
    } catch (error) {
      pins.abandonMade();
      throw error;
    } finally {
      await pins.release(this.#parts.removals);
    }
  }

  /** Walks up the chain: pins layers that exist, waits for layers that other calls make, and makes the rest. */
  async #registerLinks(links: readonly Link[], pins: Pins, options: Observed<RegisterOptions>): Promise<void> {
    let index = 0;
    while (index < links.length) {
      const link = links[index] as Link;
      const there = this.#parts.layers.find(link.chainID);
      if (there !== undefined) {
        there.pins += 1;
        pins.add(there);
        index += 1;
        continue;
      }
      const flight = this.#parts.flights.of(link.chainID);
      if (flight !== undefined) {
        await raceAbort(flight, options.signal);
        continue;
      }
      // No call makes this layer, so none makes a layer above it, which would need it as a parent.
      const rest = links.slice(index);
      const finish = this.#parts.flights.start(rest.map(({ chainID }) => chainID));
      try {
        await this.#makeLinks(rest, pins, options);
      } finally {
        finish();
      }
      index = links.length;
    }
  }

  /** Makes all of `links` on the top of `pins`, where the pins of what is published go. */
  async #makeLinks(links: readonly Link[], pins: Pins, options: Observed<RegisterOptions>): Promise<void> {
    const parent = pins.top;
    const drafts: Draft[] = [];
    let published = 0;
    let overtaken = false;
    const failed = new AbortController();
    const signal = anySignal(options.signal, failed.signal) as AbortSignal; // two are given
    const report = sumOfProgress(options, links.length);
    const below = (index: number): { chainID: ChainID; cacheID: string } | undefined =>
      index === 0
        ? parent
        : { chainID: (links[index - 1] as Link).chainID, cacheID: (drafts[index - 1] as Draft).cacheID };
    const create = async (index: number): Promise<void> => {
      const draft = await this.#parts.drafts.begin({ kind: 'layer' }, options);
      drafts[index] = draft;
      await this.#parts.driver.create(draft.cacheID, below(index)?.cacheID);
    };
    const unpack = async (link: Link, index: number): Promise<void> => {
      try {
        const onProgress = report(link, index);
        const each: RegisterOptions = {
          diffID: link.diffID,
          signal,
          ...defined({ limits: options.limits, onProgress }),
        };
        const apply = this.#parts.drafts.applyOptions(each, link.descriptor);
        await this.#parts.drafts.unpack(drafts[index] as Draft, below(index), link.tar, apply, link.descriptor);
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    };
    try {
      if (this.#parts.driver.capabilities.independentDiffs) {
        for (const index of links.keys()) await create(index);
        const order = unpackOrder(links);
        await mapConcurrent(order, SIDE_BY_SIDE, (index) => unpack(links[index] as Link, index));
      } else {
        for (const [index, link] of links.entries()) {
          await create(index);
          await unpack(link, index);
        }
      }
      await this.#parts.drafts.sync(
        drafts.map(({ cacheID }) => cacheID),
        options.signal,
      );
      options.signal?.throwIfAborted();
      for (const draft of drafts) {
        const { node, fresh } = await this.#parts.drafts.publish(draft, pins.top);
        // A register() without expectation may have made the same layer; ours above are bound to our own directory.
        overtaken = !fresh;
        if (overtaken) {
          pins.add(node);
          break;
        }
        pins.addMade(node);
        published += 1;
      }
    } finally {
      for (const draft of drafts.slice(0, published)) await this.#parts.drafts.end(draft);
      for (const draft of drafts.slice(published).reverse()) await this.#parts.drafts.discard(draft);
    }
    // The layers above the overtaken one are made again, on the other's directory. Only files can be read twice: a stream
    // that is used up makes this reject.
    const rest = links.slice(published + 1);
    if (overtaken && rest.length > 0) await this.#makeLinks(rest, pins, options);
  }
}

function check<T extends string | number>(what: string, found: T, expected: T): void {
  if (found !== expected) throw digestMismatch(what, found, expected);
}

function withChainIDs(layers: readonly ChainLink[], parent: ChainID | undefined): Link[] {
  let chainID = parent;
  return layers.map((layer) => {
    chainID = createChainID([layer.diffID], chainID);
    return { ...layer, chainID: chainID as ChainID }; // one diff id always gives one
  });
}

/** The call's `onProgress` gets the sum over all layers; a layer's own listener gets that layer's counters. */
function sumOfProgress(
  options: RegisterOptions,
  count: number,
): (link: Link, index: number) => ((progress: Progress) => void) | undefined {
  const { onProgress } = options;
  const parts = new Array<Progress | undefined>(count);
  const due = atMostEvery(PROGRESS_INTERVAL); // whatever the number of layers
  return (link, index) => {
    if (onProgress === undefined) return link.onProgress;
    return (progress) => {
      link.onProgress?.(progress);
      parts[index] = progress;
      if (due()) onProgress(sum(parts));
    };
  };
}

function sum(parts: readonly (Progress | undefined)[]): Progress {
  const total: Progress = { bytesRead: 0, bytesUnpacked: 0, entries: 0 };
  let known: number | undefined = 0;
  for (const part of parts) {
    total.bytesRead += part?.bytesRead ?? 0;
    total.bytesUnpacked += part?.bytesUnpacked ?? 0;
    total.entries += part?.entries ?? 0;
    known = known === undefined || part?.totalBytes === undefined ? undefined : known + part.totalBytes;
  }
  if (known !== undefined) total.totalBytes = known;
  return total;
}

/**
 * Indexes of `links`, largest blob first, so that no large layer is left to be unpacked alone at the end. Streams may come
 * from one archive that is read front to back, and a file without known size says nothing: then the order is as given.
 */
export function unpackOrder(links: readonly ChainLink[]): number[] {
  const sizes = links.map(sizeOf);
  const order = [...links.keys()];
  return sizes.every((size) => size !== undefined)
    ? order.sort((a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0) || a - b)
    : order;
}

function sizeOf({ tar, descriptor }: ChainLink): number | undefined {
  if (!isFile(tar)) return undefined;
  return tar.length ?? descriptor?.size;
}
