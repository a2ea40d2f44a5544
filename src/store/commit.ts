/**
 * Commits: makes a read-only layer of an RW layer's changes. The layer is the same as if the tar of the changes were
 * registered, but a driver that can makes no tar. With `consume` the layer takes the files and the RW layer is removed.
 */
import type { ChainID } from '../digest.js';
import { errorFields } from '../util/logger.js';
import type { StoreContext } from './context.js';
import {
  applyOptions,
  beginDraft,
  discardDraft,
  type Draft,
  endDraft,
  fillDraft,
  publishDraft,
  syncData,
} from './draft.js';
import { createHandle } from './layer-handle.js';
import type { LayerNode, RWNode } from './layer-map.js';
import type { Observed } from './lifecycle.js';
import { pinParent } from './register.js';
import { unpin } from './removal.js';
import { rwNodeOf } from './rw-handle.js';
import { checkConsumable, removeRWLayer } from './rw-layers.js';
import type { Layer, RegisterOptions } from './types.js';

export type CommitOptions = RegisterOptions & { consume?: boolean };

export async function commit(ctx: StoreContext, layer: unknown, options: Observed<CommitOptions>): Promise<Layer> {
  const rw = rwNodeOf(ctx, layer);
  options.signal?.throwIfAborted();
  const parent = pinParent(ctx, rw.parent?.chainID, 1);
  try {
    if (options.consume !== true) return await commitCopy(ctx, rw, parent, options);
    return await ctx.locks.run(`rw:${rw.name}`, async () => {
      rwNodeOf(ctx, layer); // released while this waited?
      await checkConsumable(ctx, rw, layer as object);
      return consume(ctx, rw, parent, options);
    });
  } finally {
    await unpin(ctx, parent);
  }
}

async function commitCopy(
  ctx: StoreContext,
  rw: RWNode,
  parent: LayerNode | undefined,
  options: Observed<CommitOptions>,
): Promise<Layer> {
  const leave = rw.readers.enter();
  try {
    const draft = await beginDraft(ctx, { kind: 'layer' }, options);
    let node: LayerNode | undefined;
    try {
      await fill(ctx, draft, rw, parent, options, false);
      node = await publish(ctx, draft, parent, options);
      return createHandle(ctx, node);
    } catch (error) {
      await discardDraft(ctx, draft);
      throw error;
    } finally {
      await unpin(ctx, node);
    }
  } finally {
    leave();
  }
}

/**
 * Crash order: intent (durable), files taken over, record published, RW record dropped, intent dropped. Before the
 * publication recovery gives the files back to the RW layer; after it, it drops the RW layer.
 */
async function consume(
  ctx: StoreContext,
  rw: RWNode,
  parent: LayerNode | undefined,
  options: Observed<CommitOptions>,
): Promise<Layer> {
  const intent = { kind: 'consume', name: rw.name, rwID: rw.mountID } as const;
  const draft = await beginDraft(ctx, intent, options);
  let node: LayerNode;
  try {
    await fill(ctx, draft, rw, parent, options, true);
    await syncData(ctx, [draft.cacheID], options.signal);
    await waitForChain(ctx, draft);
    options.signal?.throwIfAborted();
    const published = await publishDraft(ctx, draft, parent);
    node = published.node;
    if (!published.fresh) {
      // The same layer exists already: its own files stay, the taken ones and the RW layer are removed.
      draft.publishing = false;
      try {
        await removeRWLayer(ctx, rw);
      } catch (error) {
        await unpin(ctx, node);
        throw error;
      }
    }
  } catch (error) {
    await giveBack(ctx, draft, rw);
    throw error;
  }
  try {
    const handle = createHandle(ctx, node);
    if (draft.publishing !== true) await discardDraft(ctx, draft);
    else if (await dropConsumed(ctx, rw)) await endDraft(ctx, draft);
    else ctx.intents.letGo(draft.cacheID); // by it the next open drops the RW layer's record
    return handle;
  } finally {
    await unpin(ctx, node);
  }
}

/** Gives the RW layer its files back. On failure the intent stays, and the next open tries again. */
async function giveBack(ctx: StoreContext, draft: Draft, rw: RWNode): Promise<void> {
  try {
    await ctx.driver.undoConsume(draft.cacheID, rw.mountID);
  } catch (error) {
    ctx.intents.letGo(draft.cacheID);
    ctx.logger.error(
      { name: rw.name, id: draft.cacheID, ...errorFields(error) },
      'a failed commit cannot give the RW layer its files back; the next open tries again',
    );
    await draft.tx?.cancel().catch(() => undefined); // the log has the failure that matters
    return;
  }
  await discardDraft(ctx, draft);
}

/** The layer is published, so the RW layer is removed, now or by recovery. Returns whether it was removed now. */
async function dropConsumed(ctx: StoreContext, rw: RWNode): Promise<boolean> {
  try {
    await removeRWLayer(ctx, rw);
    return true;
  } catch (error) {
    ctx.rwLayers.take(rw);
    rw.owners.clear();
    ctx.logger.error(
      { name: rw.name, ...errorFields(error) },
      'the record of a consumed RW layer cannot be removed; the next open does it',
    );
    return false;
  }
}

async function publish(
  ctx: StoreContext,
  draft: Draft,
  parent: LayerNode | undefined,
  options: Observed<CommitOptions>,
): Promise<LayerNode> {
  await syncData(ctx, [draft.cacheID], options.signal);
  await waitForChain(ctx, draft);
  options.signal?.throwIfAborted();
  const { node, fresh } = await publishDraft(ctx, draft, parent);
  if (fresh) await endDraft(ctx, draft);
  else await discardDraft(ctx, draft);
  return node;
}

/** Waits for a registerChain that makes the same layer, as register() does. */
async function waitForChain(ctx: StoreContext, draft: Draft): Promise<void> {
  if (draft.record !== undefined) await ctx.flights.of(draft.record.chainID);
}

async function fill(
  ctx: StoreContext,
  draft: Draft,
  rw: RWNode,
  parent: LayerNode | undefined,
  options: Observed<CommitOptions>,
  consumes: boolean,
): Promise<void> {
  const apply = applyOptions(ctx, options, undefined);
  const chain: ChainID | undefined = parent?.chainID;
  await fillDraft(ctx, draft, chain, undefined, apply, (tarSplit) =>
    ctx.driver.commitDiff(draft.cacheID, parent?.cacheID, rw.mountID, rw.belowID, {
      ...apply,
      ...tarSplit,
      consume: consumes,
    }),
  );
}
