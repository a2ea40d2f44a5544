/** The public shapes of the store: options, handles, reports. No logic. */
import type { Readable } from 'node:stream';
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { Change, ProgressListener, TarSource, TreeProblem, UnpackLimits } from '../engine/engine.js';
import type { GraphDriver } from '../driver/graph-driver.js';
import type { Descriptor, MetadataStore } from '../metadata/metadata-store.js';

/** pino's shape: `logger.warn({ layer }, 'message')`. `console` fits too. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

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

export interface RegisterOptions {
  /** Stops within 100 ms and leaves nothing behind; rejects with `signal.reason`. */
  signal?: AbortSignal;
  onProgress?: ProgressListener;
  /** Expected; ERR_DIGEST_MISMATCH otherwise, and nothing is kept. */
  diffID?: DiffID;
  limits?: UnpackLimits;
  /** The layer is there already: check it, and repair it from this tar if it is damaged. */
  verifyExisting?: boolean;
}

/** One layer of an image for `registerChain`. */
export interface ChainLink {
  tar: TarSource;
  diffID: DiffID;
  descriptor?: Descriptor;
  /** Counters of this layer alone; not called where the layer is there already. */
  onProgress?: ProgressListener;
}

export interface LayerMetadata {
  chainID: ChainID;
  diffID: DiffID;
  /** This layer and every parent, bytes. */
  size: number;
  /** This layer alone, bytes. */
  diffSize: number;
}

export interface RWLayerInfo {
  name: string;
  mountID: string;
  initID?: string;
  parent?: ChainID;
  mountCount: number;
  path?: string;
}

export interface CreateRWLayerOptions {
  /** SELinux context; ERR_NOT_SUPPORTED where the kernel has none. */
  mountLabel?: string;
  /** Fills an init layer between parent and writable layer. */
  initFunc?: (root: string) => void | Promise<void>;
  /** `{ size: '10G' }`; what cannot be enforced: ERR_NOT_SUPPORTED; unknown: ERR_INVALID_ARGUMENT. */
  storageOpt?: Readonly<Record<string, string>>;
}

/** Anything whose content can be read as a tar. */
export interface TarStreamer {
  tarStream(): Promise<Readable>;
}

/** A path that is there until disposed of. */
export type MountedPath = { readonly path: string } & AsyncDisposable;

export interface ExportOptions {
  /** The target gets the tar compressed, for a registry or an image; the tar is verified all the same. Default: as it is. */
  compression?: 'gzip' | 'zstd';
  signal?: AbortSignal;
  /** `bytesRead` counts the tar's bytes; at most 10 reports a second. */
  onProgress?: ProgressListener;
}

export interface Exported {
  /** Of the tar. */
  bytes: number;
  diffID: DiffID;
  /** What was written, where it was compressed. */
  blob?: { digest: Digest; size: number };
}

/** A handle on a read-only layer. */
export interface Layer extends TarStreamer {
  readonly chainID: ChainID;
  readonly diffID: DiffID;
  readonly parent: Layer | undefined;
  readonly descriptor: Descriptor | undefined;
  tarStreamFrom(ancestor?: ChainID): Promise<Readable>;
  exportTo(target: { path: string } | { fd: number }, options?: ExportOptions): Promise<Exported>;
  /** Bytes of the layer's tar. From its record: no file of the layer is read. */
  tarSize(): Promise<number>;
  view(): Promise<MountedPath>;
  size(): Promise<number>;
  diffSize(): Promise<number>;
  metadata(): Promise<Record<string, string>>;
}

/** A handle on a writable layer. */
export interface RWLayer extends TarStreamer {
  readonly name: string;
  readonly parent: Layer | undefined;
  readonly mountCount: number;
  tarStream(options?: { sparse?: boolean }): Promise<Readable>;
  mount(mountLabel?: string): Promise<string>;
  unmount(): Promise<void>;
  mounted(mountLabel?: string): Promise<MountedPath>;
  size(): Promise<number>;
  changes(): Promise<Change[]>;
  applyDiff(tar: TarSource, options?: RegisterOptions): Promise<number>;
  metadata(): Promise<Record<string, string>>;
}

