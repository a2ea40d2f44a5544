/**
 * MetadataStore: what is known about layers and RW layers, apart from their files.
 * Required methods are enough for a store; the optional ones make it faster or safer. No driver is known here.
 */
import type { Readable, Writable } from 'node:stream';
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { StepsAround, TarSplitTarget } from '../engine/engine.js';

/** The compressed form a layer came in, as image manifests describe it (OCI image-spec, descriptor.md). */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  size: number;
  urls?: string[];
  annotations?: Record<string, string>;
  platform?: unknown;
}

/**
 * One layer's record in the making: invisible until `commit`. Sizes are bytes. A call after `commit` or `cancel`: `ERR_INVALID_ARGUMENT`.
 *
 * @example
 * ```ts
 * import { openStore } from 'layerstore';
 * import { createMemoryMetadataStore } from 'layerstore/testing';
 *
 * const records = createMemoryMetadataStore();
 * const transaction = await records.startTransaction();
 * await transaction.setSize(1234);
 * await transaction.cancel(); // nothing is listed
 * console.log((await records.list()).layers.length); // 0
 *
 * await using store = await openStore({ root: 'forgetful', metadataStore: records });
 * await store.register({ path: 'base.tar' });
 * console.log((await records.list()).layers.length); // 1
 * ```
 */
export interface MetadataTransaction {
  setSize(bytes: number): Promise<void>;
  setParent(parent: ChainID): Promise<void>;
  setDiffID(id: DiffID): Promise<void>;
  setCacheID(id: string): Promise<void>;
  setDescriptor(descriptor: Descriptor): Promise<void>;
  /** `true`: plain JSON comes in and the store compresses it; `false`: it is gzip already. */
  tarSplitWriter(compressInput: boolean): Promise<Writable>;
  /** Where native code may write the gzip file itself; used when present. */
  tarSplitTarget?(): Promise<{ path: string }>;
  /** One rename publishes the record. With `strict` durability it is on disk when this resolves. */
  commit(id: ChainID): Promise<void>;
  cancel(): Promise<void>;
  toString(): string;
}

/** A record of an RW layer, whole. */
export interface MountRecord {
  id: string;
  initID?: string;
  parent?: ChainID;
}

/** A record of an RW layer together with its name. */
export interface NamedMountRecord extends MountRecord {
  name: string;
}

/** All that a layer's record says. */
export interface LayerRecord {
  chainID: ChainID;
  diffID: DiffID;
  cacheID: string;
  /** Bytes of this layer alone. */
  size: number;
  parent?: ChainID;
  descriptor?: Descriptor;
}

/** Something in the store that is no usable record. */
export interface BrokenRecord {
  /**
   * `layer`, `mount`: a record that cannot be read. `removing`: a removal under way whose record no longer says what it
   * removes. `temporary`: a transaction that was never finished. The last two hold nothing that anybody needs.
   */
  kind: 'layer' | 'mount' | 'removing' | 'temporary';
  /** Where it is, relative to the store's directory: `sha256/<hex>`, `mounts/<name>`, `tmp/write-set-1`. */
  what: string;
  /** One clause: `"size" is empty`. */
  why: string;
  /** Absolute path, where there is one. */
  path?: string;
  /** The chain id that its name says, where that is one. */
  chainID?: ChainID;
  /** The RW layer that its name says. */
  name?: string;
  /** The driver's id that the record still names, where that file is readable: its directory is a layer. */
  cacheID?: string;
}

/** Everything a store holds, read in one go. */
export interface LoadedRecords {
  layers: LayerRecord[];
  mounts: NamedMountRecord[];
  removing: { chainID: ChainID; cacheID: string }[];
  /** Records that cannot be used; `temporary` ones are not looked for here, only by `listBroken`. */
  broken: BrokenRecord[];
}

/**
 * What is known about layers and RW layers apart from their files. The required methods are enough;
 * `metadataStoreSuite` of `layerstore/testing` checks them; the guide "Write a metadata store" has a whole one.
 * A getter of a layer that has no record rejects with `ERR_LAYER_DOES_NOT_EXIST`, of an RW layer with `ERR_MOUNT_DOES_NOT_EXIST`.
 *
 * @example
 * ```ts
 * import { openStore } from 'layerstore';
 * import { createMemoryMetadataStore } from 'layerstore/testing';
 *
 * const records = createMemoryMetadataStore();
 * await using store = await openStore({ root: 'in-memory', metadataStore: records });
 * const base = await store.register({ path: 'base.tar' });
 * console.log(await records.getDiffID(base.chainID), await records.getSize(base.chainID));
 * ```
 */
export interface MetadataStore {
  startTransaction(): Promise<MetadataTransaction>;

