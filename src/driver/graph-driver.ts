/**
 * GraphDriver: what holds the files of layers, as a program may bring its own. The required methods are enough; the
 * optional ones make a store faster or let it do more. `adapt.ts` completes it to the store's own contract, `driver.ts`.
 */
import type { Readable } from 'node:stream';
import type {
  Change,
  DiffGetter,
  IngestResult,
  ProgressListener,
  TarSource,
  TarSplitTarget,
  UnpackLimits,
  WhiteoutForm,
} from '../engine/engine.js';
import type { DiffID, Digest } from '../digest.js';

export type { DiffGetter } from '../engine/engine.js';

/** What a driver can do; suites and the store ask these flags, never a driver's name. */
export interface DriverCapabilities {
  /** A layer's diff can be applied before its parent's is (layers of an image unpack side by side). */
  readonly independentDiffs: boolean;
  /** `diff(id, parent)` of a read-only layer gives the registered bytes itself, without a tar-split record. */
  readonly reproducesExactDiffs: boolean;
  /** `storageOpt.size` is enforced. */
  readonly hardSizeLimit: boolean;
  /** `get` makes a kernel mount (where there is a parent). */
  readonly mounts: boolean;
}

/** Options of `applyDiff` and `commitDiff`. */
export interface ApplyOptions {
  signal?: AbortSignal;
  onProgress?: ProgressListener;
  limits?: UnpackLimits;
  /** Absent: no tar-split record is made (an RW layer's `applyDiff`). */
  tarSplit?: TarSplitTarget;
  /** Expected digest and size of the source's bytes as they stream: ERR_DIGEST_MISMATCH. */
  blob?: { digest: Digest; size: number };
  diffID?: DiffID;
}

/** What unpacking found: diff id, digests, sizes in bytes, counts. */
export type ApplyResult = IngestResult;

/** Options of `createReadWrite`, as `Store.createRWLayer` was given them. */
export interface CreateReadWriteOptions {
  mountLabel?: string;
  storageOpt?: Readonly<Record<string, string>>;
}

/** A mount of a driver's that is there now, of this process or an earlier one. */
export interface LiveMount {
  id: string;
  path: string;
}

/** Something of the driver's own that stands for no id: a tree that is to be removed, scratch. */
export interface DriverLeftover {
  /** Its name in the driver's home. */
  what: string;
  /** Why nothing needs it. */
  why: string;
  /** Allocated. */
  bytes: number;
  /** Files, directories and links in it. */
  inodes?: number;
  /** This process removes it already, or has it next: no `cleanup` is needed. */
  pending?: boolean;
}

/**
 * What holds the files of layers, by ids of the store's own making; it never sees a chain id. The required methods are
 * enough, `driverSuite` of `layerstore/testing` checks them; the guide "Write a driver" has a whole one. Sizes are bytes.
 * Failures are {@link LayerStoreError}s: `ERR_SYSTEM`, `ERR_NOT_SUPPORTED`, and what the engine says of a tar.
 *
 * ## Life of an id
 *
 * An id is in one of four states. The store alone moves it, calls for one id come one after the other, and calls for
 * different ids come at the same time.
 *
 * | state | begins with | allowed meanwhile | ends with |
 * |---|---|---|---|
 * | draft of a read-only layer | `create`, then one `applyDiff`; or `commitDiff` | `create` of a child where `independentDiffs` | published by the store (no call), or `detach`, `remove`, `undoConsume` |
 * | read-only layer | publication | `get`, `view`, `put`, `diff`, `changes`, `diffSize`, `diffGetter`, `usage`, children, `exchange` | `detach` or `remove` |
 * | RW layer | `createReadWrite` | the same, `applyDiff`, and `commitDiff` into a draft; an init layer is an RW layer whose id ends in `-init`, filled through `get` and put before the one on it is made | `detach` or `remove`; `commitDiff` with `consume` |
 * | gone | `detach` or `remove` resolved | the same id may be made again | |
 *
 * **Before a call** the store has written down what it is about to make or remove (an intent, or a record marked as
 * removed). So a crash at any point ends in `exists` and `remove` or `detach` at the next open, also of an id that is half made
 * or not there: that is no error. After a crash in a `commitDiff` with `consume` it is `undoConsume`.
 *
 * **Durable**, where the store is `strict`: what `applyDiff` and `commitDiff` wrote when `sync` resolves, after which the
 * store publishes; the empty RW layer when `createReadWrite` resolves; `detach`, `exchange` and `undoConsume` when they
 * resolve. A driver without `sync` promises nothing: the store then syncs the file system of its root.
 *
 * **Mounts** are counted by the driver. They outlive `close` and the process: `liveMounts` finds and `adopt` takes them
 * over at the next open.
 *
 * A layer need not be a directory: what the store reads goes through `diffGetter`, `diff` and `view`.
 *
 * @example
 * ```ts
 * import { openStore, type GraphDriver } from 'layerstore';
 *
 * async function openOn(driver: GraphDriver): Promise<void> {
 *   await using store = await openStore({ root: 'own-driver', driver });
 *   console.log(store.driverName === driver.name, driver.capabilities.mounts);
 * }
 * console.log(typeof openOn);
 * ```
 */
