/**
 * Engine: what moves bytes or calls the kernel. Two implementations, `native/` (the C++ addon) and `js/`; everything
 * above asks only this interface. An engine knows directories and tars; it knows no layer ids, no drivers, no records.
 *
 * Rules for every method: an `AbortSignal` rejects with `signal.reason` as it is; any other failure is a LayerStoreError,
 * except an error of the caller's own source stream, which comes through unchanged; nothing is left running after the
 * promise settled.
 */
import type { Readable, Writable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import type { DiffID, Digest } from '../digest.js';
import type { BatchOp } from './batch-types.js';
import type { MountEntry, MountTier, OverlayMount } from './mount-types.js';
import type { SmallFilesRow } from './small-files.js';

export type { BatchOp, StepsAround } from './batch-types.js';
export type { MountEntry, MountTier, OverlayMount } from './mount-types.js';
export type { SmallFilesRow } from './small-files.js';

/**
 * A tar: plain, gzip or zstd, told by its content and never by a name. `{ path }` never passes through JavaScript.
 * `offset` and `length` (bytes; both or neither) name a range of that file, so that a layer inside an image archive is
 * read where it lies. The range is the whole source: what lies behind it is not looked at, a file that ends inside it is
 * a truncated source, and `Progress.totalBytes` is `length`.
 */
export type TarSource =
  | Readable
  | AsyncIterable<Uint8Array>
  | ReadableStream<Uint8Array>
  | { path: string; offset?: number; length?: number };

/** One difference between a tree and what lies below it. Paths are absolute inside the tree: `/etc/passwd`. */
export interface Change {
  path: string;
  kind: 'modify' | 'add' | 'delete';
  /** The path's bytes, where they are no UTF-8; `path` then holds replacement characters. */
  rawPath?: Uint8Array;
}

/** Counters of a registration; at most 10 reports a second. All are bytes but `entries`. */
export interface Progress {
  /** Bytes read from the source, as they came (compressed where they are). */
  bytesRead: number;
  /** Size of the source where it is known before (a file). */
  totalBytes?: number;
  /** Bytes of tar after decompression. */
  bytesUnpacked: number;
  entries: number;
}
export type ProgressListener = (progress: Progress) => void;

/** Limits of one registration. Absent: the default of {@link DEFAULT_LIMITS}; `Infinity` lifts one. */
export interface UnpackLimits {
  /** Bytes of tar after decompression. Default: no limit but the free-space reserve. */
  maxBytes?: number;
  /** Tar entries. Default 10,000,000. */
  maxEntries?: number;
  /** Unpacked bytes to one compressed byte, counted only after 4 GiB are unpacked. Default 200. */
  maxRatio?: number;
  /** Bytes of an entry's path. Default 4,096. */
  maxPathLength?: number;
  /** Components of an entry's path. Default 1,024. */
  maxPathDepth?: number;
  /** Bytes of one entry's extension headers (PAX, GNU long names). Default 1 MiB. */
  maxHeaderBytes?: number;
  /** Bytes of one entry's extended attributes, names and values. Default 1 MiB. */
  maxXattrBytes?: number;
  /** Extended attributes of one entry. Default 1,024. */
  maxXattrs?: number;
  /** Bytes of a symbolic link's target. Default 4,095. */
  maxLinkLength?: number;
  /** Window of a zstd frame in bytes. Default 128 MiB. */
  maxWindow?: number;
  /** Bytes of file content kept in the tar-split record, because they cannot be read back from the tree. Default 1 GiB. */
  maxKeptBytes?: number;
  /** Bytes of free space that unpacking must leave on the file system. Default: the smaller of 1 GiB and 5 %. */
  minFreeBytes?: number;
}

/**
 * How a whiteout of the tar reaches the directory. `overlay`: a 0:0 character device and `trusted.overlay.opaque`;
 * `overlay-user`: the same with `user.overlay.opaque`; `plain`: what it hides is removed (the directory holds the parent's tree too).
 */
export type WhiteoutForm = 'overlay' | 'overlay-user' | 'plain';

/**
 * What the maker of a layer may do with files. `full`: root of the machine. `namespace`: root of a user namespace, where no
 * device can be made (an empty file stands in for it) and no attribute of `trusted.` or `security.` but capabilities can be
 * set. `none`: a plain user; owners, setuid and setgid bits and capabilities are left out, too, and the maker may always
 * read what it made. What is left out is kept by the record alone: the tar still comes back exactly, and `verifyTree` goes
 * by the same rules.
 */
export type Privilege = 'full' | 'namespace' | 'none';

/** Where the gzipped tar-split record goes: a file the engine makes itself (0600, fails if it is there), or a stream of plain JSON lines. */
export type TarSplitTarget = { path: string } | { writer: Writable };

export interface IngestRequest {
  /** An existing directory that becomes the layer's tree. */
  directory: string;
  whiteouts: WhiteoutForm;
  /** Default: `full`. */
  privilege?: Privilege;
  tarSplit?: TarSplitTarget;
  /** Checked against the bytes as they come, compressed ones where compressed: ERR_DIGEST_MISMATCH. */
  blob?: { digest: Digest; size: number };
  /** Asks for `blobDigest` although nothing is expected. */
  hashBlob?: boolean;
  /** Checked at the end: ERR_DIGEST_MISMATCH. */
  diffID?: DiffID;
  limits?: UnpackLimits;
  signal?: AbortSignal;
  onProgress?: ProgressListener;
}

export interface IngestResult {
  diffID: DiffID;
  /** Bytes of the uncompressed tar. */
  tarSize: number;
  /** Apparent size of every inode made that is no directory: hard links once, symbolic links by target length. */
  size: number;
  entries: number;
  compression: 'none' | 'gzip' | 'zstd';
  /** Bytes read from the source. */
  blobSize: number;
  /** SHA-256 of the bytes read from the source; only where `blob` or `hashBlob` asked for it (or the tar is plain). */
  blobDigest?: Digest;
  /**
   * Extended attributes of files that were not set, still given back on export: those of overlayfs itself, of namespaces that
   * xattr(7) does not name, `user.` of links and special files, what the file system does not have, and what the maker had
   * no {@link Privilege} for.
   */
  ignoredXattrs: number;
  /** Files with a uid or gid of -1 (4294967295), which the kernel gives to no file, and all where the privilege is `none`: their owner is the unpacking process. */
  ignoredOwners: number;
}

/** What `hashFile` found. Sizes are bytes. */
export interface HashFileResult {
  /** Of the file as it is. */
  digest: Digest;
  /** Of the uncompressed tar. */
  diffID: DiffID;
  /** Of the file. */
  size: number;
  /** Of the uncompressed tar. */
  tarSize: number;
  compression: 'none' | 'gzip' | 'zstd';
}

/** One layer's files, without a mount. */
export interface DiffGetter {
  /** The directory that holds the files, where there is one; an engine may read it by itself. */
  readonly directory?: string;
  /** The content of the file that the tar entry `name` made; ERR_LAYER_CORRUPT where it is gone. */
  open(name: Uint8Array): Promise<Readable>;
  close(): Promise<void>;
}

export interface AssembleRequest {
  /** The tar-split record: a gzip file, or a stream of plain JSON lines. */
  tarSplit: { path: string } | Readable;
  tree: DiffGetter;
  /** Verified: the stream errors with ERR_LAYER_CORRUPT rather than end on other bytes. */
  diffID: DiffID;
  signal?: AbortSignal;
}

export type BlobCompression = 'gzip' | 'zstd';

export interface AssembleToRequest extends AssembleRequest {
  /** The descriptor gets the tar compressed; it is verified all the same, and the blob is hashed in the same pass. */
  compression?: BlobCompression;
  /** `bytesRead` counts the tar's bytes. */
  onProgress?: ProgressListener;
}

export interface Assembled {
  /** Of the tar. */
  bytes: number;
  diffID: DiffID;
  /** What was written, where it was compressed. */
  blob?: { digest: Digest; size: number };
}

/** A tree made of directories stacked in overlayfs form, or one plain directory. */
export interface TreeStack {
  /** Upper first. */
  directories: readonly string[];
  /** `overlay` and `overlay-user`: whiteouts and opaque directories as overlayfs knows them; `plain`: one plain directory. */
  whiteouts: WhiteoutForm;
}

/**
 * What differs between `upper` and `lower`.
 * In overlay form `upper` holds only what changed, and lies on top of `lower`; in `plain` form both are whole trees.
 */
export interface DiffRequest {
  upper: TreeStack;
  /** Absent: everything in `upper` is an addition. */
  lower?: TreeStack;
  signal?: AbortSignal;
}

/** The tar of a difference; its format is in docs/on-disk-format.md: the same bytes for the same tree. */
export interface TreeTarRequest extends DiffRequest {
  /** Holes as GNU PAX 1.0 sparse entries instead of zeros. */
  sparse?: boolean;
  /**
   * Where given: a whiteout is written (and committed to a layer) only if this tree has the name that it hides. Of an RW layer
   * on an init layer `lower` is both, and this is the parent alone: a commit onto the parent then carries no whiteout of a
   * file that only the init layer had. Absent: nothing is compared.
   */
  whiteoutsOf?: TreeStack;
}

export interface CommitTreeRequest extends TreeTarRequest {
  /** Receives the changes of `upper` (its first directory) as a layer's directory; made by the engine unless `consume`. */
  directory: string;
  /** The first directory of `upper` was already renamed to `directory`: take overlay's own xattrs off, copy nothing. */
  consume: boolean;
  /**
   * With `consume` and `whiteoutsOf`: path of a tar of the whiteouts to be removed, synced before the first is removed. Not
   * created if there are none.
   */
  removedWhiteoutsTar?: string;
  tarSplit: TarSplitTarget;
  onProgress?: ProgressListener;
}

export interface TreeUsage {
  /** Apparent size of every inode that is no directory, hard links once. */
  size: number;
  /** Bytes allocated on disk. */
  allocated: number;
  inodes: number;
}

export interface VerifyTreeRequest {
  tarSplit: { path: string } | Readable;
  tree: DiffGetter;
  whiteouts: WhiteoutForm;
  /** Of who made the tree; default: `full`. */
  privilege?: Privilege;
  diffID: DiffID;
  /** Bytes a second; absent: as fast as the disk gives. */
  bytesPerSecond?: number;
  signal?: AbortSignal;
}

/** Something in a layer that is not as it was registered. */
export interface TreeProblem {
  /** Path inside the layer. */
  path: string;
  /** `content`, `missing`, `type`, `mode`, `owner`, `mtime`, `xattr`, `link`, `size`, `extra`, `record` */
  what: string;
  expected: string;
  found: string;
  /** Cosmetic problems change nothing that a program in the layer reads: an mtime alone. */
  cosmetic: boolean;
}

/** An advisory whole-file lock (`flock`), released by `release()` and by the end of the process. */
export interface FileLock {
  release(): Promise<void>;
}

export interface EngineFeatures {
  /** Kernel release. */
  kernel: string;
  /** Feature -> 'yes', or why not: openat2, fsopen, lowerdir+, fsconfig-fd, isal, zstd, crc64, renameat2, reflink … */
  readonly [feature: string]: string;
}

/** File systems that were unmounted but are kept alive. `end` resolves when the kernel has torn down those kept so far. */
export interface DeferredTeardown {
  end(): Promise<void>;
}

/**
 * What moves bytes or calls the kernel; drivers are written against it. Sizes are bytes. Rejects with `LayerStoreError`s, and
 * with `signal.reason` where a `signal` is taken.
 *
 * @example
 * ```ts
 * const engine = await openEngine();
 * console.log(engine.name, engine.features().kernel);
 * ```
 */
export interface Engine {
  readonly name: 'native' | 'js';
  /**
   * Whether it reads layers whose directories were renamed with `redirect_dir=on` and whose files were copied up with
   * `metacopy=on`. If not, drivers mount writable layers with both off.
   */
  readonly followsRedirects: boolean;
  features(): EngineFeatures;

  hashFile(path: string, options?: { signal?: AbortSignal }): Promise<HashFileResult>;
  ingest(source: TarSource, request: IngestRequest): Promise<IngestResult>;

  /** The exact tar, pulled. */
  assemble(request: AssembleRequest): Promise<Readable>;
  /** The exact tar, written to a descriptor without JavaScript in the way. ERR_NOT_SUPPORTED for a compression that is not there. */
  assembleTo(request: AssembleToRequest, fd: number): Promise<Assembled>;
  /** Bytes of the tar that a tar-split record describes; reads the record alone. */
  recordedSize(tarSplit: AssembleRequest['tarSplit'], options?: { signal?: AbortSignal }): Promise<number>;
  verifyTree(request: VerifyTreeRequest): Promise<TreeProblem[]>;

  changes(request: DiffRequest): Promise<Change[]>;
  /** Apparent size of what `upper` adds, in Docker's terms. */
  diffSize(request: DiffRequest): Promise<number>;
  treeTar(request: TreeTarRequest): Promise<Readable>;
  /** Makes a layer's directory of a difference: hashed, recorded, cloned or taken over in one pass. */
  commitTree(request: CommitTreeRequest): Promise<IngestResult>;

  usage(directory: string, options?: { signal?: AbortSignal }): Promise<TreeUsage>;
  /** Copies the content of `source` into the existing directory `target`, by reflink where the file system can; metadata of `target` too. */
  copyTree(source: string, target: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** Removes a tree, without following links, crossing no mount; a path that is gone is no error. */
  removeTree(path: string, options?: { signal?: AbortSignal }): Promise<void>;

  mountOverlay(mount: OverlayMount): Promise<MountTier>;
  /** ERR_SYSTEM/EBUSY has `holders`; EINVAL where nothing is mounted. */
  unmount(target: string, options?: { detach?: boolean }): Promise<void>;
  /** {@link mountOverlay} on a directory made for it (EEXIST of `mkdir` where there is one), gone after a failure. `device`: `stat`'s. */
  mountOnNewTarget(mount: OverlayMount, mode: number): Promise<{ tier: MountTier; device: number }>;
  /**
   * {@link unmount} of what has this device number, and the mount point removed: `removed`. `target-left`: unmounted, but
   * the mount point could not be removed. `foreign`: something else is mounted there, or nothing can be seen, and nothing
   * was done. With `teardown`, one of this engine's, the end of the file system, which syncs what lies below it, may be left
   * to that.
   */
  unmountAndRemove(
    target: string,
    device: number,
    teardown?: DeferredTeardown,
  ): Promise<'removed' | 'target-left' | 'foreign'>;
  deferredTeardown(): DeferredTeardown;
  /** The mount table of this process at or below `directory`, in mount order. */
  mounts(directory: string): Promise<MountEntry[]>;

  batch(ops: readonly BatchOp[]): Promise<void>;
  /**
   * Reads small files in bulk: each of `names` in each directory right below `directory` (its entries that are no
   * directories, links included, are left out).
   */
  readSmallFiles(directory: string, names: readonly string[], maxBytes: number): Promise<SmallFilesRow[]>;
  /** Names of the entries of a directory, or of those that are directories. */
  names(directory: string, only: 'directories' | 'all'): Promise<string[]>;
  /** syncfs of the file systems that hold `paths`, each once. A call covers what was written before it began. */
  syncFs(paths: readonly string[]): Promise<void>;
  /** Locks a file, made if missing (0600); `undefined` where somebody else holds it. Never waits. */
  lock(path: string, mode: 'exclusive' | 'shared'): Promise<FileLock | undefined>;
}
