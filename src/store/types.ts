/** The public shapes of the store: handles and the store itself; options and reports from their own files. No logic. */
import type { Readable } from 'node:stream';
import type { ChainID, DiffID } from '../digest.js';
import type { Change, TarSource } from '../engine/engine.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import type { ChainLink, CloseOptions, CreateRWLayerOptions, ExportOptions, RegisterOptions } from './option-types.js';
import type {
  CleanupReport,
  Exported,
  FreedItem,
  GcReport,
  LayerMetadata,
  Reference,
  RWLayerInfo,
  StoreUsage,
  VerifyOptions,
  VerifyReport,
} from './reports.js';

export type {
  ChainLink,
  CloseOptions,
  CreateRWLayerOptions,
  ExportOptions,
  Logger,
  RegisterOptions,
  StoreOptions,
} from './option-types.js';
export type {
  CleanupReport,
  Exported,
  FreedItem,
  GcReport,
  LayerMetadata,
  LayerProblem,
  Reference,
  RWLayerInfo,
  StoreUsage,
  VerifyOptions,
  VerifyReport,
} from './reports.js';

/** Anything whose content can be read as a tar. */
export interface TarStreamer {
  tarStream(): Promise<Readable>;
}

/** A path that is there until disposed of. */
export type MountedPath = { readonly path: string } & AsyncDisposable;

/**
 * A handle on a read-only layer; it keeps the layer until `store.release(layer)`. A released handle, and what `map()` or
 * `parent` gives once the layer is gone, rejects with ERR_LAYER_NOT_RETAINED.
 */
export interface Layer extends TarStreamer {
  readonly chainID: ChainID;
  readonly diffID: DiffID;
  /** No handle: not to be released. */
  readonly parent: Layer | undefined;
  /** As given to `registerWithDescriptor`. */
  readonly descriptor: Descriptor | undefined;
  /**
   * The exact tar that was registered, uncompressed. The stream errors with ERR_LAYER_CORRUPT rather than end on other bytes.
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
   * As `tarStream`, written without JavaScript in the way. A path appears only when it is complete.
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
  /** The driver's own words: `LowerDir`, `UpperDir` … */
  metadata(): Promise<Record<string, string>>;
}

/** A handle on a writable layer. Releasing the last one with `store.releaseRWLayer(rw)` removes the RW layer. */
export interface RWLayer extends TarStreamer {
  readonly name: string;
  /** No handle: not to be released. */
  readonly parent: Layer | undefined;
  /** Mounts that were not undone, over all handles. */
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
  /** Bytes that it holds above its parent. */
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
  /** The driver's own words. */
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
   * Unpacks a tar as a layer on `parent` and gives a handle; what is there already is not made again.
   * ERR_LAYER_DOES_NOT_EXIST (the parent), ERR_MAX_DEPTH_EXCEEDED, ERR_BAD_TAR, ERR_BAD_COMPRESSION, ERR_UNSAFE_PATH,
   * ERR_LIMIT_EXCEEDED, ERR_DIGEST_MISMATCH, ERR_SYSTEM; nothing is left of what failed.
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
   * What is there; these are no handles.
   *
   * ```ts
   * for (const [chainID, { diffID }] of store.map()) console.log(chainID, diffID);
   * ```
   */
  map(): ReadonlyMap<ChainID, Layer>;
  /**
   * Gives a handle back. Gives what was removed, top first; `[]` where something else keeps the layer. Twice: ERR_LAYER_NOT_RETAINED.
   *
   * ```ts
   * for (const { chainID, diffSize } of await store.release(layer)) console.log(chainID, diffSize);
   * ```
   */
  release(layer: Layer): Promise<LayerMetadata[]>;
  /**
   * A named reference, which keeps a layer across restarts. A name that another layer had moves.
   *
   * ```ts
   * await store.retain(layer.chainID, 'cache:step-1', { expires: new Date(Date.now() + 86_400_000) });
   * await store.release(layer); // nothing goes
   * console.log(store.references());
   * await store.dropReference('cache:step-1');
   * ```
   */
  retain(chainID: ChainID, name: string, options?: { expires?: Date }): Promise<void>;
  /** Takes a named reference away, and the layers that nothing else keeps: what was removed, top first. */
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
   * What is known of each RW layer, by name.
   *
   * ```ts
   * for (const [name, { parent, mountCount }] of store.mounts()) console.log(name, parent, mountCount);
   * ```
   */
  mounts(): ReadonlyMap<string, RWLayerInfo>;
  /** Gives a handle back; the last one removes the RW layer. ERR_ACTIVE_MOUNT, and nothing happens, while it is mounted. */
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
   * Re-reads and re-hashes one layer, or all.
   *
   * ```ts
   * const { ok, layers } = await store.verify();
   * if (!ok) console.log(layers.flatMap(({ problems }) => problems));
   * ```
   */
  verify(chainID?: ChainID, options?: VerifyOptions): Promise<VerifyReport>;
  /**
   * Puts a layer's content back from a tar with the same diff id, below whatever stands on it. ERR_DIGEST_MISMATCH.
   *
   * ```ts
   * await store.repair(base.chainID, { path: 'base.tar' });
   * ```
   */
  repair(chainID: ChainID, tar: TarSource): Promise<void>;
  /**
   * Removes what crashes left of ours; anything else is reported.
   *
   * ```ts
   * console.log(await store.cleanup());
   * ```
   */
  cleanup(): Promise<CleanupReport>;
  /**
   * `cleanup`, and the layers that nothing keeps: no handle, child, RW layer, reference or image.
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
  /** For `readOnly`: sees what the writer published since. */
  refresh(): Promise<void>;
  /** Pairs for people, as `docker info` shows them. */
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
