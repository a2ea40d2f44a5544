/**
 * Completes a program's own `MetadataStore`, of which only the required methods need to be there, to the contract that a
 * store works with. Every fallback for a missing method is here.
 */
import type { Readable } from 'node:stream';
import type { ChainID, DiffID } from '../digest.js';
import type { BatchOp, StepsAround, TarSplitTarget } from '../engine/engine.js';
import { NO_STEPS } from '../engine/batch-types.js';
import { LayerStoreError } from '../errors.js';
import { mapConcurrent } from '../util/concurrent.js';
import type {
  BrokenRecord,
  Descriptor,
  FullMetadataStore,
  FullMetadataTransaction,
  LayerRecord,
  LoadedRecords,
  MetadataStore,
  MetadataTransaction,
  MountRecord,
  NamedMountRecord,
} from './metadata-store.js';

/** Records read at once, one getter after the other for each. */
const AT_ONCE = 16;

/** Where intents are noted durably that records cannot be: recovery removes the files of what is noted and not recorded. */
export interface Journal {
  /** `also`: more ids that share its fate. */
  begin(id: string, kind: 'rw' | 'remove', also: readonly string[]): Promise<void>;
  /** Never rejects: a note that stays behind does no harm. */
  end(id: string): Promise<void>;
  /** The steps of `end`, for a batch. */
  endSteps(id: string): BatchOp[];
}

export function adaptMetadataStore(store: MetadataStore, journal: Journal): FullMetadataStore {
  return new AdaptedMetadataStore(store, journal);
}

class AdaptedMetadataStore implements FullMetadataStore {
  readonly #inner: MetadataStore;
  readonly #journal: Journal;
  /** Driver ids of removals that are noted in the journal, since the store cannot mark records. */
  readonly #noted = new Set<string>();

  constructor(inner: MetadataStore, journal: Journal) {
    this.#inner = inner;
    this.#journal = journal;
  }

