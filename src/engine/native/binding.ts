/**
 * The typed contract of the C++ addon; `native/binding/addon.cc` mirrors it line by line.
 *
 * Whatever is handed over, the process goes on: an argument that is wrong throws a {@link NativeArgumentError} that names
 * it. Everything else that fails rejects with a {@link NativeErrorRecord}: facts, from which `errors.ts` makes a
 * LayerStoreError. No call blocks the event loop.
 */
import type { Holder } from '../../errors.js';
import type {
  BatchOp,
  DeferredTeardown,
  MountEntry,
  MountTier,
  Privilege,
  TreeProblem,
  TreeUsage,
  UnpackLimits,
  WhiteoutForm,
} from '../engine.js';

/** What kind of failure it was: `Fault` of native/sys/result.h. */
export type NativeFault =
  | 'system'
  | 'badTar'
  | 'badCompression'
  | 'unsafePath'
  | 'limit'
  | 'corrupt'
  | 'notSupported'
  | 'invalid'
  | 'digestMismatch'
  | 'cancelled'
  | 'sourceError';

export interface NativeErrorRecord {
  fault: NativeFault;
  /** Positive, for `system`. */
  errno?: number;
  syscall?: string;
  path?: string;
  dest?: string;
  detail?: string;
  offset?: number;
  holders?: Holder[];
}

/** Thrown at once, before anything was done. Its `fault` tells it from a TypeError of somebody else's. */
export interface NativeArgumentError extends TypeError {
  fault: 'invalid';
}

export interface NativeProgress {
  bytesRead: number;
  bytesUnpacked: number;
  entries: number;
}

/** Asks running work to stop, and tells how far it is. One token for one call. */
export interface CancelToken {
  cancel(): void;
  progress(): NativeProgress;
}

export interface NativeIngestRequest {
  directory: string;
  whiteouts: WhiteoutForm;
  privilege: Privilege;
  /** A gzip file that is made (0600, must not be there); absent: no record. */
  tarSplit: string | undefined;
  hashBlob: boolean;
  limits: Required<UnpackLimits>;
  /** The source is this file; absent: what `write` pushes. */
  path: string | undefined;
  /** The file is still written: `grow` says how far it can be read, `end` that this was all. */
  growing: boolean;
  /** A range of that file; absent: all of it. */
  offset: number | undefined;
  length: number | undefined;
}

export interface NativeIngestResult {
  diffID: string;
  tarSize: number;
  size: number;
  entries: number;
  compression: 'none' | 'gzip' | 'zstd';
  blobSize: number;
  blobDigest: string | undefined;
  ignoredXattrs: number;
  ignoredOwners: number;
}

/** One registration. `start` once; then `write` one chunk at a time, or `grow`, and `end` or `fail`. */
export interface Ingest {
  start(): Promise<NativeIngestResult>;
  /** Copies the chunk; the promise resolves when there is room again, `undefined` is returned where there is some already. */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** Every byte of the growing file before `readable` is there and stays as it is. */
  grow(readable: number): void;
  end(): void;
  /** The source failed: the registration ends with fault `sourceError`. */
  fail(): void;
  cancel(): void;
  progress(): NativeProgress;
}

export interface NativeTreeStack {
  directories: readonly string[];
  whiteouts: WhiteoutForm;
}

export interface NativeDiffRequest {
  upper: NativeTreeStack;
  lower: NativeTreeStack | undefined;
  sparse: boolean;
  whiteoutsOf: NativeTreeStack | undefined;
}

/** Where a tar comes from: a record and a tree, or a difference. */
export type NativeTarRequest =
  { kind: 'assemble'; tarSplit: string; directory: string; diffID: string } | ({ kind: 'tree' } & NativeDiffRequest);

/** A tar that is pulled; a thread of its own runs ahead by a few blocks. */
export interface TarReader {
  /** The next block, `null` at the end. One call at a time. */
  read(): Promise<Buffer | null> | Buffer | null;
  /** Stops the thread; resolves when it has ended. */
  destroy(): Promise<void>;
}

