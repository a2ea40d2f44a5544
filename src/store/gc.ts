/**
 * Disk space: usage, leftovers of crashes, and layers without references, each with a reason, on a dry run too. An item
 * that may be removed comes with its removal; a directory that no record or intent names is only reported.
 */
import { readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import { systemError } from '../errors.js';
import { mapConcurrent } from '../util/concurrent.js';
import { errorFields } from '../util/logger.js';
import { withTimeout } from '../util/timeout.js';
import type { Leftover, StoreContext } from './context.js';
import { externalReferences } from './external-references.js';
import type { StoredIntent } from './intents.js';
import type { LayerNode, RWNode } from './layer-map.js';
import { eraseAll, takeUnheld, withoutDeadMount } from './removal.js';
import { isRecorded } from './rw-layers.js';
import type { CleanupReport, FreedItem, GcReport, LayerMetadata, StoreUsage } from './types.js';

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

/** Removes our leftovers. An item that cannot be removed is logged and left out of the report. */
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
  // Deepest first: removing a layer also removes parents that nothing else holds.
  for (const node of unreferenced(ctx, chains)) {
    const taken = takeUnheld(ctx, node, chains);
    if (taken.length === 0) continue;
    const gone = await eraseAll(ctx, taken);
    removed.push(...gone);
    items.push(...taken.filter((one) => one.gone).map(itemOf));
  }
  return merge(leftovers, items, removed, false);
}

/** Layers without handle, RW layer, pin or reference, all of whose children are such layers; deepest first. */
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

export interface Leftovers {
  ours: Leftover[];
  foreign: { what: string; why: string; bytes: number }[];
}

/** Every driver id that a record names. */
export function recordedIDs(ctx: StoreContext): Set<string> {
  const ids = new Set<string>();
  for (const layer of ctx.layers) ids.add(layer.cacheID);
  for (const rw of ctx.rwLayers) {
    ids.add(rw.mountID);
    if (rw.initID !== undefined) ids.add(rw.initID);
  }
  return ids;
}

export async function findLeftovers(ctx: StoreContext): Promise<Leftovers> {
  const found: Leftovers = { ours: [], foreign: [] };
  const there = new Set(await ctx.driver.list());
  // Read after the listing: a layer that was published in between has a record, a new draft has an intent in memory.
  const recorded = recordedIDs(ctx);
  const named = new Set<string>();
  for (const intent of await ctx.intents.stored()) {
    const ids = [intent.id, ...(intent.with ?? []), ...consumedIDs(intent)];
    for (const id of ids) named.add(id);
    const consumed = intent.kind === 'consume' && (await hasRecord(ctx, intent)) ? intent : undefined;
    // Of a taken-over RW layer that still has its record only this is sure: published, and given up by this process.
    const over = recorded.has(intent.id) && intent.rwID !== undefined && !recorded.has(intent.rwID);
    if (consumed !== undefined && !over) continue;
    const gone = ids.filter((id) => there.has(id) && !recorded.has(id));
    found.ours.push({
      item: {
        kind: gone.length === 0 ? 'intent' : 'leftover',
        what: intent.id,
        why:
          gone.length === 0
            ? 'what it speaks of is done'
            : 'an unfinished operation of ours made it and no record names it',
        bytes: (await bytesOf(ctx, gone)) + (await ctx.intents.bytesOf(intent.id)),
      },
      remove: async () => {
        if (consumed?.name !== undefined) await ctx.metadata.removeMount(consumed.name);
        for (const id of gone) await withoutDeadMount(ctx, id, () => ctx.driver.remove(id));
        await ctx.intents.end(intent.id);
      },
    });
  }
  await addRemovals(ctx, there, recorded, named, found);
  await addBrokenRecords(ctx, named, found);
  for (const item of await driverLeftovers(ctx)) found.ours.push({ item });
  await addRecordIndexes(ctx, found);
  for (const source of ctx.leftoverSources) found.ours.push(...(await source()));
  await addForeign(ctx, there, recorded, named, found);
  return found;
}

/** Indexes of layer records, which the first versions of this package kept beside them. Nothing reads them any more. */
async function addRecordIndexes(ctx: StoreContext, found: Leftovers): Promise<void> {
  const names = await readdir(ctx.own.directory).catch(() => []);
  for (const name of names.filter((each) => /^records-.*\.index/.test(each))) {
    const path = join(ctx.own.directory, name);
    const item = {
      kind: 'leftover',
      what: join('layerstore', name),
      why: 'an index of records that is not used any more',
      bytes: await treeBytes(path),
    } as const;
    found.ours.push({ item, remove: () => rm(path, { force: true }) });
  }
}

/** What only the driver knows of: trees that were renamed away and not unlinked, scratch. */
export async function driverLeftovers(ctx: StoreContext): Promise<FreedItem[]> {
  return (await ctx.driver.leftovers()).map(({ what, why, bytes, pending }) => ({
    kind: pending ? 'pending' : 'leftover',
    what,
    why,
    bytes,
  }));
}

function consumedIDs({ kind, rwID }: StoredIntent): string[] {
  return kind === 'consume' && rwID !== undefined ? [rwID, `${rwID}-init`] : [];
}

/** Whether the RW layer of an intent has a record, also if this process has removed it from its map. */
async function hasRecord(ctx: StoreContext, { name, rwID }: StoredIntent): Promise<boolean> {
  if (name === undefined || rwID === undefined) return true; // a torn intent says too little to act on
  return isRecorded(ctx.metadata, name, rwID);
}