  getSize(id: ChainID): Promise<number>;
  getParent(id: ChainID): Promise<ChainID | undefined>;
  getDiffID(id: ChainID): Promise<DiffID>;
  getCacheID(id: ChainID): Promise<string>;
  getDescriptor(id: ChainID): Promise<Descriptor | undefined>;
  /** Uncompressed. */
  tarSplitReader(id: ChainID): Promise<Readable>;
  /** The gzip file itself, where there is one; used when present. */
  tarSplitPath?(id: ChainID): Promise<string | undefined>;

  setMountID(name: string, id: string): Promise<void>;
  setInitID(name: string, id: string): Promise<void>;
  setMountParent(name: string, parent: ChainID): Promise<void>;
  /** Whole and atomic; used when present. */
  setMount?(name: string, record: MountRecord): Promise<void>;
  getMountID(name: string): Promise<string>;
  getInitID(name: string): Promise<string | undefined>;
  getMountParent(name: string): Promise<ChainID | undefined>;

  list(): Promise<{ layers: ChainID[]; mounts: string[] }>;
  /** First step of a removal: the record is no longer listed as a layer, but found by `listRemoving`. */
  markRemoving?(id: ChainID): Promise<void>;
  listRemoving?(): Promise<{ chainID: ChainID; cacheID: string }[]>;
  /**
   * Ends the removal that `markRemoving` began; a record published under the same chain id since then stays. Where
   * nothing is marked, the record itself goes. `cacheID` picks one of several removals of the same chain id.
   */
  remove(id: ChainID, cacheID?: string): Promise<void>;
  removeMount(name: string): Promise<void>;

  /**
   * Every record at once, for opening a large store; the same answers as `list` and the getters. Never fails because of one record.
   */
  loadAll?(): Promise<LoadedRecords>;
  /** What is there but is no usable record, leftovers of unfinished transactions included (not those of this process). */
  listBroken?(): Promise<BrokenRecord[]>;
  /** The part of `listBroken` that `loadAll` leaves out: what unfinished transactions left. Cheap, however many records there are. */
  listTemporary?(): Promise<BrokenRecord[]>;
  /** Moves what `listBroken` or `loadAll` reported into `directory` (existing, same file system); gives its new path. */
  quarantine?(broken: BrokenRecord, directory: string): Promise<string>;
  /** A repaired layer: the tar-split record that `transaction` holds takes the place of the layer's own, atomically. The transaction is cancelled after that. */
  replaceTarSplit?(id: ChainID, transaction: MetadataTransaction): Promise<void>;
  /** Deletes what was reported. */
  discard?(broken: BrokenRecord): Promise<void>;
}

/**
 * The contract that a store works with: `MetadataStore` with every method there. The file store implements it;
 * `adaptMetadataStore` (adapt.ts) makes one of what a program brings.
 */
export interface FullMetadataStore extends Required<
  Omit<
    MetadataStore,
    | 'startTransaction'
    | 'tarSplitReader'
    | 'tarSplitPath'
    | 'setMountID'
    | 'setInitID'
    | 'setMountParent'
    | 'setMount'
    | 'replaceTarSplit'
    | 'quarantine'
  >
> {
  /**
   * Makes an RW layer together with its record. `make` makes the files of `record.id` (and of its init layer), the first of
   * its steps being `before` and the last `after`. From `before` on an intent names these ids, and it ends when there is the
   * record. After a rejection the intent may be there, and the record as well.
   */
  createMount(name: string, record: MountRecord, make: (around: StepsAround) => Promise<void>): Promise<void>;
  /**
   * Removes an RW layer together with its record, which goes with the steps `before`; from there on an intent names the ids,
   * until `after` ends it. A name without a record is no error. After a rejection the record is there, or the intent.
   */
  deleteMount(name: string, record: MountRecord, remove: (around: StepsAround) => Promise<void>): Promise<void>;
  startTransaction(): Promise<FullMetadataTransaction>;
  /** The tar-split record: its gzip file, or its content uncompressed, which the caller destroys. */
  tarSplit(id: ChainID): Promise<{ path: string } | Readable>;
  /** Nothing happens where the metadata store cannot do that: then a damaged tar-split record stays. */
  replaceTarSplit(id: ChainID, transaction: FullMetadataTransaction): Promise<void>;
  /** `undefined` where the record stays where it is. */
  quarantine(broken: BrokenRecord, directory: string): Promise<string | undefined>;
}

/** A {@link MetadataTransaction} as a store uses it. */
export interface FullMetadataTransaction extends Omit<MetadataTransaction, 'tarSplitWriter' | 'tarSplitTarget'> {
  /** Where the tar-split record goes: a file that an engine writes itself, or a stream that takes plain JSON. */
  tarSplitTarget(): Promise<TarSplitTarget>;
}