  async startTransaction(): Promise<FullMetadataTransaction> {
    return new AdaptedTransaction(await this.#inner.startTransaction());
  }

  getSize(id: ChainID): Promise<number> {
    return this.#inner.getSize(id);
  }

  getParent(id: ChainID): Promise<ChainID | undefined> {
    return this.#inner.getParent(id);
  }

  getDiffID(id: ChainID): Promise<DiffID> {
    return this.#inner.getDiffID(id);
  }

  getCacheID(id: ChainID): Promise<string> {
    return this.#inner.getCacheID(id);
  }

  getDescriptor(id: ChainID): Promise<Descriptor | undefined> {
    return this.#inner.getDescriptor(id);
  }

  async tarSplit(id: ChainID): Promise<{ path: string } | Readable> {
    const path = await this.#inner.tarSplitPath?.(id);
    return path === undefined ? this.#inner.tarSplitReader(id) : { path };
  }

  async replaceTarSplit(id: ChainID, transaction: FullMetadataTransaction): Promise<void> {
    if (transaction instanceof AdaptedTransaction) await this.#inner.replaceTarSplit?.(id, transaction.inner);
  }

  /** The store's own record when all else is done. */
  async createMount(name: string, record: MountRecord, make: (around: StepsAround) => Promise<void>): Promise<void> {
    await this.#journal.begin(record.id, 'rw', initIDs(record));
    await make(NO_STEPS);
    try {
      await this.#setMount(name, record);
    } catch (error) {
      // What stays of it in pieces is no record, and the next open sets it aside.
      await this.#inner.removeMount(name).catch(() => undefined);
      throw error;
    }
    await this.#journal.end(record.id);
  }

  /** The store's own record before anything else. */
  async deleteMount(name: string, record: MountRecord, remove: (around: StepsAround) => Promise<void>): Promise<void> {
    await this.#journal.begin(record.id, 'remove', initIDs(record));
    try {
      await this.#inner.removeMount(name);
    } catch (error) {
      await this.#journal.end(record.id); // the record outweighs it
      throw error;
    }
    await remove({ before: [], after: this.#journal.endSteps(record.id) });
  }

  async #setMount(name: string, record: MountRecord): Promise<void> {
    const inner = this.#inner;
    if (inner.setMount !== undefined) return inner.setMount(name, record);
    // In pieces: the id comes last, since a record without one is none.
    if (record.parent !== undefined) await inner.setMountParent(name, record.parent);
    if (record.initID !== undefined) await inner.setInitID(name, record.initID);
    await inner.setMountID(name, record.id);
  }

  getMountID(name: string): Promise<string> {
    return this.#inner.getMountID(name);
  }

  getInitID(name: string): Promise<string | undefined> {
    return this.#inner.getInitID(name);
  }

  getMountParent(name: string): Promise<ChainID | undefined> {
    return this.#inner.getMountParent(name);
  }

  removeMount(name: string): Promise<void> {
    return this.#inner.removeMount(name);
  }

  list(): Promise<{ layers: ChainID[]; mounts: string[] }> {
    return this.#inner.list();
  }

  async markRemoving(id: ChainID): Promise<void> {
    const inner = this.#inner;
    if (inner.markRemoving !== undefined) return inner.markRemoving(id);
    const cacheID = await inner.getCacheID(id);
    await this.#journal.begin(cacheID, 'remove', []);
    try {
      await inner.remove(id);
    } catch (error) {
      await this.#journal.end(cacheID);
      throw error;
    }
    this.#noted.add(cacheID);
  }

  async listRemoving(): Promise<{ chainID: ChainID; cacheID: string }[]> {
    return (await this.#inner.listRemoving?.()) ?? [];
  }

  async remove(id: ChainID, cacheID?: string): Promise<void> {
    if (cacheID === undefined || !this.#noted.delete(cacheID)) return this.#inner.remove(id, cacheID);
    await this.#journal.end(cacheID);
  }

  async loadAll(): Promise<LoadedRecords> {
    const inner = this.#inner;
    if (inner.loadAll !== undefined) return inner.loadAll();
    const broken: BrokenRecord[] = [];
    const listed = await inner.list();
    const layers = await mapConcurrent(listed.layers, AT_ONCE, (id) => this.#loadLayer(id, broken));
    const mounts = await mapConcurrent(listed.mounts, AT_ONCE, (name) => this.#loadMount(name, broken));
    return {
      layers: layers.filter((layer) => layer !== undefined),
      mounts: mounts.filter((mount) => mount !== undefined),
      removing: await this.listRemoving(),
      broken,
    };
  }

  async listBroken(): Promise<BrokenRecord[]> {
    return (await this.#inner.listBroken?.()) ?? [];
  }

  async listTemporary(): Promise<BrokenRecord[]> {
    if (this.#inner.listTemporary !== undefined) return this.#inner.listTemporary();
    return (await this.listBroken()).filter(({ kind }) => kind === 'temporary');
  }

  async quarantine(broken: BrokenRecord, directory: string): Promise<string | undefined> {
    return this.#inner.quarantine?.(broken, directory);
  }

  async discard(broken: BrokenRecord): Promise<void> {
    if (this.#inner.discard !== undefined) return this.#inner.discard(broken);
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `cannot delete the unfinished record "${broken.what}": the metadata store has no "discard"; delete it there`,
    );
  }

  async #loadLayer(chainID: ChainID, broken: BrokenRecord[]): Promise<LayerRecord | undefined> {
    const inner = this.#inner;
    try {
      const [diffID, cacheID, size, parent, descriptor] = await Promise.all([
        inner.getDiffID(chainID),
        inner.getCacheID(chainID),
        inner.getSize(chainID),
        inner.getParent(chainID),
        inner.getDescriptor(chainID),
      ]);
      const record: LayerRecord = { chainID, diffID, cacheID, size };
      if (parent !== undefined) record.parent = parent;
      if (descriptor !== undefined) record.descriptor = descriptor;
      return record;
    } catch (error) {
      // Gone since the listing (a reader beside a writer): not there, not broken.
      if (!LayerStoreError.is(error, 'ERR_LAYER_DOES_NOT_EXIST')) {
        broken.push({ kind: 'layer', what: chainID, why: messageOf(error), chainID });
      }
      return undefined;
    }
  }

  async #loadMount(name: string, broken: BrokenRecord[]): Promise<NamedMountRecord | undefined> {
    const inner = this.#inner;
    try {
      const [id, initID, parent] = await Promise.all([
        inner.getMountID(name),
        inner.getInitID(name),
        inner.getMountParent(name),
      ]);
      const record: NamedMountRecord = { name, id };
      if (initID !== undefined) record.initID = initID;
      if (parent !== undefined) record.parent = parent;
      return record;
    } catch (error) {
      if (!LayerStoreError.is(error, 'ERR_MOUNT_DOES_NOT_EXIST')) {
        broken.push({ kind: 'mount', what: name, why: messageOf(error), name });
      }
      return undefined;
    }
  }
}

class AdaptedTransaction implements FullMetadataTransaction {
  readonly inner: MetadataTransaction;

  constructor(inner: MetadataTransaction) {
    this.inner = inner;
  }

  setSize(bytes: number): Promise<void> {
    return this.inner.setSize(bytes);
  }

  setParent(parent: ChainID): Promise<void> {
    return this.inner.setParent(parent);
  }

  setDiffID(id: DiffID): Promise<void> {
    return this.inner.setDiffID(id);
  }

  setCacheID(id: string): Promise<void> {
    return this.inner.setCacheID(id);
  }

  setDescriptor(descriptor: Descriptor): Promise<void> {
    return this.inner.setDescriptor(descriptor);
  }

  async tarSplitTarget(): Promise<TarSplitTarget> {
    const { inner } = this;
    return inner.tarSplitTarget === undefined ? { writer: await inner.tarSplitWriter(true) } : inner.tarSplitTarget();
  }

  commit(id: ChainID): Promise<void> {
    return this.inner.commit(id);
  }

  cancel(): Promise<void> {
    return this.inner.cancel();
  }

  toString(): string {
    return this.inner.toString();
  }
}

function initIDs({ initID }: MountRecord): string[] {
  return initID === undefined ? [] : [initID];
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
