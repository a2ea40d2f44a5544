/**
 * Several layers of one image at once: unpacked side by side where the driver's diffs are independent, made durable by
 * one data sync, published in order. Layers that are there already are not read.
 */
import { availableParallelism } from 'node:os';
import { type ChainID, createChainID } from '../digest.js';
import type { Progress } from '../engine/engine.js';
import { invalidArgument } from '../errors.js';
import { anySignal, raceAbort } from '../util/abort.js';
import { mapConcurrent } from '../util/concurrent.js';
import { defined } from '../util/defined.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../util/throttle.js';
import type { StoreContext } from './context.js';
import {
  applyOptions,
  beginDraft,
  discardDraft,
  type Draft,
  endDraft,
  publishDraft,
  syncData,
  unpackDraft,
} from './draft.js';
import { createHandle } from './layer-handle.js';
import type { LayerNode } from './layer-map.js';
import type { Observed } from './lifecycle.js';
import { pinParent } from './register.js';
import { unpin } from './removal.js';
import { isFile } from './source.js';
import type { ChainLink, Layer, RegisterOptions } from './types.js';

/** Layers unpacked at once: one keeps about two threads busy, and two at least hide each other's waits. */
const SIDE_BY_SIDE = Math.max(2, Math.ceil(availableParallelism() / 2));

interface Link extends ChainLink {
  chainID: ChainID;
}

export async function registerChain(
  ctx: StoreContext,
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
      return createHandle(ctx, ctx.layers.require(parentID));
    }
    const parent = pinParent(ctx, parentID, layers.length);
    if (parent !== undefined) pins.add(parent);
    await registerLinks(ctx, withChainIDs(layers, parentID), pins, options);
    return createHandle(ctx, pins.top as LayerNode); // a chain that is not empty has one
  } catch (error) {
    pins.abandonMade();
    throw error;
  } finally {
    await pins.release(ctx);
  }
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
  async release(ctx: StoreContext): Promise<void> {
    for (const node of this.#nodes.splice(0).reverse()) await unpin(ctx, node);
  }
}

function withChainIDs(layers: readonly ChainLink[], parent: ChainID | undefined): Link[] {
  let chainID = parent;
  return layers.map((layer) => {
    chainID = createChainID([layer.diffID], chainID);
    return { ...layer, chainID: chainID as ChainID }; // one diff id always gives one
  });
}

/** Walks up the chain: pins layers that exist, waits for layers that other calls make, and makes the rest. */
async function registerLinks(
  ctx: StoreContext,
  links: readonly Link[],
  pins: Pins,
  options: Observed<RegisterOptions>,
): Promise<void> {
  let index = 0;
  while (index < links.length) {
    const link = links[index] as Link;
    const there = ctx.layers.find(link.chainID);
    if (there !== undefined) {
      there.pins += 1;
      pins.add(there);
      index += 1;
      continue;
    }
    const flight = ctx.flights.of(link.chainID);
    if (flight !== undefined) {
      await raceAbort(flight, options.signal);
      continue;
    }
    // No call makes this layer, so none makes a layer above it, which would need it as a parent.
    const rest = links.slice(index);
    const finish = ctx.flights.start(rest.map(({ chainID }) => chainID));
    try {
      await makeLinks(ctx, rest, pins, options);
    } finally {
      finish();
    }
    index = links.length;
  }
}

/** Makes all of `links` on the top of `pins`, where the pins of what is published go. */
async function makeLinks(
  ctx: StoreContext,
  links: readonly Link[],
  pins: Pins,
  options: Observed<RegisterOptions>,
): Promise<void> {
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
    const draft = await beginDraft(ctx, { kind: 'layer' }, options);
    drafts[index] = draft;
    await ctx.driver.create(draft.cacheID, below(index)?.cacheID);
  };
  const unpack = async (link: Link, index: number): Promise<void> => {
    try {
      const onProgress = report(link, index);
      const each: RegisterOptions = {
        diffID: link.diffID,
        signal,
        ...defined({ limits: options.limits, onProgress }),
      };
      const apply = applyOptions(ctx, each, link.descriptor);
      await unpackDraft(ctx, drafts[index] as Draft, below(index), link.tar, apply, link.descriptor);
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  try {
    if (ctx.driver.capabilities.independentDiffs) {
      for (const index of links.keys()) await create(index);
      const order = unpackOrder(links);
      await mapConcurrent(order, SIDE_BY_SIDE, (index) => unpack(links[index] as Link, index));
    } else {
      for (const [index, link] of links.entries()) {
        await create(index);
        await unpack(link, index);
      }
    }
    await syncData(
      ctx,
      drafts.map(({ cacheID }) => cacheID),
      options.signal,
    );
    options.signal?.throwIfAborted();
    for (const draft of drafts) {
      const { node, fresh } = await publishDraft(ctx, draft, pins.top);
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
    for (const draft of drafts.slice(0, published)) await endDraft(ctx, draft);
    for (const draft of drafts.slice(published).reverse()) await discardDraft(ctx, draft);
  }
  // The layers above the overtaken one are made again, on the other's directory. Only files can be read twice: a stream
  // that is used up makes this reject.
  const rest = links.slice(published + 1);
  if (overtaken && rest.length > 0) await makeLinks(ctx, rest, pins, options);
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
