/** Freeing space: what crashes left, and layers that nothing refers to; each byte explained, on a dry run too. */
import type { ChainID } from '../digest.js';
import { errorFields } from '../util/logger.js';
import { withTimeout } from '../util/timeout.js';
import type { StoreContext } from './context.js';
import { externalReferences } from './external-references.js';
import type { LayerNode } from './layer-map.js';
import { driverLeftovers, findLeftovers, reportOf, type Leftovers } from './leftovers.js';
import { eraseAll, takeUnheld } from './removal.js';
import type { CleanupReport, FreedItem, GcReport, LayerMetadata } from './types.js';

/** Milliseconds that small removals of a moment ago get to end: what is reported then is what lasts. */
const PATIENCE = 50;

export async function cleanup(ctx: StoreContext): Promise<CleanupReport> {
  await withTimeout(ctx.background.idle(), PATIENCE);
  const found = await findLeftovers(ctx);
  const removed = await removeLeftovers(ctx, found);
  await ctx.driver.cleanup();
  const stayed = new Set((await driverLeftovers(ctx)).map(({ what }) => what));
  const gone = removed.ours.filter(({ remove, item }) => remove !== undefined || !stayed.has(item.what));
  return reportOf({ ours: gone, foreign: removed.foreign });
}

/** Removes what is ours; what cannot be removed is logged and left out of the report. */
async function removeLeftovers(ctx: StoreContext, found: Leftovers): Promise<Leftovers> {
  const ours = [];
  for (const leftover of found.ours) {
    try {
      await leftover.remove?.();
      ours.push(leftover);
    } catch (error) {
      ctx.logger.warn({ what: leftover.item.what, ...errorFields(error) }, 'a leftover cannot be removed');
    }
  }
  return { ours, foreign: found.foreign };
}

export async function gc(ctx: StoreContext, dryRun: boolean): Promise<GcReport> {
  const external = await externalReferences(ctx);
  if (external.incomplete !== undefined) {
    const { foreign } = reportOf(await findLeftovers(ctx));
    return { items: [], foreign, bytes: 0, removed: [], dryRun, refused: external.incomplete };
  }
  const chains = external.chains ?? new Set<ChainID>();
  if (dryRun) {
    const leftovers = reportOf(await findLeftovers(ctx));
    const nodes = unreferenced(ctx, chains);
    return merge(
      leftovers,
      nodes.map(itemOf),
      nodes.map((node) => node.metadata()),
      true,
    );
  }
  const leftovers = await cleanup(ctx);
  const expired = ctx.references.expired();
  if (expired.length > 0) await ctx.references.drop(expired);
  const items: FreedItem[] = [];
  const removed: LayerMetadata[] = [];
  // Deepest first; each takes its parents along where nothing else holds them.
  for (const node of unreferenced(ctx, chains)) {
    const taken = takeUnheld(ctx, node, chains);
    if (taken.length === 0) continue;
    const gone = await eraseAll(ctx, taken);
    removed.push(...gone);
    items.push(...taken.filter((one) => one.gone).map(itemOf));
  }
  return merge(leftovers, items, removed, false);
}

/** Layers without handle, RW layer, work or reference, and with no child but such; deepest first. */
function unreferenced(ctx: StoreContext, external: ReadonlySet<ChainID>): LayerNode[] {
  const deepestFirst = [...ctx.layers].sort((a, b) => b.depth - a.depth);
  const doomedChildren = new Map<LayerNode, number>();
  return deepestFirst.filter((node) => {
    if (node.handles + node.rwLayers + node.pins > 0) return false;
    if (node.children > (doomedChildren.get(node) ?? 0)) return false;
    if (ctx.references.holds(node.chainID) || external.has(node.chainID)) return false;
    if (node.parent !== undefined) doomedChildren.set(node.parent, (doomedChildren.get(node.parent) ?? 0) + 1);
    return true;
  });
}

function itemOf(node: LayerNode): FreedItem {
  return {
    kind: 'layer',
    what: node.chainID,
    why: 'no handle, child, RW layer or reference keeps it',
    bytes: node.diffSize,
  };
}

function merge(report: CleanupReport, items: FreedItem[], removed: LayerMetadata[], dryRun: boolean): GcReport {
  return {
    items: [...report.items, ...items],
    foreign: report.foreign,
    bytes: items.reduce((sum, { bytes }) => sum + bytes, report.bytes),
    removed,
    dryRun,
  };
}