export interface NativeCommitTreeRequest extends NativeDiffRequest {
  directory: string;
  consume: boolean;
  tarSplit: string;
  removedWhiteoutsTar: string | undefined;
}

export interface NativeVerifyRequest {
  tarSplit: string;
  directory: string;
  whiteouts: WhiteoutForm;
  privilege: Privilege;
  diffID: string;
  /** 0: no budget. */
  bytesPerSecond: number;
}

export interface NativeExportResult {
  /** Of the tar. */
  bytes: number;
  diffID: string;
  /** Of what was written, which is the tar where it was not compressed. */
  blobSize: number;
  blobDigest: string;
}

export interface NativeHashResult {
  digest: string;
  diffID: string;
  size: number;
  tarSize: number;
  compression: 'none' | 'gzip' | 'zstd';
}

export interface NativeChange {
  path: string;
  kind: 'modify' | 'add' | 'delete';
  rawPath?: Buffer;
}

export interface NativeOverlayMount {
  upper: string | undefined;
  work: string | undefined;
  lowers: readonly string[];
  target: string;
  options: readonly string[];
  tier: MountTier | 'auto';
}

/** {@link SmallFilesRow}s one after the other: the directory, then each file's content, errno, or `undefined`. */
export type NativeSmallFileTable = (string | number | undefined)[];

/** Released by `release`, by the collector, and by the end of the environment. */
export interface NativeFileLock {
  release(): void;
}

export interface Binding {
  CancelToken: new () => CancelToken;
  DeferredTeardown: new () => DeferredTeardown;
  Ingest: new (request: NativeIngestRequest) => Ingest;
  TarReader: new (request: NativeTarRequest) => TarReader;

  exportTar(
    request: NativeTarRequest & { kind: 'assemble' },
    compression: 'none' | 'gzip' | 'zstd',
    fd: number,
    token: CancelToken,
  ): Promise<NativeExportResult>;
  recordedSize(tarSplit: string, token: CancelToken): Promise<number>;
  hashFile(path: string, maxWindow: number, token: CancelToken): Promise<NativeHashResult>;
  changes(request: NativeDiffRequest, token: CancelToken): Promise<NativeChange[]>;
  diffSize(request: NativeDiffRequest, token: CancelToken): Promise<number>;
  /** {@link Engine.commitTree}. */
  commitTree(request: NativeCommitTreeRequest, token: CancelToken): Promise<NativeIngestResult>;
  usage(directory: string, token: CancelToken): Promise<TreeUsage>;
  copyTree(source: string, target: string, token: CancelToken): Promise<void>;
  removeTree(path: string, token: CancelToken): Promise<void>;
  verifyTree(request: NativeVerifyRequest, token: CancelToken): Promise<TreeProblem[]>;

  mountOverlay(mount: NativeOverlayMount): Promise<MountTier>;
  unmount(target: string, detach: boolean): Promise<void>;
  mountOnNewTarget(mount: NativeOverlayMount, mode: number): Promise<{ tier: MountTier; device: number }>;
  /** `teardown`: one of this addon's. */
  unmountAndRemove(
    target: string,
    device: number,
    teardown?: DeferredTeardown,
  ): Promise<'removed' | 'target-left' | 'foreign'>;
  mounts(directory: string): Promise<MountEntry[]>;
  batch(ops: readonly BatchOp[]): Promise<void>;
  readSmallFiles(directory: string, names: readonly string[], maxBytes: number): Promise<NativeSmallFileTable>;
  /** Each followed by a slash. */
  names(directory: string, directories: boolean): Promise<string>;
  syncFs(paths: readonly string[]): Promise<void>;
  lock(path: string, exclusive: boolean): Promise<NativeFileLock | undefined>;
  /** What runs a callback in a later turn of the event loop: results that come at once are spread over turns by it. */
  turnBy(turn: (callback: () => void) => void): void;
  features(): Record<string, string>;
}