async function addRemovals(
  ctx: StoreContext,
  there: ReadonlySet<string>,
  recorded: ReadonlySet<string>,
  named: Set<string>,
  found: Leftovers,
): Promise<void> {
  for (const { chainID, cacheID } of await ctx.metadata.listRemoving()) {
    named.add(cacheID);
    if (ctx.removing.has(cacheID)) continue; // under way right now
    const files = there.has(cacheID) && !recorded.has(cacheID);
    found.ours.push({
      item: {
        kind: 'removing',
        what: chainID,
        why: 'its removal was begun and not ended',
        bytes: files ? await bytesOf(ctx, [cacheID]) : 0,
      },
      remove: async () => {
        if (files) await ctx.driver.remove(cacheID);
        await ctx.metadata.remove(chainID, cacheID);
      },
    });
  }
}

async function addBrokenRecords(ctx: StoreContext, named: Set<string>, found: Leftovers): Promise<void> {
  const { metadata } = ctx;
  for (const broken of await metadata.listBroken()) {
    if (broken.cacheID !== undefined) named.add(broken.cacheID);
    const disposable = broken.kind === 'temporary' || broken.kind === 'removing';
    const bytes = broken.path === undefined ? 0 : await treeBytes(broken.path);
    if (disposable) {
      found.ours.push({
        item: { kind: broken.kind, what: broken.what, why: broken.why, bytes },
        remove: () => metadata.discard(broken),
      });
    } else {
      found.foreign.push({ what: broken.what, why: `a record that cannot be used: ${broken.why}`, bytes });
    }
  }
}

async function addForeign(
  ctx: StoreContext,
  there: ReadonlySet<string>,
  recorded: ReadonlySet<string>,
  named: ReadonlySet<string>,
  found: Leftovers,
): Promise<void> {
  const answeredFor = new Set<string>();
  for (const source of ctx.treeSources) for (const id of await source()) answeredFor.add(id);
  for (const id of there) {
    if (answeredFor.has(id)) continue;
    if (recorded.has(id) || named.has(id) || ctx.intents.isLive(id)) continue;
    if (id.endsWith('-init') && ctx.intents.isLive(id.slice(0, -'-init'.length))) continue;
    found.foreign.push({ what: id, why: 'no record and no intent of ours names it', bytes: await bytesOf(ctx, [id]) });
  }
  for (const name of await readdir(ctx.own.quarantine).catch(() => [])) {
    found.foreign.push({
      what: join('layerstore', 'quarantine', name),
      why: 'set aside at an earlier open: look at it, then delete it',
      bytes: await treeBytes(join(ctx.own.quarantine, name)),
    });
  }
}

/** Bytes allocated; 0 if the driver cannot tell, or if the id is being removed right now. */
async function bytesOf(ctx: StoreContext, ids: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const id of ids) bytes += (await ctx.driver.usage(id).catch(() => undefined))?.allocated ?? 0;
  return bytes;
}

/** Bytes of the files of a small tree of our own. A file that is removed meanwhile counts 0. */
async function treeBytes(path: string): Promise<number> {
  const own = await stat(path).catch(() => undefined);
  if (own === undefined) return 0;
  if (!own.isDirectory()) return own.size;
  let bytes = 0;
  for (const name of await readdir(path).catch(() => [])) bytes += await treeBytes(join(path, name));
  return bytes;
}

export function reportOf(found: Leftovers): CleanupReport {
  const items = found.ours.map(({ item }) => item);
  return { items, foreign: found.foreign, bytes: items.reduce((sum, { bytes }) => sum + bytes, 0) };
}

const AT_ONCE = 4;

export async function usage(ctx: StoreContext): Promise<StoreUsage> {
  let layerBytes = 0;
  for (const node of ctx.layers) layerBytes += node.diffSize;
  const rwNodes = [...ctx.rwLayers];
  const each = await mapConcurrent(rwNodes, AT_ONCE, (node) => usageOf(ctx, node));
  const pending = await ctx.driver.leftovers();
  const disk = await statfs(ctx.root).catch((error: unknown) => {
    throw systemError(error, 'read the free space of the root');
  });
  return {
    layers: { count: ctx.layers.count, bytes: layerBytes },
    rwLayers: {
      count: rwNodes.length,
      bytes: each.reduce((sum, { bytes }) => sum + bytes, 0),
      inodes: each.reduce((sum, { inodes }) => sum + inodes, 0),
    },
    pendingRemoval: {
      count: pending.length,
      bytes: pending.reduce((sum, { bytes }) => sum + bytes, 0),
      inodes: pending.reduce((sum, { inodes }) => sum + inodes, 0),
    },
    fileSystem: {
      bytes: disk.blocks * disk.bsize,
      bytesFree: disk.bavail * disk.bsize,
      inodes: disk.files,
      inodesFree: disk.ffree,
    },
  };
}

async function usageOf(ctx: StoreContext, node: RWNode): Promise<{ bytes: number; inodes: number }> {
  const leave = node.readers.enter();
  try {
    if (node.gone) return { bytes: 0, inodes: 0 };
    const { size, inodes } = await ctx.driver.usage(node.mountID, node.belowID);
    return { bytes: size, inodes };
  } finally {
    leave();
  }
}
