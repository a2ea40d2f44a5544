/** What the calls of a store take. No logic. */
import type { DiffID } from '../digest.js';
import type { ProgressListener, TarSource, UnpackLimits } from '../engine/engine.js';
import type { GraphDriver } from '../driver/graph-driver.js';
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
  /** Expected: what is there already is found by it, and not read. */
  diffID: DiffID;
  /** Its digest and size are checked against the bytes as they come. */
  descriptor?: Descriptor;
  /** Counters of this layer alone; not called where the layer is there already. */
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
  /** Ends the wait for files that are still being unlinked. */
  signal?: AbortSignal;
  /**
   * Called at the end of a close that was cut short, or where something failed: so many removed layers, or parts of failed
   * ones, still have files on disk. The next open goes on with them.
   */
  onPending?: (removals: number) => void;
}

/** Options of `exportTo`. */
export interface ExportOptions {
  /** The target gets the tar compressed, for a registry or an image; the tar is verified all the same. Default: as it is. */
  compression?: 'gzip' | 'zstd';
  signal?: AbortSignal;
  /** `bytesRead` counts the tar's bytes; at most 10 reports a second. */
  onProgress?: ProgressListener;
}
