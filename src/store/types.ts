/** The public shapes of the store: options, reports, handles and the store itself. No logic. */
import type { Readable } from 'node:stream';
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { GraphDriver } from '../driver/graph-driver.js';
import type { LayerEntry } from '../driver/layer-entries.js';
import type { Change, ProgressListener, TarSource, TreeProblem, UnpackLimits } from '../engine/engine.js';
import type { Descriptor, MetadataStore } from '../metadata/metadata-store.js';

/** pino's shape: `logger.warn({ layer }, 'message')`. `console` fits too. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What `openStore` takes. Only `root` is needed. */
export interface StoreOptions {
  /** Data root, made if missing, mode 0710. */
  root: string;
  /** Default `auto`: a driver that has state under root wins; on an empty root the best that a real probe found. */
  driver?: 'overlay2' | 'vfs' | GraphDriver | 'auto';
  /** `overlay2.size`, `overlay2.mountopt`, …; unknown keys: ERR_INVALID_ARGUMENT. */
  driverOptions?: Readonly<Record<string, string>>;
  /** Default: files under `<root>/image/<driver>/layerdb`, Docker's own format. */
  metadataStore?: MetadataStore;
  /** Default `auto`: native where the addon loads, else pure JavaScript, said once through `logger`. */
  engine?: 'native' | 'js' | 'auto';
  /** Default `strict`: what register, createRWLayer, commit, release, retain resolved survives a power cut. */
  durability?: 'strict' | 'relaxed';
  /** Default 125. */
  maxDepth?: number;
  /** Defaults for every registration. */
  limits?: UnpackLimits;
  /** Beside one writer: takes no lock, writes nothing, mounts nothing. */
  readOnly?: boolean;
  /** Silent by default. */
  logger?: Logger;
  /** Opens a root that others than its owner may write to; refused by default. */
  allowWritableRoot?: boolean;
  /** Mounts a `volatile` RW layer that another boot left unclean: its contents may be damaged. */
  acceptVolatile?: boolean;
}

/** Options of everything that unpacks a tar. */
export interface RegisterOptions {
  /** Stops within 100 ms and leaves nothing behind; rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** Called at most ten times a second. What it throws ends the registration. */
  onProgress?: ProgressListener;
  /** Expected; ERR_DIGEST_MISMATCH otherwise, and nothing is kept. */
  diffID?: DiffID;
  /** Over one: ERR_LIMIT_EXCEEDED. They win over those of the store. */
  limits?: UnpackLimits;
  /** The layer is there already: check it, and repair it from this tar if it is damaged. */
  verifyExisting?: boolean;
}

/** One layer of an image for `registerChain`. */
export interface ChainLink {
  /** Plain, gzip or zstd, told by content. */
  tar: TarSource;
  /** Expected. A layer that exists already is found by it, and the tar is not read. */
  diffID: DiffID;
  /** Its digest and size are compared with the bytes that are read. */
  descriptor?: Descriptor;
  /** Counters of this layer alone; not called if the layer exists already. */
  onProgress?: ProgressListener;
}

/** Options of `createRWLayer`. */
export interface CreateRWLayerOptions {
  /** SELinux context; ERR_NOT_SUPPORTED where the kernel has none. */
  mountLabel?: string;
  /** Fills an init layer between parent and writable layer; no part of its changes, size or tar. What it throws is thrown. */
  initFunc?: (root: string) => void | Promise<void>;
  /** `{ size: '10G' }`; what cannot be enforced: ERR_NOT_SUPPORTED; unknown: ERR_INVALID_ARGUMENT. */
  storageOpt?: Readonly<Record<string, string>>;
}

/** Options of `close`. */
export interface CloseOptions {
  /** Ends the wait for files that are being unlinked. */
  signal?: AbortSignal;
  /**
   * Called at the end of a close that was cut short, or where something failed: so many removed layers, or parts of failed
   * ones, still have files on disk. The next open goes on with them.
   */
  onPending?: (removals: number) => void;
}

/** Options of `exportTo`. */
export interface ExportOptions {
  /** Compresses the tar, for a registry or an image; the tar is verified all the same. Default: not compressed. */
  compression?: 'gzip' | 'zstd';
  signal?: AbortSignal;
  /** `bytesRead` counts the tar's bytes; at most 10 reports a second. */
  onProgress?: ProgressListener;
}

/** One layer as it was when it was removed. */
export interface LayerMetadata {
  chainID: ChainID;
  diffID: DiffID;
  /** This layer and every parent, bytes. */
  size: number;
  /** This layer alone, bytes. */
  diffSize: number;
}

