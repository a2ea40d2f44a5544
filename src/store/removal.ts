/**
 * How layers go. Decided in one synchronous section; then the record is marked, the files are renamed away (both
 * instant), and unlinked in the background. A crash anywhere in between leaves a marked record or an intent, by which
 * recovery ends it.
 */
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import { LayerStoreError } from '../errors.js';
import { errorFields } from '../util/logger.js';
import type { StoreContext } from './context.js';
import { externalReferences } from './external-references.js';
import type { LayerNode, Readers } from './layer-map.js';
import type { LayerMetadata } from './types.js';

const nobody: ReadonlySet<ChainID> = new Set();

/** Removes `node`, and its parents in the same way, where nothing holds them. What was removed, top first. */
export async function removeUnheld(ctx: StoreContext, node: LayerNode): Promise<LayerMetadata[]> {
  if (node.held || node.gone || ctx.references.holds(node.chainID)) return [];
  const external = await externalReferences(ctx);
  if (external.incomplete !== undefined) {
    ctx.logger.debug({ chainID: node.chainID, why: external.incomplete }, 'an unreferenced layer is kept for gc');
    return [];
  }
  return eraseAll(ctx, takeUnheld(ctx, node, external.chains ?? nobody));
}

/** Synchronously: takes `node` and the parents that nothing else holds out of the map, top first. */
export function takeUnheld(ctx: StoreContext, node: LayerNode, external: ReadonlySet<ChainID>): LayerNode[] {
  const taken: LayerNode[] = [];
  let next: LayerNode | undefined = node;
  while (next !== undefined && !next.gone && !next.held) {
    if (ctx.references.holds(next.chainID) || external.has(next.chainID)) break;
    ctx.layers.take(next);
    taken.push(next);
    next = next.parent;
  }
  return taken;
}

/**
 * Removes what `takeUnheld` took. A failure before the first record was marked puts everything back and rejects; one
 * further down leaves the rest in place, said in the log.
 */
export function eraseAll(ctx: StoreContext, taken: readonly LayerNode[]): Promise<LayerMetadata[]> {
  // Synchronous up to here and into the loop: a publisher of the same layer sees the removal before its first await.
  let settle!: () => void;
  const over = new Promise<void>((resolve) => (settle = resolve));
  for (const node of taken) ctx.layers.noteErasing(node.chainID, over);
  return eraseInOrder(ctx, taken).finally(settle);
}

async function eraseInOrder(ctx: StoreContext, taken: readonly LayerNode[]): Promise<LayerMetadata[]> {
  const removed: LayerMetadata[] = [];
  for (const [index, node] of taken.entries()) {
    try {
      await ctx.locks.run(`layer:${node.chainID}`, () => eraseOne(ctx, node));
    } catch (error) {
      // Bottom first: a layer's parent is in the map before it.
      for (const rest of taken.slice(index).reverse()) ctx.layers.restore(rest);
      if (index === 0) throw error;
      ctx.logger.error(
        { chainID: node.chainID, ...errorFields(error) },
        'cannot remove an unreferenced layer; gc tries again',
      );
      break;
    }
    removed.push(node.metadata());
  }
  return removed;
}

/** Rejects only while the layer is still whole. */
async function eraseOne(ctx: StoreContext, node: LayerNode): Promise<void> {
  const { chainID, cacheID } = node;
  ctx.removing.add(cacheID);
  try {
    await ctx.metadata.markRemoving(chainID);
  } catch (error) {
    ctx.removing.delete(cacheID);
    throw error;
  }
  const ended = endErasing(ctx, node);
  // The rename is awaited, so that the layer is removed when this resolves; readers of its files are not.
  if (node.readers.count === 0) await ended;
  else trail(ctx, ended);
}

/** `close` waits for `work`, which waits for readers and never rejects. */
export function trail(ctx: StoreContext, work: Promise<void>): void {
  ctx.trailing.add(work);
  void work.then(() => ctx.trailing.delete(work));
}

/** The marked record says what is left to do until this has ended; never rejects. */
async function endErasing(ctx: StoreContext, { chainID, cacheID, readers }: LayerNode): Promise<void> {
  try {
    await readers.idle();
    void ctx.background.push(await ctx.driver.detach(cacheID));
    await ctx.metadata.remove(chainID, cacheID);
  } catch (error) {
    ctx.intents.letGo(cacheID); // where it is noted by one
    ctx.logger.error({ chainID, cacheID, ...errorFields(error) }, 'a removal is left half done; cleanup() ends it');
  } finally {
    ctx.removing.delete(cacheID);
  }
}

/**
 * Removes driver ids without a record, when they have no readers, then the intent that names them.
 * Never rejects: what cannot be removed keeps its intent, for recovery.
 */
export async function discardFiles(
  ctx: StoreContext,
  intentID: string,
  ids: readonly string[],
  readers?: Readers,
): Promise<void> {
  if (readers !== undefined && readers.count > 0) await readers.idle();
  try {
    for (const id of ids) void ctx.background.push(await ctx.driver.detach(id));
    await ctx.intents.end(intentID);
  } catch (error) {
    ctx.intents.letGo(intentID);
    ctx.logger.error(
      { ids, ...errorFields(error) },
      'files that nothing needs cannot be removed; the next cleanup tries again',
    );
  }
}

/**
 * Runs `remove` of an id that nothing needs and no process works on; where a mount is in the way, an init layer's that was
 * being filled when its process died, that goes first. EBUSY of somebody who still uses it comes through.
 */
export async function withoutDeadMount(ctx: StoreContext, id: string, remove: () => Promise<void>): Promise<void> {
  try {
    await remove();
  } catch (error) {
    if (!LayerStoreError.is(error, 'ERR_ACTIVE_MOUNT')) throw error;
    await putDead(ctx.driver, id);
    ctx.logger.info({ id }, 'the mount of an unfinished layer is taken away');
    await remove();
  }
}

/** Where an earlier attempt found the mount busy it is the driver's already: taken over twice it would count twice. */
async function putDead(driver: Driver, id: string): Promise<void> {
  try {
    await driver.put(id);
  } catch (error) {
    if (!LayerStoreError.is(error, 'ERR_NOT_MOUNTED')) throw error;
    await driver.adopt(id);
    await driver.put(id);
  }
}

/** Ends a pin. Removes the layer if it was released meanwhile and has no child. */
export async function unpin(ctx: StoreContext, node: LayerNode | undefined): Promise<void> {
  if (node === undefined) return;
  node.pins -= 1;
  if (!node.abandoned || node.pins > 0) return;
  node.abandoned = false;
  if (node.held || node.gone) return;
  try {
    await removeUnheld(ctx, node);
  } catch (error) {
    ctx.logger.error(
      { chainID: node.chainID, ...errorFields(error) },
      'cannot remove a released layer; gc tries again',
    );
  }
}
