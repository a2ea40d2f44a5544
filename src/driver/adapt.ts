/**
 * A whole {@link Driver} out of somebody's own {@link GraphDriver}: what that does not offer is done with what every one
 * has. All such fallbacks are here; neither the store nor the drivers of this package know of any.
 */
import type { Readable } from 'node:stream';
import { NO_STEPS, type StepsAround } from '../engine/batch-types.js';
import type { Assembled, Change, DiffGetter, Engine, TarSource, TreeProblem } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import type { LoggerLike } from '../util/logger.js';
import type { Driver, ExactLayer, ExactTarOptions, MountSpecification, TreeRoot, Unlink } from './driver.js';
import { type ExactTars, RecordedTars, type RecordedTree, ReproducedTars } from './exact-tar.js';
import { commitThroughTar, runAround } from './fallbacks.js';
import type {
  ApplyOptions,
  ApplyResult,
  CreateReadWriteOptions,
  DriverCapabilities,
  DriverLeftover,
  GraphDriver,
  LiveMount,
} from './graph-driver.js';
import type { LayerEntry } from './layer-entries.js';

export interface AdaptContext {
  /** The store's root. */
  readonly root: string;
  readonly engine: Engine;
  readonly durability: 'strict' | 'relaxed';
  readonly logger: LoggerLike;
}

export function adaptDriver(driver: GraphDriver, context: AdaptContext): Driver {
  return new AdaptedDriver(driver, context);
}

/** A driver of somebody's own makes layers as it likes; with fewer rights than root has, it says so by no mark of ours. */
function treeOf({ whiteouts }: GraphDriver): RecordedTree | undefined {
  return whiteouts === undefined ? undefined : { whiteouts, privilege: 'full', ownersShifted: false };
}

class AdaptedDriver implements Driver {
  readonly #own: GraphDriver;
  readonly #context: AdaptContext;
  readonly #tars: ExactTars;

  constructor(own: GraphDriver, context: AdaptContext) {
    this.#own = own;
    this.#context = context;
    this.#tars = own.capabilities.reproducesExactDiffs
      ? new ReproducedTars((id, parent) => own.diff(id, parent))
      : new RecordedTars(context.engine, (id) => own.diffGetter(id), treeOf(own));
  }

  get name(): string {
    return this.#own.name;
  }

  get capabilities(): DriverCapabilities {
    return this.#own.capabilities;
  }

  create(id: string, parent?: string): Promise<void> {
    return this.#own.create(id, parent);
  }

  /** The driver's own call between the store's steps. */
  async createReadWrite(
    id: string,
    parent: string | undefined,
    options: CreateReadWriteOptions,
    around: StepsAround = NO_STEPS,
  ): Promise<void> {
    await runAround(this.#context, around, async () => {
      await this.#own.createReadWrite(id, parent, options);
      // One that has `sync` makes its RW layers durable itself, as the contract says.
      if (this.#own.sync === undefined) await this.sync();
    });
  }

  applyDiff(id: string, parent: string | undefined, source: TarSource, options: ApplyOptions): Promise<ApplyResult> {
    return this.#own.applyDiff(id, parent, source, options);
  }

  get(id: string, mountLabel?: string): Promise<string> {
    return this.#own.get(id, mountLabel);
  }

  put(id: string): Promise<void> {
    return this.#own.put(id);
  }

  /** `get`, which may be writable: the tree is protected by nothing then. */
  view(id: string): Promise<string> {
    return this.#own.view === undefined ? this.#own.get(id) : this.#own.view(id);
  }

  diff(id: string, parent?: string, options?: { sparse?: boolean }): Promise<Readable> {
    return options === undefined ? this.#own.diff(id, parent) : this.#own.diff(id, parent, options);
  }

  changes(id: string, parent?: string): Promise<Change[]> {
    return this.#own.changes(id, parent);
  }

  diffSize(id: string, parent?: string): Promise<number> {
    return this.#own.diffSize(id, parent);
  }

  diffGetter(id: string): Promise<DiffGetter> {
    return this.#own.diffGetter(id);
  }

  exists(id: string): Promise<boolean> {
    return this.#own.exists(id);
  }

  list(): Promise<string[]> {
    return this.#own.list();
  }

  remove(id: string): Promise<void> {
    return this.#own.remove(id);
  }

  metadata(id: string): Promise<Record<string, string>> {
    return this.#own.metadata(id);
  }

  status(): readonly (readonly [string, string])[] {
    return this.#own.status();
  }

  cleanup(signal?: AbortSignal): Promise<void> {
    return this.#own.cleanup(signal);
  }

  close(): Promise<void> {
    return this.#own.close();
  }

