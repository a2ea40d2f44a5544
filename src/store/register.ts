/** One layer from a tar: unpacked into a draft, made durable, published; equal registrations at once are done once. */
import { createChainID, type ChainID } from '../digest.js';
import type { TarSource } from '../engine/engine.js';
import { digestMismatch, LayerStoreError } from '../errors.js';
import type { Descriptor, LayerRecord } from '../metadata/metadata-store.js';
import { raceAbort } from '../util/abort.js';
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
import { unpin } from './removal.js';
import { exchangeDraft, isDamaged, repairLayer } from './verify.js';
import { isFile, sourceIdentity } from './source.js';
import type { Layer, RegisterOptions } from './types.js';
import { defined } from '../util/defined.js';

/** A pin on the parent; ERR_LAYER_DOES_NOT_EXIST, ERR_MAX_DEPTH_EXCEEDED where `count` more layers do not fit on it. */
export function pinParent(ctx: StoreContext, parent: ChainID | undefined, count: number): LayerNode | undefined {
  const node = parent === undefined ? undefined : ctx.layers.require(parent);
  const depth = (node?.depth ?? 0) + count;
  if (depth > ctx.maxDepth) {
    throw new LayerStoreError(
      'ERR_MAX_DEPTH_EXCEEDED',
      `a chain of ${depth} layers is too deep: the limit is ${ctx.maxDepth}; squash the image or raise "maxDepth"`,
    );
  }
  if (node !== undefined) node.pins += 1;
  return node;
}

export async function registerLayer(
  ctx: StoreContext,
  tar: TarSource,
  parentID: ChainID | undefined,
  options: Observed<RegisterOptions>,
  descriptor?: Descriptor,
): Promise<Layer> {
  let parent: LayerNode | undefined;
  try {
    options.signal?.throwIfAborted();
    parent = pinParent(ctx, parentID, 1);
    return await registerOnce(ctx, tar, parent, options, descriptor);
  } finally {
    await unpin(ctx, parent);
  }
}

/** Waits for an equal registration under way, or is the one that others wait for. */
async function registerOnce(
  ctx: StoreContext,
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
    const there = expected === undefined ? undefined : ctx.layers.find(expected);
    if (there !== undefined) {
      there.pins += 1; // before the first await, so that it stays
      try {
        await reuse(ctx, there, tar, options, descriptor, joined);
        return createHandle(ctx, there);
      } finally {
        await unpin(ctx, there);
      }
    }
    const flight = key === undefined ? undefined : ctx.flights.of(key);
    if (flight === undefined) break;
    const outcome = await raceAbort(flight, signal);
    joined = true;
    if (outcome !== undefined && !outcome.gone && outcome.parent === parent) return createHandle(ctx, outcome);
  }
  const finish = key === undefined ? undefined : ctx.flights.start([key]);
  let node: LayerNode | undefined;
  try {
    node = await registerDraft(ctx, tar, parent, options, descriptor);
    return createHandle(ctx, node);
  } finally {
    finish?.(node);
    await unpin(ctx, node);
  }
}

/** The layer is there: its contents are checked if asked for, and the tar is checked against what it should be. */
async function reuse(
  ctx: StoreContext,
  node: LayerNode,
  tar: TarSource,
  options: Observed<RegisterOptions>,
  descriptor: Descriptor | undefined,
  joined: boolean,
): Promise<void> {
  if (options.verifyExisting === true && (await isDamaged(ctx, node, options.signal))) {
    await repairLayer(ctx, node, tar, options, descriptor);
    return;
  }
  if (joined || options.verifyExisting === true) return;
  if (isFile(tar) && tar.offset === undefined) {
    const found = await ctx.engine.hashFile(tar.path, defined({ signal: options.signal }));
    check('the diff id of the tar', found.diffID, node.diffID);
    if (descriptor !== undefined) {
      check('the digest of the blob', found.digest, descriptor.digest);
      check('the size of the blob in bytes', found.size, descriptor.size);
    }
    return;
  }
  // A stream is checked by unpacking it into a draft that is discarded.
  const draft = await beginDraft(ctx, { kind: 'layer' }, options);
  try {
    await unpack(ctx, draft, node.parent, tar, options, descriptor);
  } finally {
    await discardDraft(ctx, draft);
  }
}

function check<T extends string | number>(what: string, found: T, expected: T): void {
  if (found !== expected) throw digestMismatch(what, found, expected);
}

async function unpack(
  ctx: StoreContext,
  draft: Draft,
  parent: LayerNode | undefined,
  tar: TarSource,
  options: Observed<RegisterOptions>,
  descriptor: Descriptor | undefined,
): Promise<void> {
  await ctx.driver.create(draft.cacheID, parent?.cacheID);
  await unpackDraft(ctx, draft, parent, tar, applyOptions(ctx, options, descriptor), descriptor);
}

/** Makes the layer; the node comes back with a pin. */
async function registerDraft(
  ctx: StoreContext,
  tar: TarSource,
  parent: LayerNode | undefined,
  options: Observed<RegisterOptions>,
  descriptor: Descriptor | undefined,
): Promise<LayerNode> {
  const draft = await beginDraft(ctx, { kind: 'layer' }, options);
  let node: LayerNode | undefined;
  try {
    await unpack(ctx, draft, parent, tar, options, descriptor);
    await syncData(ctx, [draft.cacheID], options.signal);
    // A chain that makes the same layer also makes layers above it, bound to its own directory: wait for it.
    if (options.diffID === undefined) await ctx.flights.of((draft.record as LayerRecord).chainID);
    options.signal?.throwIfAborted();
    const published = await publishDraft(ctx, draft, parent);
    node = published.node;
    if (published.fresh) {
      await endDraft(ctx, draft);
      return node;
    }
    if (options.verifyExisting === true && (await isDamaged(ctx, node, options.signal))) {
      await exchangeDraft(ctx, node, draft);
    }
    await discardDraft(ctx, draft);
    return node;
  } catch (error) {
    await discardDraft(ctx, draft);
    await unpin(ctx, node);
    throw error;
  }
}
