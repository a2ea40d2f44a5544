/**
 * MetadataStore: what is known about layers and RW layers, apart from their files.
 * Required methods are enough for a store; the optional ones make it faster or safer. No driver is known here.
 */
import type { Readable, Writable } from 'node:stream';
import type { ChainID, DiffID, Digest } from '../digest.js';

/** The compressed form a layer came in, as image manifests describe it (OCI image-spec, descriptor.md). */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  size: number;
  urls?: string[];
  annotations?: Record<string, string>;
  platform?: unknown;
}

/** One layer's record in the making: invisible until `commit`. */
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
  remove(id: ChainID): Promise<void>;
  removeMount(name: string): Promise<void>;
}
