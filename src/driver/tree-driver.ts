/**
 * What drivers that keep each layer as a directory tree have in common: differences of trees by the engine, syncs of the
 * one file system that all trees lie on, and the answers of a store that is open read-only.
 */
import type { Readable } from 'node:stream';
import type {
  Assembled,
  Change,
  DiffGetter,
  DiffRequest,
  StepsAround,
  TreeProblem,
  WhiteoutForm,
} from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import type { DriverContext } from './context.js';
import type { ExactLayer, ExactTarOptions, Unlink, VerifyOptions } from './driver.js';
import { RecordedTars } from './exact-tar.js';
import type { LiveMount } from './graph-driver.js';
import type { LayerEntry } from './layer-entries.js';

export abstract class TreeDriver {
  protected readonly context: DriverContext;
  readonly exchanges = true;
  readonly #sync: GroupSync;
  readonly #tars: RecordedTars;

  /** `home`: a directory on the file system that holds the trees. */
  protected constructor(context: DriverContext, home: string, whiteouts: WhiteoutForm) {
    this.context = context;
    this.#tars = new RecordedTars(context.engine, (id) => this.diffGetter(id), {
      whiteouts,
      privilege: context.privilege,
      ownersShifted: context.ownersShifted,
    });
    this.#sync = new GroupSync(() => context.engine.syncFs([home]));
  }

  abstract detach(id: string, around?: StepsAround): Promise<Unlink>;
  abstract diffGetter(id: string): Promise<DiffGetter>;
  abstract liveMounts(): Promise<LiveMount[]>;

  /** What `id` adds to `parent`; without one, its whole tree. */
  protected abstract difference(id: string, parent: string | undefined): Promise<DiffRequest>;

  async diff(id: string, parent?: string, options: { sparse?: boolean } = {}): Promise<Readable> {
    return this.context.engine.treeTar({ ...(await this.difference(id, parent)), ...options });
  }

  async changes(id: string, parent?: string): Promise<Change[]> {
    return this.context.engine.changes(await this.difference(id, parent));
  }

  async diffSize(id: string, parent?: string): Promise<number> {
    return this.context.engine.diffSize(await this.difference(id, parent));
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

  verify(layer: ExactLayer, options: VerifyOptions): Promise<TreeProblem[]> {
    return this.#tars.verify(layer, options);
  }

  async remove(id: string): Promise<void> {
    const unlink = await this.detach(id);
    await unlink();
  }

  async sync(_ids: readonly string[]): Promise<void> {
    if (this.context.durability === 'strict' && !this.context.readOnly) await this.#sync.run();
  }

  /** Throws where the store is open read-only. */
  protected writable(action: string): void {
    if (!this.context.readOnly) return;
    throw new LayerStoreError('ERR_READ_ONLY', `cannot ${action}: the store is open read-only`);
  }
}

/** The error for a layer's directory that is there already. */
export function idTaken(id: string, cause: unknown): LayerStoreError {
  return new LayerStoreError(
    'ERR_INVALID_ARGUMENT',
    `cannot make the layer "${id}": there is one of that id; choose another`,
    { cause },
  );
}

/**
 * Group commit: concurrent requests share one sync. A request is served only by a sync that began after it was made, so
 * whatever its caller wrote before is covered; at most one runs and one waits.
 */
export class GroupSync {
  readonly #sync: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  /** Resolves when a sync that began now or later has ended; rejects with that sync's own failure. */
  run(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) return this.#start();
    // The running one may have passed what this caller wrote: wait for one that has not begun.
    this.#next = this.#running.then(
      () => this.#start(),
      () => this.#start(),
    );
    return this.#next;
  }

  #start(): Promise<void> {
    this.#next = undefined;
    const running = this.#sync().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