  /** Through the tar, by which nothing is taken from the RW layer. */
  async commitDiff(
    id: string,
    parent: string | undefined,
    rwID: string,
    rwParent: string | undefined,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult> {
    if (this.#own.commitDiff !== undefined) {
      // What cannot be taken back is not begun: a copy, and the store removes the RW layer when the layer is published.
      const consume = options.consume && this.#own.undoConsume !== undefined;
      return this.#own.commitDiff(id, parent, rwID, rwParent, { ...options, consume });
    }
    const { consume: _, ...apply } = options;
    return commitThroughTar(this.#own, this.#context.logger, [id, parent], [rwID, rwParent], apply);
  }

  /** A commit took nothing then, so there is only the new layer to remove. */
  async undoConsume(id: string, rwID: string): Promise<void> {
    if (this.#own.undoConsume !== undefined) return this.#own.undoConsume(id, rwID);
    if (await this.#own.exists(id)) await this.#own.remove(id);
  }

  /** The file system of the root, which is the best guess there is. */
  async sync(ids: readonly string[] = []): Promise<void> {
    if (this.#own.sync !== undefined) return this.#own.sync(ids);
    if (this.#context.durability === 'strict') await this.#context.engine.syncFs([this.#context.root]);
  }

  /** `remove`, whose end is waited for: until then nothing but the store's record or intent says that the id is to go. */
  async detach(id: string, around: StepsAround = NO_STEPS): Promise<Unlink> {
    let unlink: Unlink = async () => undefined;
    await runAround(this.#context, around, async () => {
      if (this.#own.detach !== undefined) unlink = await this.#own.detach(id);
      else if (await this.#own.exists(id)) await this.#own.remove(id);
    });
    return unlink;
  }

  get exchanges(): boolean {
    return this.#own.exchange !== undefined;
  }

  async exchange(id: string, otherID: string): Promise<void> {
    if (this.#own.exchange !== undefined) return this.#own.exchange(id, otherID);
    throw new LayerStoreError('ERR_NOT_SUPPORTED', `the driver "${this.name}" cannot exchange the contents of layers`);
  }

  /** None are told. */
  async leftovers(): Promise<Required<DriverLeftover>[]> {
    const found = (await this.#own.leftovers?.()) ?? [];
    return found.map((leftover) => ({ inodes: 0, pending: false, ...leftover }));
  }

  /** None are told. */
  async liveMounts(): Promise<LiveMount[]> {
    return (await this.#own.liveMounts?.()) ?? [];
  }

  /** What is not told cannot be missed. */
  async mountVanished(id: string): Promise<boolean> {
    if (!this.capabilities.mounts || this.#own.liveMounts === undefined) return false;
    return !(await this.#own.liveMounts()).some((mount) => mount.id === id);
  }

  async adopt(id: string): Promise<string> {
    if (this.#own.adopt !== undefined) return this.#own.adopt(id);
    throw new LayerStoreError(
      'ERR_ACTIVE_MOUNT',
      `"${id}" is mounted, and the driver "${this.name}" cannot take a mount of an earlier process over: unmount it by hand`,
    );
  }

  /** The size of what differs from `parent`; blocks and inodes are not known. */
  async usage(id: string, parent?: string): Promise<{ size: number; allocated: number; inodes: number }> {
    if (this.#own.usage !== undefined) return this.#own.usage(id);
    return { size: await this.#own.diffSize(id, parent), allocated: 0, inodes: 0 };
  }

  async mountSpecification(id: string): Promise<MountSpecification> {
    throw this.#mountsItself(`say how "${id}" is mounted`);
  }

  async treeRoot(id: string): Promise<TreeRoot> {
    throw this.#mountsItself(`look at the root of "${id}"`);
  }

  async setTreeRoot(id: string): Promise<void> {
    throw this.#mountsItself(`change the root of "${id}"`);
  }

  async rebase(id: string): Promise<void> {
    throw this.#mountsItself(`put "${id}" on another layer`);
  }

  #mountsItself(action: string): LayerStoreError {
    return new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `cannot ${action}: the driver "${this.name}" does that itself or not at all; use overlay2 or vfs`,
    );
  }

  exactTar(layer: ExactLayer): Promise<Readable> {
    return this.#tars.exactTar(layer);
  }

  exactTarTo(layer: ExactLayer, fd: number, options: ExactTarOptions): Promise<Assembled> {
    return this.#tars.exactTarTo(layer, fd, options);
  }

  exactTarSize(layer: ExactLayer): Promise<number> {
    return this.#tars.exactTarSize(layer);
  }

  entries(layer: ExactLayer, signal?: AbortSignal): AsyncGenerator<LayerEntry> {
    return this.#tars.entries(layer, signal);
  }

  verify(layer: ExactLayer, options: Parameters<Driver['verify']>[1]): Promise<TreeProblem[]> {
    return this.#tars.verify(layer, options);
  }
}
