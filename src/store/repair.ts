/**
 * A damaged layer's contents put back from its tar: unpacked beside it, then exchanged in one step, so that children
 * stay valid and a crash leaves either the old contents or the new.
 */
import type { ChainID } from '../digest.js';
import type { TarSource } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import type { StoreContext } from './context.js';
import { applyOptions, beginDraft, discardDraft, unpackDraft, type Draft } from './draft.js';
import { syncData } from './durability.js';
import type { LayerNode } from './layer-map.js';
import { unpin } from './removal.js';
import type { RegisterOptions } from './types.js';

/** The tar must have the layer's diff id; otherwise ERR_DIGEST_MISMATCH and nothing has changed. */
export async function repair(ctx: StoreContext, chainID: ChainID, tar: TarSource): Promise<void> {
  let node: LayerNode | undefined;
  try {
    node = ctx.layers.require(chainID);
    node.pins += 1;
    await repairLayer(ctx, node, tar, {});
  } finally {
    await unpin(ctx, node);
  }
}

export async function repairLayer(
  ctx: StoreContext,
  node: LayerNode,
  tar: TarSource,
  options: RegisterOptions,
  descriptor?: Descriptor,
): Promise<void> {
  checkExchange(ctx, node);
  const draft = await beginDraft(ctx, { kind: 'repair' });
  try {
    await ctx.driver.create(draft.cacheID, node.parent?.cacheID);
    const apply = applyOptions(ctx, { ...options, diffID: node.diffID }, descriptor);
    await unpackDraft(ctx, draft, node.parent, tar, apply, descriptor);
    await syncData(ctx, [draft.cacheID], options.signal);
    await exchangeDraft(ctx, node, draft);
  } finally {
    await discardDraft(ctx, draft);
  }
}

/** Swaps a complete draft of the same layer in; the draft then holds the damaged contents, for the caller to discard. */
export async function exchangeDraft(ctx: StoreContext, node: LayerNode, draft: Draft): Promise<void> {
  checkExchange(ctx, node);
  await ctx.locks.run(`layer:${node.chainID}`, async () => {
    await ctx.driver.exchange(node.cacheID, draft.cacheID);
    // A damaged tar-split record is put back with it, where the metadata store can.
    if (draft.tx !== undefined && !ctx.driver.capabilities.reproducesExactDiffs) {
      await ctx.metadata.replaceTarSplit(node.chainID, draft.tx);
    }
  });
}

function checkExchange({ driver }: StoreContext, node: LayerNode): void {
  if (driver.exchanges) return;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `cannot repair layer "${node.chainID}": the driver "${driver.name}" cannot exchange contents; release the layer and register it again`,
  );
}