export interface VerifyOptions {
  signal?: AbortSignal;
  /** Layers read at once. Default 2. */
  concurrency?: number;
  /** Budget over all layers. Default: none. */
  bytesPerSecond?: number;
}

export interface LayerProblem extends TreeProblem {
  chainID: ChainID;
}

export interface VerifyReport {
  /** Layers that were read. */
  layers: readonly { chainID: ChainID; diffID: DiffID; ok: boolean; problems: readonly LayerProblem[] }[];
  /** Whether no layer has a problem that is more than cosmetic. */
  ok: boolean;
}

/** One thing that was, or would be, removed. */
export interface FreedItem {
  /** What it is: `layer`, `leftover`, `temporary`, `intent`, `removing`, … */
  kind: string;
  /** Chain id, driver id or path below the root. */
  what: string;
  /** Why nothing needs it. */
  why: string;
  bytes: number;
}

export interface CleanupReport {
  items: readonly FreedItem[];
  /** Reported, never touched: directories that nothing of ours names. */
  foreign: readonly { what: string; why: string; bytes: number }[];
  bytes: number;
}

export interface GcReport extends CleanupReport {
  removed: readonly LayerMetadata[];
  dryRun: boolean;
  /** Why nothing was deleted although something could have been. */
  refused?: string;
}

export interface StoreUsage {
  layers: { count: number; bytes: number };
  rwLayers: { count: number; bytes: number; inodes: number };
  /** Free and total bytes and inodes of the file system under the root. */
  fileSystem: { bytes: number; bytesFree: number; inodes: number; inodesFree: number };
}

/** A named reference: keeps a layer across restarts. */
export interface Reference {
  name: string;
  chainID: ChainID;
  expires?: Date;
}

export interface DescribableStore {
  registerWithDescriptor(
    tar: TarSource,
    parent: ChainID | undefined,
    descriptor: Descriptor,
    options?: RegisterOptions,
  ): Promise<Layer>;
}

export interface Store extends DescribableStore, AsyncDisposable {
  readonly driverName: string;
  readonly engineName: 'native' | 'js';
  /** Absolute path of the data root. */
  readonly root: string;
  readonly readOnly: boolean;
  readonly durability: 'strict' | 'relaxed';
  /** Whether `close()` was called. */
  readonly closed: boolean;
  register(tar: TarSource, parent?: ChainID, options?: RegisterOptions): Promise<Layer>;
  registerChain(layers: readonly ChainLink[], parent?: ChainID, options?: RegisterOptions): Promise<Layer>;
  get(chainID: ChainID): Promise<Layer>;
  map(): ReadonlyMap<ChainID, Layer>;
  release(layer: Layer): Promise<LayerMetadata[]>;
  retain(chainID: ChainID, name: string, options?: { expires?: Date }): Promise<void>;
  dropReference(name: string): Promise<LayerMetadata[]>;
  references(): readonly Reference[];
  createRWLayer(name: string, parent?: ChainID, options?: CreateRWLayerOptions): Promise<RWLayer>;
  getRWLayer(name: string): Promise<RWLayer>;
  getMountID(name: string): Promise<string>;
  mounts(): ReadonlyMap<string, RWLayerInfo>;
  releaseRWLayer(layer: RWLayer): Promise<LayerMetadata[]>;
  commit(layer: RWLayer, options?: RegisterOptions & { consume?: boolean }): Promise<Layer>;
  verify(chainID?: ChainID, options?: VerifyOptions): Promise<VerifyReport>;
  repair(chainID: ChainID, tar: TarSource): Promise<void>;
  cleanup(): Promise<CleanupReport>;
  gc(options?: { dryRun?: boolean }): Promise<GcReport>;
  usage(): Promise<StoreUsage>;
  refresh(): Promise<void>;
  driverStatus(): readonly (readonly [string, string])[];
  close(): Promise<void>;
  /**
   * Where `image/` adds what Docker's own records refer to; gc asks each, and deletes nothing where one throws. What a
   * source names is a reference like any other, so `release` of a last handle asks too, and keeps the layer.
   */
  addReferenceSource(source: () => Promise<Iterable<ChainID>>): void;
}
