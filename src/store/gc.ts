/**
 * Disk space: usage, leftovers of crashes, and layers without references, each with a reason, on a dry run too. An item
 * that may be removed comes with its removal; a directory that no record or intent names is only reported.
 */
import { readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import { systemError } from '../errors.js';
import type { FullMetadataStore } from '../metadata/metadata-store.js';
import { mapConcurrent } from '../util/concurrent.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { TaskQueue } from '../util/task-queue.js';
import { withTimeout } from '../util/timeout.js';
import type { Intents, StoredIntent } from './intents.js';
import { type LayerMap, type LayerNode, recordedIDs, type RWMap, type RWNode } from './layer-map.js';
import type { References } from './references.js';
import type { Removals } from './removal.js';
import type { OwnPaths } from './root.js';
import { isRecorded } from './rw-layers.js';
import type { CleanupReport, FreedItem, GcReport, LayerMetadata, StoreUsage } from './types.js';

/** Milliseconds that small removals of a moment ago get to end: what is reported then is what lasts. */
const PATIENCE = 50;

/** A file or directory that an interrupted operation left, and that we may remove. */
export interface Leftover {
  item: FreedItem;
  /** Absent: the driver's own `cleanup` removes it. */
  remove?: () => Promise<void>;
}

/** Lists and removes what another room left on disk. */
export type LeftoverSource = () => Promise<readonly Leftover[]>;

/** Names the trees that somebody answers for. */
export type TreeSource = () => Promise<Iterable<string>>;

interface Leftovers {
  ours: Leftover[];
  foreign: { what: string; why: string; bytes: number }[];
}

const AT_ONCE = 4;
/** Of a tree that is being made or removed right now. */
const NO_USE = { size: 0, inodes: 0 };

interface DiskSpaceParts {
  readonly background: TaskQueue;
  readonly driver: Driver;
  readonly intents: Intents;
  readonly layers: LayerMap;
  readonly logger: LoggerLike;
  readonly metadata: FullMetadataStore;
  readonly own: OwnPaths;
  readonly references: References;
  readonly removals: Removals;
  readonly root: string;
  readonly rwLayers: RWMap;
}

export class DiskSpace {
  readonly #parts: DiskSpaceParts;
  readonly #leftoverSources: LeftoverSource[] = [];
  /** By room: trees of the driver that it answers for. */
  readonly #treeSources = new Map<string, TreeSource>();

  constructor(parts: DiskSpaceParts) {
    this.#parts = parts;
  }

  addLeftoverSource(source: LeftoverSource): void {
    this.#leftoverSources.push(source);
  }

  setTreeSource(room: string, source: TreeSource): void {
    this.#treeSources.set(room, source);
  }

  async cleanup(): Promise<CleanupReport> {
    await withTimeout(this.#parts.background.idle(), PATIENCE);
    const found = await this.#findLeftovers();
    const removed = await this.#removeLeftovers(found);
    await this.#parts.driver.cleanup();
    const stayed = new Set((await this.#driverLeftovers()).map(({ what }) => what));
    const gone = removed.ours.filter(({ remove, item }) => remove !== undefined || !stayed.has(item.what));
    return reportOf({ ours: gone, foreign: removed.foreign });
  }

  /** Removes our leftovers. An item that cannot be removed is logged and left out of the report. */
  async #removeLeftovers(found: Leftovers): Promise<Leftovers> {
    const ours = [];
    for (const leftover of found.ours) {
      try {
        await leftover.remove?.();
        ours.push(leftover);
      } catch (error) {
        this.#parts.logger.warn({ what: leftover.item.what, ...errorFields(error) }, 'a leftover cannot be removed');
      }
    }
    return { ours, foreign: found.foreign };
  }

  async gc(dryRun: boolean): Promise<GcReport> {
    const external = await this.#parts.references.external();
    if (external.incomplete !== undefined) {
      const { foreign } = reportOf(await this.#findLeftovers());
      return { items: [], foreign, bytes: 0, removed: [], dryRun, refused: external.incomplete };
    }
    const chains = external.chains;
    if (dryRun) {
      const leftovers = reportOf(await this.#findLeftovers());
      const nodes = this.#unreferenced(chains);
      return merge(
        leftovers,
        nodes.map(itemOf),
        nodes.map((node) => node.metadata()),
        true,
      );
    }
    const leftovers = await this.cleanup();
    const expired = this.#parts.references.expired();
    if (expired.length > 0) await this.#parts.references.drop(expired);
    const items: FreedItem[] = [];
    const removed: LayerMetadata[] = [];
    // Deepest first: removing a layer also removes parents that nothing else holds.
    for (const node of this.#unreferenced(chains)) {
      const taken = this.#parts.removals.takeUnheld(node, chains);
      if (taken.length === 0) continue;
      const gone = await this.#parts.removals.eraseAll(taken);
      removed.push(...gone);
      items.push(...taken.filter((one) => one.gone).map(itemOf));
    }
    return merge(leftovers, items, removed, false);
  }

  /** Layers without handle, RW layer, pin or reference, all of whose children are such layers; deepest first. */
  #unreferenced(external: ReadonlySet<ChainID>): LayerNode[] {
    const deepestFirst = [...this.#parts.layers].sort((a, b) => b.depth - a.depth);
    const doomedChildren = new Map<LayerNode, number>();
    return deepestFirst.filter((node) => {
      if (node.handles + node.rwLayers + node.pins > 0) return false;
      if (node.children > (doomedChildren.get(node) ?? 0)) return false;
      if (this.#parts.references.holds(node.chainID) || external.has(node.chainID)) return false;
      if (node.parent !== undefined) doomedChildren.set(node.parent, (doomedChildren.get(node.parent) ?? 0) + 1);
      return true;
    });
  }

  async #findLeftovers(): Promise<Leftovers> {
    const found: Leftovers = { ours: [], foreign: [] };
    const there = new Set(await this.#parts.driver.list());
    // Read after the listing: a layer that was published in between has a record, a new draft has an intent in memory.
    const recorded = recordedIDs(this.#parts.layers, this.#parts.rwLayers);
    const named = new Set<string>();
    for (const intent of await this.#parts.intents.stored()) {
      const ids = [intent.id, ...(intent.with ?? []), ...consumedIDs(intent)];
      for (const id of ids) named.add(id);
      const consumed = intent.kind === 'consume' && (await this.#hasRecord(intent)) ? intent : undefined;
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
          bytes: (await this.#bytesOf(gone)) + (await this.#parts.intents.bytesOf(intent.id)),
        },
        remove: async () => {
          if (consumed?.name !== undefined) await this.#parts.metadata.removeMount(consumed.name);
          for (const id of gone) await this.#parts.removals.withoutDeadMount(id, () => this.#parts.driver.remove(id));
          await this.#parts.intents.end(intent.id);
        },
      });
    }
    await this.#addRemovals(there, recorded, named, found);
    await this.#addBrokenRecords(named, found);
    for (const item of await this.#driverLeftovers()) found.ours.push({ item });
    await this.#addRecordIndexes(found);
    for (const source of this.#leftoverSources) found.ours.push(...(await source()));
    await this.#addForeign(there, recorded, named, found);
    return found;
  }

  /** Indexes of layer records, which the first versions of this package kept beside them. Nothing reads them any more. */
  async #addRecordIndexes(found: Leftovers): Promise<void> {
    const names = await readdir(this.#parts.own.directory).catch(() => []);
    for (const name of names.filter((each) => /^records-.*\.index/.test(each))) {
      const path = join(this.#parts.own.directory, name);
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
  async #driverLeftovers(): Promise<FreedItem[]> {
    return (await this.#parts.driver.leftovers()).map(({ what, why, bytes, pending }) => ({
      kind: pending ? 'pending' : 'leftover',
      what,
      why,
      bytes,
    }));
  }

  /** Whether the RW layer of an intent has a record, also if this process has removed it from its map. */
  async #hasRecord({ name, rwID }: StoredIntent): Promise<boolean> {
    if (name === undefined || rwID === undefined) return true; // a torn intent says too little to act on
    return isRecorded(this.#parts.metadata, name, rwID);
  }

  async #addRemovals(
    there: ReadonlySet<string>,
    recorded: ReadonlySet<string>,
    named: Set<string>,
    found: Leftovers,
  ): Promise<void> {
    for (const { chainID, cacheID } of await this.#parts.metadata.listRemoving()) {
      named.add(cacheID);
      if (this.#parts.removals.isRemoving(cacheID)) continue; // under way right now
      const files = there.has(cacheID) && !recorded.has(cacheID);
      found.ours.push({
        item: {
          kind: 'removing',
          what: chainID,
          why: 'its removal was begun and not ended',
          bytes: files ? await this.#bytesOf([cacheID]) : 0,
        },
        remove: async () => {
          if (files) await this.#parts.driver.remove(cacheID);
          await this.#parts.metadata.remove(chainID, cacheID);
        },
      });
    }
  }

  async #addBrokenRecords(named: Set<string>, found: Leftovers): Promise<void> {
    const { metadata } = this.#parts;
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

  async #addForeign(
    there: ReadonlySet<string>,
    recorded: ReadonlySet<string>,
    named: ReadonlySet<string>,
    found: Leftovers,
  ): Promise<void> {
    const answeredFor = await this.#answeredFor();
    for (const id of there) {
      if (answeredFor.has(id)) continue;
      if (recorded.has(id) || named.has(id) || this.#parts.intents.isLive(id)) continue;
      if (id.endsWith('-init') && this.#parts.intents.isLive(id.slice(0, -'-init'.length))) continue;
      found.foreign.push({
        what: id,
        why: 'no record and no intent of ours names it',
        bytes: await this.#bytesOf([id]),
      });
    }
    for (const name of await readdir(this.#parts.own.quarantine).catch(() => [])) {
      found.foreign.push({
        what: join('layerstore', 'quarantine', name),
        why: 'set aside at an earlier open: look at it, then delete it',
        bytes: await treeBytes(join(this.#parts.own.quarantine, name)),
      });
    }
  }

  async #answeredFor(): Promise<Set<string>> {
    const ids = new Set<string>();
    for (const source of this.#treeSources.values()) for (const id of await source()) ids.add(id);
    return ids;
  }

  /** Bytes allocated; 0 if the driver cannot tell, or if the id is being removed right now. */
  async #bytesOf(ids: readonly string[]): Promise<number> {
    let bytes = 0;
    for (const id of ids) bytes += (await this.#parts.driver.usage(id).catch(() => undefined))?.allocated ?? 0;
    return bytes;
  }

  async usage(): Promise<StoreUsage> {
    let layerBytes = 0;
    for (const node of this.#parts.layers) layerBytes += node.diffSize;
    const rwNodes = [...this.#parts.rwLayers];
    const each = await mapConcurrent(rwNodes, AT_ONCE, (node) => this.#usageOf(node));
    const trees = await this.#snapshotTrees();
    const treeUses = await mapConcurrent(trees, AT_ONCE, (id) => this.#parts.driver.usage(id).catch(() => NO_USE));
    const pending = await this.#parts.driver.leftovers();
    const disk = await statfs(this.#parts.root).catch((error: unknown) => {
      throw systemError(error, 'read the free space of the root');
    });
    return {
      layers: { count: this.#parts.layers.count, bytes: layerBytes },
      rwLayers: {
        count: rwNodes.length,
        bytes: each.reduce((sum, { bytes }) => sum + bytes, 0),
        inodes: each.reduce((sum, { inodes }) => sum + inodes, 0),
      },
      snapshots: {
        count: trees.length,
        bytes: treeUses.reduce((sum, { size }) => sum + size, 0),
        inodes: treeUses.reduce((sum, { inodes }) => sum + inodes, 0),
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

  /** Trees that other rooms answer for and that are no layers. */
  async #snapshotTrees(): Promise<string[]> {
    const answeredFor = await this.#answeredFor();
    const recorded = recordedIDs(this.#parts.layers, this.#parts.rwLayers);
    return [...answeredFor].filter((id) => !recorded.has(id));
  }

  async #usageOf(node: RWNode): Promise<{ bytes: number; inodes: number }> {
    const leave = node.readers.enter();
    try {
      if (node.gone) return { bytes: 0, inodes: 0 };
      const { size, inodes } = await this.#parts.driver.usage(node.mountID, node.belowID);
      return { bytes: size, inodes };
    } finally {
      leave();
    }
  }
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

function consumedIDs({ kind, rwID }: StoredIntent): string[] {
  return kind === 'consume' && rwID !== undefined ? [rwID, `${rwID}-init`] : [];
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

function reportOf(found: Leftovers): CleanupReport {
  const items = found.ours.map(({ item }) => item);
  return { items, foreign: found.foreign, bytes: items.reduce((sum, { bytes }) => sum + bytes, 0) };
}