export interface GraphDriver {
  readonly name: string;
  readonly capabilities: DriverCapabilities;

  /** A read-only layer, to be filled by `applyDiff`. */
  create(id: string, parent?: string): Promise<void>;
  createReadWrite(id: string, parent: string | undefined, options: CreateReadWriteOptions): Promise<void>;
  applyDiff(id: string, parent: string | undefined, source: TarSource, options: ApplyOptions): Promise<ApplyResult>;
  /** Mounts (counted) and gives the path of the root. */
  get(id: string, mountLabel?: string): Promise<string>;
  /** Takes one count back, and with the last the mount. ERR_NOT_MOUNTED where this driver counts no mount of it. */
  put(id: string): Promise<void>;
  /**
   * The whole tree of a read-only layer where nothing can be written to it, counted together with `get` and given back by `put`.
   * Absent: `get`, which on a layer without children may give a writable tree.
   */
  view?(id: string): Promise<string>;
  /** `sparse`: holes as GNU PAX 1.0 sparse entries; a driver that cannot do that rejects with ERR_NOT_SUPPORTED. */
  diff(id: string, parent?: string, options?: { sparse?: boolean }): Promise<Readable>;
  changes(id: string, parent?: string): Promise<Change[]>;
  diffSize(id: string, parent?: string): Promise<number>;
  diffGetter(id: string): Promise<DiffGetter>;
  exists(id: string): Promise<boolean>;
  list(): Promise<string[]>;
  remove(id: string): Promise<void>;
  metadata(id: string): Promise<Record<string, string>>;
  status(): readonly (readonly [string, string])[];
  /** Ends removals that were begun. `signal` aborted: returns early, and the rest is left to the next call. */
  cleanup(signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;

  /** The changes of the RW layer `rwID` become the read-only layer `id` (made here; parent of both: `parent`). Absent: `diff` is fed to `applyDiff`. */
  commitDiff?(
    id: string,
    parent: string | undefined,
    rwID: string,
    rwParent: string | undefined,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult>;
  /**
   * Takes a `commitDiff` with `consume` back: the files of `id` are the RW layer's again and `id` is gone. Also called after
   * a crash anywhere in between, where it must find out by itself how far things got; nothing to take back is no error.
   */
  undoConsume?(id: string, rwID: string): Promise<void>;
  /** How whiteouts lie in the directory that `diffGetter` gives; the store's `verify` needs it to compare trees. */
  readonly whiteouts?: WhiteoutForm;
  /** What was written for these ids before the call is on disk when it resolves. Concurrent calls share syncs. */
  sync?(ids: readonly string[]): Promise<void>;
  /** Takes the id away at once (rename); what is returned unlinks its files and may run much later, `signal` stops it at the next entry. */
  detach?(id: string): Promise<(signal?: AbortSignal) => Promise<void>>;
  /** Swaps the contents of two read-only layers (RENAME_EXCHANGE); mounts made before keep the old tree. */
  exchange?(id: string, otherID: string): Promise<void>;
  /** What `cleanup` would remove, with what is being removed right now; reports explain bytes by it. Absent: nothing is told. */
  leftovers?(): Promise<DriverLeftover[]>;
  /** Mounts of this driver's ids found in the mount table. */
  liveMounts?(): Promise<LiveMount[]>;
  /** Takes over a mount found by `liveMounts`: counted as one `get`. */
  adopt?(id: string): Promise<string>;
  /** Disk use of one id's own files. */
  usage?(id: string): Promise<{ size: number; allocated: number; inodes: number }>;
}