/** The state of an RW layer. */
export interface RWLayerInfo {
  name: string;
  /** The driver's id: 64 hex digits. */
  mountID: string;
  /** The driver's id of its init layer, where there is one. */
  initID?: string;
  parent?: ChainID;
  /** Number of active mounts, over all handles and adopted ones. */
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
  /** Why it can be removed. */
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
  /** Of RW layers, without their parents; found by walking their files. */
  rwLayers: { count: number; bytes: number; inodes: number };
  /**
   * Of containerd's snapshots with files of their own, without their parents; found by walking their files. Those that are
   * layers count there. Zero in a process that neither serves them nor is the command line.
   */
  snapshots: { count: number; bytes: number; inodes: number };
  /** Still allocated for removed layers, and parts of failed ones, whose files are not unlinked yet. */
  pendingRemoval: { count: number; bytes: number; inodes: number };
  /** Free and total bytes and inodes of the file system under the root. */
  fileSystem: { bytes: number; bytesFree: number; inodes: number; inodesFree: number };
}

/** Can be read as a tar. */
export interface TarStreamer {
  tarStream(): Promise<Readable>;
}

/** A path that exists until it is disposed of. */
export type MountedPath = { readonly path: string } & AsyncDisposable;

/**
 * A handle on a read-only layer; it keeps the layer until `store.release(layer)`. A released handle, and what `map()` or
 * `parent` gives once the layer is gone, rejects with ERR_LAYER_NOT_RETAINED.
 */
export interface Layer extends TarStreamer {
  readonly chainID: ChainID;
  readonly diffID: DiffID;
  /** Not a handle: cannot be released. */
  readonly parent: Layer | undefined;
  /** As given to `registerWithDescriptor`. */
  readonly descriptor: Descriptor | undefined;
  /**
   * The exact tar that was registered, uncompressed. If the digest differs, the stream fails with ERR_LAYER_CORRUPT instead of ending.
   *
   * ```ts
   * let bytes = 0;
   * for await (const chunk of await layer.tarStream()) bytes += (chunk as Buffer).length;
   * ```
   */
  tarStream(): Promise<Readable>;
  /** The difference from an ancestor as a tar; without one the whole tree. No ancestor of it: ERR_INVALID_ARGUMENT. */
  tarStreamFrom(ancestor?: ChainID): Promise<Readable>;
  /**
   * As `tarStream`, but written by the engine itself. A file appears under its path only when it is complete.
   *
   * ```ts
   * const { bytes, diffID } = await layer.exportTo({ path: 'exported.tar' });
   * console.log(bytes, diffID === layer.diffID);
   * ```
   */
  exportTo(target: { path: string } | { fd: number }, options?: ExportOptions): Promise<Exported>;
  /** Bytes of the layer's tar. From its record: no file of the layer is read. */
  tarSize(): Promise<number>;
  /**
   * What the layer's tar holds, in its order, without the content of files: names, types, sizes, owners, checksums. From
   * the layer's record, so that no file of it is read, and nothing is verified. A damaged record: ERR_LAYER_CORRUPT.
   *
   * ```ts
   * for await (const { path, type, size } of await layer.entries()) console.log(type, path, size); // file srv/x 1
   * ```
   */
  entries(options?: { signal?: AbortSignal }): Promise<AsyncIterable<LayerEntry>>;
  /**
   * The layer's whole tree, read-only, until disposed of. Counted as mounts are.
   *
   * ```ts
   * const { readdir } = await import('node:fs/promises');
   * await using view = await layer.view();
   * console.log(await readdir(view.path));
   * ```
   */
  view(): Promise<MountedPath>;
  /** Bytes of this layer and every parent: the apparent size of each inode that is no directory, hard links once. */
  size(): Promise<number>;
  /** Bytes of this layer alone. */
  diffSize(): Promise<number>;
  /** Details from the driver: `LowerDir`, `UpperDir` … */
  metadata(): Promise<Record<string, string>>;
}

/** A handle on a writable layer. Releasing the last one with `store.releaseRWLayer(rw)` removes the RW layer. */
export interface RWLayer extends TarStreamer {
  readonly name: string;
  /** Not a handle: cannot be released. */
  readonly parent: Layer | undefined;
  /** Number of active mounts, over all handles. */
  readonly mountCount: number;
  /** Its changes as a tar, the same bytes for the same tree; `sparse`: holes as GNU PAX 1.0 sparse entries. */
  tarStream(options?: { sparse?: boolean }): Promise<Readable>;
  /**
   * Mounts, or counts one more mount, and gives the absolute path of the root. Another label than the first: ERR_INVALID_ARGUMENT.
   *
   * ```ts
   * const path = await rw.mount();
   * console.log(path, rw.mountCount); // … 1
   * await rw.unmount();
   * ```
   */
  mount(mountLabel?: string): Promise<string>;
  /** Undoes one mount. None left: ERR_NOT_MOUNTED; busy: ERR_SYSTEM with `errnoName: 'EBUSY'` and `holders`. */
  unmount(): Promise<void>;
  /**
   * `mount` for `await using`.
   *
   * ```ts
   * {
   *   await using mounted = await rw.mounted();
   *   console.log(mounted.path);
   * }
   * console.log(rw.mountCount); // 0
   * ```
   */
  mounted(mountLabel?: string): Promise<MountedPath>;
  /** Bytes of its files, without its parent. */
  size(): Promise<number>;
  /**
   * Docker's set of changes, in byte order of path.
   *
   * ```ts
   * for (const change of await rw.changes()) console.log(formatChange(change)); // A /srv/x
   * ```
   */
  changes(): Promise<Change[]>;
  /**
   * Unpacks a tar, whiteouts applied, into the RW layer. Gives its size in bytes as `size()` counts.
   *
   * ```ts
   * console.log(await rw.applyDiff({ path: 'layer.tar' }));
   * ```
   */
  applyDiff(tar: TarSource, options?: RegisterOptions): Promise<number>;
  /** Details from the driver. */
  metadata(): Promise<Record<string, string>>;
}

