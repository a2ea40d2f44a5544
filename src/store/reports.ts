/** What the store answers with: plain data. No logic. */
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { TreeProblem } from '../engine/engine.js';

/** One layer as it was when it was removed. */
export interface LayerMetadata {
  chainID: ChainID;
  diffID: DiffID;
  /** This layer and every parent, bytes. */
  size: number;
  /** This layer alone, bytes. */
  diffSize: number;
}

/** What is known of an RW layer without a handle on it. */
export interface RWLayerInfo {
  name: string;
  /** The driver's id: 64 hex digits. */
  mountID: string;
  /** The driver's id of its init layer, where there is one. */
  initID?: string;
  parent?: ChainID;
  /** Mounts that were not undone, over all handles and adopted ones. */
  mountCount: number;
  /** Absolute path of the root, while mounted. */
  path?: string;
}

/** A named reference: keeps a layer across restarts. */
export interface Reference {
  name: string;
  chainID: ChainID;
  expires?: Date;
}

/** What `exportTo` wrote; sizes are bytes. */
export interface Exported {
  /** Of the tar. */
  bytes: number;
  diffID: DiffID;
  /** What was written, where it was compressed. */
  blob?: { digest: Digest; size: number };
}

/** How `verify` reads. */
export interface VerifyOptions {
  /** Stops; rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** Layers read at once. Default 2. */
  concurrency?: number;
  /** Budget over all layers. Default: none. */
  bytesPerSecond?: number;
}

/** Something in a layer that is not as it was registered, and in which layer. */
export interface LayerProblem extends TreeProblem {
  chainID: ChainID;
}

/** What `verify` found. */
export interface VerifyReport {
  /** Layers that were read. */
  layers: readonly { chainID: ChainID; diffID: DiffID; ok: boolean; problems: readonly LayerProblem[] }[];
  /** Whether no layer has a problem that is more than cosmetic. */
  ok: boolean;
}

/** One thing that was, or would be, removed. */
export interface FreedItem {
  /** What it is: `layer`, `leftover`, `pending` (this process removes it already), `temporary`, `intent`, `removing`, … */
  kind: string;
  /** Chain id, driver id or path below the root. */
  what: string;
  /** Why nothing needs it. */
  why: string;
  bytes: number;
}

/** What `cleanup` removed and what it left alone. */
export interface CleanupReport {
  /** What was removed. */
  items: readonly FreedItem[];
  /** Reported, never touched: directories that nothing of ours names. */
  foreign: readonly { what: string; why: string; bytes: number }[];
  /** Sum over `items`. */
  bytes: number;
}

/** What `gc` removed, or would remove. */
export interface GcReport extends CleanupReport {
  /** Layers, children before parents. */
  removed: readonly LayerMetadata[];
  dryRun: boolean;
  /** Why nothing was deleted although something could have been. */
  refused?: string;
}

/** Disk use; sizes are bytes. */
export interface StoreUsage {
  /** From the sizes recorded at registration. */
  layers: { count: number; bytes: number };
  /** What RW layers hold above their parents, found by a walk of their own files. */
  rwLayers: { count: number; bytes: number; inodes: number };
  /** Layers, and parts of failed ones, whose files are not unlinked yet: what is still allocated for them. */
  pendingRemoval: { count: number; bytes: number; inodes: number };
  /** Free and total bytes and inodes of the file system under the root. */
  fileSystem: { bytes: number; bytesFree: number; inodes: number; inodesFree: number };
}
