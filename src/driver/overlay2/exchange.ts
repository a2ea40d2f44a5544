/** Swapping the files of two read-only layers, so that a damaged one is repaired while layers on top of it stay valid. */
import type { BatchOp } from '../../engine/engine.js';
import { LayerStoreError } from '../../errors.js';
import type { DriverContext } from '../context.js';
import { kindOf } from '../files.js';
import type { MountProfile } from '../options.js';
import type { LayerMetadataCache } from './layer-metadata-cache.js';
import type { Layout, Lower } from './layout.js';
import { active, type OverlayMounts } from './mounts.js';

export class Exchange {
  readonly #layout: Layout;
  readonly #context: DriverContext;
  readonly #profile: MountProfile;
  readonly #layers: LayerMetadataCache;
  readonly #mounts: OverlayMounts;

  constructor(
    layout: Layout,
    context: DriverContext,
    profile: MountProfile,
    layers: LayerMetadataCache,
    mounts: OverlayMounts,
  ) {
    this.#layout = layout;
    this.#context = context;
    this.#profile = profile;
    this.#layers = layers;
    this.#mounts = mounts;
  }

  /** ERR_ACTIVE_MOUNT where one of the two is mounted writable, or an RW layer above relies on its inodes (`index=on`). */
  async run(id: string, other: string, list: () => Promise<string[]>): Promise<void> {
    await Promise.all([this.#layers.load(id), this.#layers.load(other)]);
    for (const one of [id, other]) {
      if (this.#mounts.writable(one)) throw active(one, 'it is mounted writable');
    }
    await this.#refuseIndexed([id, other], list);
    const strict = this.#context.durability === 'strict';
    const sync: BatchOp[] = [id, other].map((one) => ({ op: 'fsync', path: this.#layout.directory(one) }));
    await this.#context.engine.batch([
      { op: 'exchange', path: this.#layout.diff(id), dest: this.#layout.diff(other) },
      ...(strict ? sync : []),
    ]);
  }

  async #refuseIndexed(ids: readonly string[], list: () => Promise<string[]>): Promise<void> {
    // With index=on an upper directory keeps handles of the lower inodes, also while it is not mounted.
    const indexed = this.#profile.index ? await list() : await this.#mountedWithIndex();
    for (const id of indexed) {
      if (ids.includes(id) || !(await this.#standsOn(id, ids))) continue;
      if (!this.#profile.index || (await kindOf(`${this.#layout.work(id)}/index`)) !== undefined) {
        throw active(
          ids.join('", "'),
          `the RW layer "${id}" above was mounted with "index=on" and relies on the very files; remove it first`,
        );
      }
    }
  }

  async #mountedWithIndex(): Promise<string[]> {
    const live = await this.#mounts.live();
    if (live.length === 0) return [];
    const entries = await this.#context.engine.mounts(this.#layout.home);
    const indexed = new Set(
      entries.filter(({ options }) => options.split(',').includes('index=on')).map(({ target }) => target),
    );
    return live.filter(({ path }) => indexed.has(path)).map(({ id }) => id);
  }

  async #standsOn(id: string, ids: readonly string[]): Promise<boolean> {
    let lower: Lower | undefined;
    try {
      lower = (await this.#layers.load(id)).lower;
    } catch (error) {
      // A layer with damaged files, or one that another process removed meanwhile, cannot be a lower layer.
      if (LayerStoreError.is(error, 'ERR_LAYER_CORRUPT') || LayerStoreError.is(error, 'ERR_LAYER_DOES_NOT_EXIST'))
        return false;
      throw error;
    }
    for (; lower !== undefined; lower = lower.next) if (ids.includes(lower.id)) return true;
    return false;
  }
}
