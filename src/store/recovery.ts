/**
 * What an open does about the past: joins records, intents, driver directories and the mount table. Each thing left half
 * done is finished, undone or set aside with one warning; live mounts are adopted. Nothing that a complete record refers
 * to is deleted, and one bad record stops neither the store nor the others.
 */
import { readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import { systemError } from '../errors.js';
import type { BrokenRecord, FullMetadataStore, LayerRecord, NamedMountRecord } from '../metadata/metadata-store.js';
import { TEMPORARY_SUFFIX } from '../util/atomic-file.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { randomID } from '../util/random-id.js';
import type { TaskQueue } from '../util/task-queue.js';
import { withTimeout } from '../util/timeout.js';
import type { Intents, StoredIntent } from './intents.js';
import { type LayerMap, type LayerNode, recordedIDs, type RWMap } from './layer-map.js';
import type { References } from './references.js';
import type { Removals } from './removal.js';
import type { OwnPaths } from './root.js';

/** An open waits so long for what may also run on behind it. */
const PATIENCE = 50;

/** What fits, bottom first, and what does not. */
interface ReconciledRecords {
  layers: LayerRecord[];
  mounts: NamedMountRecord[];
  broken: BrokenRecord[];
  removing: { chainID: ChainID; cacheID: string }[];
}

interface CheckedRecord {
  record: LayerRecord;
  below: CheckedRecord | undefined;
  fits: boolean | undefined;
}

interface RecoveryParts {
  readonly background: TaskQueue;
  readonly driver: Driver;
  readonly intents: Intents;
  readonly layers: LayerMap;
  readonly logger: LoggerLike;
  readonly metadata: FullMetadataStore;
  readonly own: OwnPaths;
  readonly references: References;
  readonly removals: Removals;
  readonly rwLayers: RWMap;
}

export class Recovery {
  readonly #parts: RecoveryParts;
  readonly #mutex = new KeyedMutex();

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
  }

  /** A reader's open, and its refresh: sees what is complete, changes nothing. */
  async loadReadOnly(): Promise<void> {
    const problem = await this.#parts.references.load();
    if (problem !== undefined)
      this.#parts.logger.warn({ why: problem }, 'the named references cannot be read completely');
    const joined = await this.#reconcileRecords();
    const taken = await this.#takenOver();
    this.#populate({ ...joined, mounts: joined.mounts.filter(({ id }) => !taken.has(id)) });
    for (const { what, why } of joined.broken) this.#parts.logger.debug({ what, why }, 'a record is left out');
    const live = new Map((await this.#parts.driver.liveMounts()).map(({ id, path }) => [id, path]));
    for (const rw of this.#parts.rwLayers) {
      rw.path = live.get(rw.mountID);
      rw.mountCount = rw.path === undefined ? 0 : 1;
    }
  }

  /** The same again, one after the other. */
  refresh(): Promise<void> {
    return this.#mutex.run('refresh', () => this.loadReadOnly());
  }

  /** RW layers whose files a commit takes over, or took when it was killed: to a read-only store they are incomplete. */
  async #takenOver(): Promise<Set<string>> {
    try {
      const intents = await this.#parts.intents.stored();
      return new Set(intents.flatMap(({ kind, rwID }) => (kind === 'consume' && rwID !== undefined ? [rwID] : [])));
    } catch (error) {
      // A root that no writer of ours has opened yet has no intents.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Set();
      throw systemError(error, 'read what a writer is about to do');
    }
  }

  /** A writer's open. */
  async recover(): Promise<void> {
    await this.#removeTemporaries();
    await this.#loadReferences();
    const joined = await this.#reconcileRecords();
    this.#populate(joined);
    const intents = await this.#parts.intents.stored();
    // Only directories that an intent or a begun removal names are candidates for removal.
    const recorded =
      intents.length + joined.removing.length === 0
        ? new Set<string>()
        : recordedIDs(this.#parts.layers, this.#parts.rwLayers);
    // A driver id in a damaged record is a layer too.
    for (const { cacheID } of joined.broken) if (cacheID !== undefined) recorded.add(cacheID);
    // Consumed RW layers first: undoing one may mend a record that seems broken.
    const again = await this.#settleConsumed(intents, recorded, joined);
    const settled = again ?? joined;
    for (const intent of intents) {
      if (intent.kind !== 'consume') await this.#settleIntent(intent, recorded);
    }
    await this.#finishRemovals(settled, recorded);
    await this.#setAside(settled.broken);
    await this.#dropTemporaryRecords(settled.broken);
    await this.#adoptMounts();
    this.#reportDangling();
    await withTimeout(
      this.#parts.background.push((signal) => this.#parts.driver.cleanup(signal)),
      PATIENCE,
    );
  }

  /** Files of our own that a crash left between writing and renaming. */
  async #removeTemporaries(): Promise<void> {
    for (const name of await readdir(this.#parts.own.directory)) {
      if (name.endsWith(TEMPORARY_SUFFIX)) await rm(join(this.#parts.own.directory, name), { force: true });
    }
  }

  async #loadReferences(): Promise<void> {
    const problem = await this.#parts.references.load();
    if (problem === undefined) return;
    const aside = join(this.#parts.own.quarantine, `${basename(this.#parts.own.references)}.${randomID(4)}`);
    await makeDirectory(this.#parts.own.quarantine, 0o700);
    await rename(this.#parts.own.references, aside);
    this.#parts.logger.warn(
      { why: problem, aside },
      'the named references were damaged: nothing counts as unreferenced until they are put back and "incomplete" is taken out of references.json',
    );
    await this.#parts.references.markIncomplete();
  }

  /**
   * A commit that was to take an RW layer's files over: after its publication the RW layer goes, before it the files go
   * back. Gives the records anew where that changed them.
   */
  async #settleConsumed(
    intents: readonly StoredIntent[],
    recorded: Set<string>,
    joined: ReconciledRecords,
  ): Promise<ReconciledRecords | undefined> {
    if (!intents.some(({ kind }) => kind === 'consume')) return undefined;
    let changed = false;
    const published = new Set(joined.layers.map(({ cacheID }) => cacheID));
    for (const intent of intents) {
      const { id, rwID, name } = intent;
      if (intent.kind !== 'consume' || rwID === undefined || name === undefined) continue;
      try {
        if (published.has(id)) {
          const rw = this.#parts.rwLayers.find(name);
          const broken = joined.broken.find((one) => one.kind === 'mount' && one.name === name && one.cacheID === rwID);
          if (rw?.mountID === rwID || broken !== undefined) await this.#parts.metadata.removeMount(name);
          for (const files of [rwID, rw?.initID ?? `${rwID}-init`]) {
            if (await this.#parts.driver.exists(files)) await this.#parts.driver.remove(files);
          }
        } else if (this.#hasRWRecord(joined, name, rwID)) {
          await this.#parts.driver.undoConsume(id, rwID);
        } else {
          // The layer was there already, so the RW layer was dropped and its files, which nobody needs, were to go next.
          for (const files of [id, rwID, `${rwID}-init`]) if (!recorded.has(files)) await this.discard(files);
        }
        await this.#parts.intents.end(id);
        changed = true;
        this.#parts.logger.info({ name, id }, 'an interrupted commit was settled');
      } catch (error) {
        recorded.add(id);
        this.#parts.logger.error(
          { name, id, ...errorFields(error) },
          'an interrupted commit cannot be settled; the next open tries again',
        );
      }
    }
    if (!changed) return undefined;
    const again = await this.#reconcileRecords();
    this.#populate(again);
    for (const id of recordedIDs(this.#parts.layers, this.#parts.rwLayers)) recorded.add(id);
    return again;
  }

  /** Whether a record, be it a damaged one, still says that the RW layer is there. */
  #hasRWRecord(joined: ReconciledRecords, name: string, rwID: string): boolean {
    if (this.#parts.rwLayers.find(name)?.mountID === rwID) return true;
    return joined.broken.some((one) => one.kind === 'mount' && (one.name === name || one.cacheID === rwID));
  }

  /** Directories that an intent names and no record does were never finished, or their removal was begun. */
  async #settleIntent(intent: StoredIntent, recorded: ReadonlySet<string>): Promise<void> {
    // Content lost by a power cut: an RW layer's init directory has a name that follows from its own.
    const ids = [intent.id, ...(intent.with ?? (intent.kind === undefined ? [`${intent.id}-init`] : []))];
    try {
      for (const id of ids) if (!recorded.has(id)) await this.discard(id);
      await this.#parts.intents.end(intent.id);
    } catch (error) {
      this.#parts.logger.warn(
        { id: intent.id, ...errorFields(error) },
        'an unfinished layer cannot be removed; the next cleanup tries again',
      );
    }
  }

  async discard(id: string): Promise<void> {
    if (!(await this.#parts.driver.exists(id))) return;
    await this.#parts.removals.withoutDeadMount(id, async () => {
      void this.#parts.background.push(await this.#parts.driver.detach(id));
    });
  }

  async #finishRemovals(joined: ReconciledRecords, recorded: ReadonlySet<string>): Promise<void> {
    for (const { chainID, cacheID } of joined.removing) {
      try {
        if (!recorded.has(cacheID)) await this.discard(cacheID);
        await this.#parts.metadata.remove(chainID, cacheID);
      } catch (error) {
        this.#parts.logger.warn(
          { chainID, cacheID, ...errorFields(error) },
          'a removal cannot be ended; the next cleanup tries again',
        );
      }
    }
  }

  /** Records that cannot be used are moved out of the way, with what they name left where it is. */
  async #setAside(broken: readonly BrokenRecord[]): Promise<void> {
    const { metadata } = this.#parts;
    for (const record of broken) {
      const { kind, what, why, cacheID } = record;
      if (kind === 'removing' || kind === 'temporary') continue;
      try {
        await makeDirectory(this.#parts.own.quarantine, 0o700);
        const aside = await metadata.quarantine(record, this.#parts.own.quarantine);
        this.#parts.logger.warn({ what, why, aside, files: cacheID }, 'a record cannot be used and is set aside');
      } catch (error) {
        this.#parts.logger.warn({ what, why, ...errorFields(error) }, 'a record cannot be used, nor set aside');
      }
    }
  }

  /** Unfinished transactions, and removals whose record no longer names a driver id. */
  async #dropTemporaryRecords(broken: readonly BrokenRecord[]): Promise<void> {
    const { metadata } = this.#parts;
    for (const record of [...broken, ...(await metadata.listTemporary())]) {
      if (record.kind !== 'temporary' && record.kind !== 'removing') continue;
      try {
        await metadata.discard(record);
        this.#parts.logger.debug({ what: record.what, why: record.why }, 'an unfinished record was dropped');
      } catch (error) {
        this.#parts.logger.warn(
          { what: record.what, ...errorFields(error) },
          'an unfinished record cannot be dropped; the next cleanup tries again',
        );
      }
    }
  }

  /** Adopts mounts of RW layers with count 1. Mounts of read-only layers were views of a process that has ended. */
  async #adoptMounts(): Promise<void> {
    const { driver } = this.#parts;
    const live = await driver.liveMounts();
    if (live.length === 0) return;
    const rwByID = new Map([...this.#parts.rwLayers].map((rw) => [rw.mountID, rw]));
    const views = new Set([...this.#parts.layers].map(({ cacheID }) => cacheID));
    for (const { id, path } of live) {
      const rw = rwByID.get(id);
      if (rw === undefined && !views.has(id)) continue; // Docker's, or of something set aside
      try {
        const adopted = await driver.adopt(id);
        if (rw === undefined) {
          await driver.put(id);
          continue;
        }
        rw.path = adopted;
        rw.label = null;
        rw.mountCount = 1;
        rw.unowned = 1;
      } catch (error) {
        this.#parts.logger.warn(
          { id, path, name: rw?.name, ...errorFields(error) },
          'a mount of an earlier process cannot be taken over',
        );
      }
    }
  }

  #reportDangling(): void {
    for (const chainID of this.#parts.references.dangling((id) => this.#parts.layers.find(id) !== undefined)) {
      this.#parts.logger.warn(
        { chainID },
        'a named reference is on a layer that is not there: somebody else removed it, or it was set aside',
      );
    }
  }

  async #reconcileRecords(): Promise<ReconciledRecords> {
    // The records, then the directories they name: a layer that a writer publishes meanwhile has its directory by then.
    const loaded = await this.#parts.metadata.loadAll();
    const there = new Set(await this.#parts.driver.list());
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

  /** Synchronously: the maps hold exactly what `joined` says; nodes that stay the same keep their counts. */
  #populate(joined: ReconciledRecords): void {
    const empty = this.#parts.layers.count === 0;
    const wanted = new Map(empty ? [] : joined.layers.map((record) => [record.chainID, record]));
    const mounts = new Map(joined.mounts.map((mount) => [mount.name, mount]));
    for (const rw of [...this.#parts.rwLayers])
      if (mounts.get(rw.name)?.id !== rw.mountID) this.#parts.rwLayers.take(rw);
    const deepestFirst = [...this.#parts.layers].sort((a, b) => b.depth - a.depth);
    for (const node of deepestFirst)
      if (wanted.get(node.chainID)?.cacheID !== node.cacheID) this.#parts.layers.take(node);
    // A chain's layers come one after the other, so that the last one is mostly the parent.
    let last: LayerNode | undefined;
    for (const record of joined.layers) {
      if (!empty && this.#parts.layers.find(record.chainID) !== undefined) continue;
      const { parent } = record;
      let below: LayerNode | undefined;
      if (parent !== undefined) below = last?.chainID === parent ? last : this.#parts.layers.find(parent);
      last = this.#parts.layers.add(record, below);
    }
    for (const { name, id, initID, parent } of joined.mounts) {
      if (this.#parts.rwLayers.find(name) !== undefined) continue;
      this.#parts.rwLayers.add(
        { name, mountID: id, initID },
        parent === undefined ? undefined : this.#parts.layers.find(parent),
      );
    }
  }
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