/** A store that keeps the descriptors of compressed layers. */
export interface DescribableStore {
  /** As `register`; the descriptor's digest and size are checked against the bytes as they come: ERR_DIGEST_MISMATCH. */
  registerWithDescriptor(
    tar: TarSource,
    parent: ChainID | undefined,
    descriptor: Descriptor,
    options?: RegisterOptions,
  ): Promise<Layer>;
}

/**
 * Read-only layers by content, and RW layers by name. Every call may run beside every other. After `close()`:
 * ERR_STORE_CLOSED; what writes, on a read-only store: ERR_READ_ONLY. Sizes are bytes.
 */
export interface Store extends DescribableStore, AsyncDisposable {
  readonly driverName: string;
  readonly engineName: 'native' | 'js';
  /** Absolute path of the data root. */
  readonly root: string;
  readonly readOnly: boolean;
  readonly durability: 'strict' | 'relaxed';
  /** Whether `close()` was called. */
  readonly closed: boolean;
  /**
   * Unpacks a tar as a layer on `parent` and gives a handle. A layer that exists already is not made again.
   * ERR_LAYER_DOES_NOT_EXIST (the parent), ERR_MAX_DEPTH_EXCEEDED, ERR_BAD_TAR, ERR_BAD_COMPRESSION, ERR_UNSAFE_PATH,
   * ERR_LIMIT_EXCEEDED, ERR_DIGEST_MISMATCH, ERR_SYSTEM; a failed call leaves nothing behind.
   *
   * ```ts
   * const bottom = await store.register({ path: 'base.tar' });
   * const top = await store.register({ path: 'layer.tar' }, bottom.chainID);
   * console.log(await top.size());
   * console.log((await store.release(bottom)).length); // 0: `top` stands on it
   * console.log((await store.release(top)).length); // 2
   * ```
   */
  register(tar: TarSource, parent?: ChainID, options?: RegisterOptions): Promise<Layer>;
  /**
   * Several layers of one image, base first, unpacked side by side where the driver can; a handle on the top one. All or none.
   *
   * ```ts
   * const tars = ['base.tar', 'layer.tar'];
   * const links = await Promise.all(tars.map(async (path) => ({ tar: { path }, diffID: (await hashFile(path)).diffID })));
   * const chain = await store.registerChain(links);
   * ```
   */
  registerChain(layers: readonly ChainLink[], parent?: ChainID, options?: RegisterOptions): Promise<Layer>;
  /**
   * A new handle, to be released by itself. ERR_LAYER_DOES_NOT_EXIST.
   *
   * ```ts
   * const again = await store.get(layer.chainID);
   * await store.release(again); // `layer` still holds it
   * ```
   */
  get(chainID: ChainID): Promise<Layer>;
  /**
   * All layers by chain id. The values are not handles.
   *
   * ```ts
   * for (const [chainID, { diffID }] of store.map()) console.log(chainID, diffID);
   * ```
   */
  map(): ReadonlyMap<ChainID, Layer>;
  /**
   * Releases a handle. Returns the removed layers, top first, or `[]` if something else keeps the layer. A second release: ERR_LAYER_NOT_RETAINED.
   *
   * ```ts
   * for (const { chainID, diffSize } of await store.release(layer)) console.log(chainID, diffSize);
   * ```
   */
  release(layer: Layer): Promise<LayerMetadata[]>;
  /**
   * Makes a named reference, which keeps a layer across restarts. If the name exists, it moves to this layer.
   *
   * ```ts
   * await store.retain(layer.chainID, 'cache:step-1', { expires: new Date(Date.now() + 86_400_000) });
   * await store.release(layer); // nothing goes
   * console.log(store.references());
   * await store.dropReference('cache:step-1');
   * ```
   */
  retain(chainID: ChainID, name: string, options?: { expires?: Date }): Promise<void>;
  /** Removes a named reference and the layers that nothing else keeps. Returns the removed layers, top first. */
  dropReference(name: string): Promise<LayerMetadata[]>;
  /** All named references, also those that expired and were not collected yet. */
  references(): readonly Reference[];
  /**
   * A writable layer. Names match `^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`. ERR_MOUNT_NAME_CONFLICT, ERR_LAYER_DOES_NOT_EXIST.
   *
   * ```ts
   * const box = await store.createRWLayer('box', layer.chainID);
   * await store.releaseRWLayer(box);
   * ```
   */
  createRWLayer(name: string, parent?: ChainID, options?: CreateRWLayerOptions): Promise<RWLayer>;
  /**
   * A new handle. ERR_MOUNT_DOES_NOT_EXIST.
   *
   * ```ts
   * const again = await store.getRWLayer(rw.name);
   * console.log((await store.releaseRWLayer(again)).length); // 0: `rw` keeps it
   * ```
   */
  getRWLayer(name: string): Promise<RWLayer>;
  /** The driver's id. ERR_MOUNT_DOES_NOT_EXIST. */
  getMountID(name: string): Promise<string>;
  /**
   * The state of each RW layer, by name.
   *
   * ```ts
   * for (const [name, { parent, mountCount }] of store.mounts()) console.log(name, parent, mountCount);
   * ```
   */
  mounts(): ReadonlyMap<string, RWLayerInfo>;
  /** Releases a handle; releasing the last one removes the RW layer. While it is mounted: ERR_ACTIVE_MOUNT, and nothing changes. */
  releaseRWLayer(layer: RWLayer): Promise<LayerMetadata[]>;
  /**
   * The RW layer's changes become a read-only layer on its parent. `consume`: its directory is taken over; it must not be mounted.
   *
   * ```ts
   * const committed = await store.commit(rw);
   * console.log(committed.parent?.chainID === layer.chainID);
   * ```
   */
  commit(layer: RWLayer, options?: RegisterOptions & { consume?: boolean }): Promise<Layer>;
  /**
   * Reads and hashes one layer, or all, and compares.
   *
   * ```ts
   * const { ok, layers } = await store.verify();
   * if (!ok) console.log(layers.flatMap(({ problems }) => problems));
   * ```
   */
  verify(chainID?: ChainID, options?: VerifyOptions): Promise<VerifyReport>;
  /**
   * Replaces a layer's content from a tar with the same diff id; its children stay valid. ERR_DIGEST_MISMATCH.
   *
   * ```ts
   * await store.repair(base.chainID, { path: 'base.tar' });
   * ```
   */
  repair(chainID: ChainID, tar: TarSource): Promise<void>;
  /**
   * Removes what crashes of this package left; reports anything else.
   *
   * ```ts
   * console.log(await store.cleanup());
   * ```
   */
  cleanup(): Promise<CleanupReport>;
  /**
   * `cleanup`, and removes layers that nothing keeps: no handle, child, RW layer, reference or image.
   * Call `openImages(store)` first: before that, it removes no layer of a root with image records (`refused` says so), and
   * leaves the partial files of pulls.
   *
   * ```ts
   * const { removed, bytes, refused } = await store.gc({ dryRun: true });
   * console.log(removed.length, bytes, refused);
   * ```
   */
  gc(options?: { dryRun?: boolean }): Promise<GcReport>;
  /**
   * Where the bytes of the root are.
   *
   * ```ts
   * console.log(await store.usage());
   * ```
   */
  usage(): Promise<StoreUsage>;
  /** For `readOnly`: reads what the writer has published since the open or the last refresh. */
  refresh(): Promise<void>;
  /** Pairs of name and value for display, as in `docker info`. */
  driverStatus(): readonly (readonly [string, string])[];
  /**
   * Waits for running work and drops handles. No layer goes by it; mounts stay, and the next open takes them over. Files of
   * removed layers and of failed work are unlinked to the end, for at most 30 seconds; `signal` ends that wait. What is left
   * then is told, logged, counted by `usage()`, and removed by the next open. `await using` calls it.
   *
   * ```ts
   * await rw.mount();
   * await rw.unmount();
   * await store.close();
   * console.log(store.closed); // true
   * ```
   */
  close(options?: CloseOptions): Promise<void>;
  /**
   * Where `image/` adds what Docker's own records refer to; gc asks each, and deletes nothing where one throws. What a
   * source names is a reference like any other, so `release` of a last handle asks too, and keeps the layer.
   */
  addReferenceSource(source: () => Promise<Iterable<ChainID>>): void;
  /** Where `image/` adds the files that broken pulls left: `cleanup` and `gc` report and remove them. */
  addLeftoverSource(source: () => Promise<readonly { item: FreedItem; remove?: () => Promise<void> }[]>): void;
}
