/**
 * From records to the maps: every record is checked against its parent and the driver's directories, and one that does
 * not fit is left out with a reason, never an error. Reads only.
 */
import type { ChainID } from '../digest.js';
import type { BrokenRecord, LayerRecord, NamedMountRecord } from '../metadata/metadata-store.js';
import type { StoreContext } from './context.js';
import type { LayerNode } from './layer-map.js';

/** What fits, bottom first, and what does not. */
export interface ReconciledRecords {
  layers: LayerRecord[];
  mounts: NamedMountRecord[];
  broken: BrokenRecord[];
  removing: { chainID: ChainID; cacheID: string }[];
}

export async function reconcileRecords(ctx: StoreContext): Promise<ReconciledRecords> {
  // The records, then the directories they name: a layer that a writer publishes meanwhile has its directory by then.
  const loaded = await ctx.metadata.loadAll();
  const there = new Set(await ctx.driver.list());
  const broken = [...loaded.broken];
  const layers = reconcileLayers(loaded.layers, there, broken);
  const known = new Set(loaded.mounts.length === 0 ? [] : layers.map(({ chainID }) => chainID));
  const mounts = loaded.mounts.filter((mount) => {
    const why = validateMount(mount, known, there);
    if (why === undefined) return true;
    broken.push({ kind: 'mount', what: `mounts/${mount.name}`, why, name: mount.name, cacheID: mount.id });
    return false;
  });
  return { layers, mounts, broken, removing: loaded.removing };
}

/** Parents before children; a chain that does not reach its base is broken from the break upwards. */
function reconcileLayers(
  records: readonly LayerRecord[],
  there: ReadonlySet<string>,
  broken: BrokenRecord[],
): LayerRecord[] {
  // One table by chain id, and everything else by object: text is slow to look up, and there may be many layers.
  const byChain = new Map<ChainID, CheckedRecord>();
  for (const record of records) byChain.set(record.chainID, { record, below: undefined, fits: undefined });
  const all = [...byChain.values()];
  for (const one of all) if (one.record.parent !== undefined) one.below = byChain.get(one.record.parent);
  const joined: LayerRecord[] = [];
  for (const start of all) {
    // Down to the first layer that is judged, then back up: chains may be deep, so no recursion.
    const path: CheckedRecord[] = [];
    let next: CheckedRecord | undefined = start;
    while (next !== undefined && next.fits === undefined) {
      // Until it is judged it does not fit, so a chain that leads into itself ends and is broken.
      next.fits = false;
      path.push(next);
      next = next.below;
    }
    for (const one of path.reverse()) {
      const { record } = one;
      const why = validateLayer(one, there);
      one.fits = why === undefined;
      if (why === undefined) {
        joined.push(record);
      } else {
        const what = record.chainID.replace(':', '/');
        broken.push({ kind: 'layer', what, why, chainID: record.chainID, cacheID: record.cacheID });
      }
    }
  }
  return joined;
}

interface CheckedRecord {
  record: LayerRecord;
  below: CheckedRecord | undefined;
  fits: boolean | undefined;
}

function validateLayer({ record, below }: CheckedRecord, there: ReadonlySet<string>): string | undefined {
  if (!there.has(record.cacheID)) return `the driver has no directory "${record.cacheID}" for it`;
  if (record.parent === undefined || below?.fits === true) return undefined;
  return `its parent "${record.parent}" is missing or damaged`;
}

function validateMount(
  mount: NamedMountRecord,
  layers: ReadonlySet<ChainID>,
  there: ReadonlySet<string>,
): string | undefined {
  if (!there.has(mount.id)) return `the driver has no directory "${mount.id}" for it`;
  if (mount.initID !== undefined && !there.has(mount.initID)) return `its init layer "${mount.initID}" is missing`;
  if (mount.parent === undefined || layers.has(mount.parent)) return undefined;
  return `its parent "${mount.parent}" is missing or damaged`;
}

/** Synchronously: the maps hold exactly what `joined` says; nodes that stay the same keep their counts. */
export function populate(ctx: StoreContext, joined: ReconciledRecords): void {
  const empty = ctx.layers.count === 0;
  const wanted = new Map(empty ? [] : joined.layers.map((record) => [record.chainID, record]));
  const mounts = new Map(joined.mounts.map((mount) => [mount.name, mount]));
  for (const rw of [...ctx.rwLayers]) if (mounts.get(rw.name)?.id !== rw.mountID) ctx.rwLayers.take(rw);
  const deepestFirst = [...ctx.layers].sort((a, b) => b.depth - a.depth);
  for (const node of deepestFirst) if (wanted.get(node.chainID)?.cacheID !== node.cacheID) ctx.layers.take(node);
  // A chain's layers come one after the other, so that the last one is mostly the parent.
  let last: LayerNode | undefined;
  for (const record of joined.layers) {
    if (!empty && ctx.layers.find(record.chainID) !== undefined) continue;
    const { parent } = record;
    let below: LayerNode | undefined;
    if (parent !== undefined) below = last?.chainID === parent ? last : ctx.layers.find(parent);
    last = ctx.layers.add(record, below);
  }
  for (const { name, id, initID, parent } of joined.mounts) {
    if (ctx.rwLayers.find(name) !== undefined) continue;
    ctx.rwLayers.add({ name, mountID: id, initID }, parent === undefined ? undefined : ctx.layers.find(parent));
  }
}
