/**
 * Driver: the whole contract between the store and what holds the files of layers. Every member is there; the drivers of
 * this package implement it, and `adapt.ts` makes one of somebody's own {@link GraphDriver}. The store sees nothing of how
 * a layer lies on disk: it hands over ids and gets bytes, trees and mounts.
 */
import type { Readable } from 'node:stream';
import type { DiffID } from '../digest.js';
import type {
  Assembled,
  AssembleRequest,
  AssembleToRequest,
  StepsAround,
  TreeProblem,
  VerifyTreeRequest,
} from '../engine/engine.js';
import type {
  ApplyOptions,
  ApplyResult,
  CreateReadWriteOptions,
  DriverLeftover,
  GraphDriver,
  LiveMount,
} from './graph-driver.js';
import type { LayerEntry } from './layer-entries.js';

/** A mount for another program to make, in the terms of mount(2) and fstab. */
export interface MountSpecification {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
  /** The directory that writes through the mount end up in; absent where it is read-only. */
  readonly writes?: string;
}

/** Mode (permission bits) and owner of the directory that a tree begins with. */
export interface TreeRoot {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Removes the files of an id that was detached. `signal` stops it at the next entry; the rest is the next cleanup's. */
export type Unlink = (signal?: AbortSignal) => Promise<void>;

/** A read-only layer, as far as giving back its registered bytes needs it. */
export interface ExactLayer {
  readonly id: string;
  readonly parent: string | undefined;
  readonly diffID: DiffID;
  /** Opens its tar-split record. Not called for a driver that reproduces exact diffs by itself. */
  readonly tarSplit: () => Promise<AssembleRequest['tarSplit']>;
}

export type ExactTarOptions = Pick<AssembleToRequest, 'compression' | 'signal' | 'onProgress'>;

export type VerifyOptions = Pick<VerifyTreeRequest, 'bytesPerSecond' | 'signal'>;

/** {@link GraphDriver} describes the members that a driver from outside has too. */
export interface Driver extends GraphDriver {
  /** With the store's steps; what was made, theirs too, is taken back at the first failure, but renames stay. */
  createReadWrite(
    id: string,
    parent: string | undefined,
    options: CreateReadWriteOptions,
    around?: StepsAround,
  ): Promise<void>;
  /**
   * Takes the id away at once, with the store's steps; what is returned unlinks its files and may run much later. An id
   * that is not there is no error. A call that failed can be made again without the steps that were done.
   */
  detach(id: string, around?: StepsAround): Promise<Unlink>;
  view(id: string): Promise<string>;
  commitDiff(
    id: string,
    parent: string | undefined,
    rwID: string,
    rwParent: string | undefined,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult>;
  undoConsume(id: string, rwID: string): Promise<void>;
  /** Whether {@link exchange} can be called: it rejects with ERR_NOT_SUPPORTED otherwise, which is late after an unpacking. */
  readonly exchanges: boolean;
  exchange(id: string, otherID: string): Promise<void>;
  sync(ids: readonly string[]): Promise<void>;
  liveMounts(): Promise<LiveMount[]>;
  /** Whether a mount that `get` made is there no more; `false` where the driver mounts nothing, or does not report mounts. */
  mountVanished(id: string): Promise<boolean>;
  adopt(id: string): Promise<string>;
  /** Disk use of the id's own files; `parent` is what its differences are against. */
  usage(id: string, parent?: string): Promise<{ size: number; allocated: number; inodes: number }>;
  leftovers(): Promise<Required<DriverLeftover>[]>;

  /** How another program can mount the id's whole tree. Mounts nothing and counts nothing. */
  mountSpecification(id: string, access: 'read-write' | 'read-only'): Promise<MountSpecification>;
  /** What the id's own tree begins with: on overlayfs that decides what the root of the whole tree looks like. */
  treeRoot(id: string): Promise<TreeRoot>;
  /** Changes that, durably where the store is strict. */
  setTreeRoot(id: string, root: TreeRoot): Promise<void>;
  /**
   * Puts an id that was made without a parent on one, with the differences that it holds; durable as `createReadWrite` is.
   * ERR_NOT_SUPPORTED where diffs are not independent.
   */
  rebase(id: string, parent: string): Promise<void>;

  /** The registered bytes; the stream errors with ERR_LAYER_CORRUPT rather than end on others. */
  exactTar(layer: ExactLayer): Promise<Readable>;
  /** The same into a descriptor, where it stands. */
  exactTarTo(layer: ExactLayer, fd: number, options: ExactTarOptions): Promise<Assembled>;
  /** Bytes of {@link exactTar}. */
  exactTarSize(layer: ExactLayer): Promise<number>;
  /** The entries of {@link exactTar} without their content. */
  entries(layer: ExactLayer, signal?: AbortSignal): AsyncGenerator<LayerEntry>;
  /** What is not as it was registered. Rejects with ERR_LAYER_CORRUPT where that cannot be said file by file. */
  verify(layer: ExactLayer, options: VerifyOptions): Promise<TreeProblem[]>;
}
