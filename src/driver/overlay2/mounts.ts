/**
 * The counted mounts of a driver. What happens to one id happens in order; ids do not wait for each other. A count is
 * true only as long as the kernel agrees: each use looks whether the mount is still the one that was made (one `stat`),
 * and only where it is not the mount table is read.
 */
import { rmdir, stat } from 'node:fs/promises';
import type { MountEntry, MountTier, OverlayMount } from '../../engine/engine.js';
import { invalidArgument, LayerStoreError } from '../../errors.js';
import { KeyedMutex } from '../../util/keyed-mutex.js';
import { errorFields } from '../../util/logger.js';
import { quote } from '../../util/quote.js';
import { Rollback } from '../../util/rollback.js';
import { type DriverContext, isLayerID } from '../context.js';
import { hasErrno, requireDirectory, requireDirectorySync } from '../files.js';
import type { LiveMount } from '../graph-driver.js';
import { contextOption, type MountProfile } from '../options.js';
import { DeferredTeardowns } from './deferred-teardown.js';
import type { KnownLayer, LayerMetadataCache } from './layer-metadata-cache.js';
import { type Layout, lowerPaths } from './layout.js';
import type { VolatileMarkers } from './volatile.js';

const TARGET_MODE = 0o700;

interface Mounted {
  count: number;
  readonly label: string;
  readonly writable: boolean;
  /** Device number of the mount's root: another one means that this is no longer what was mounted. */
  device: number;
}

export class OverlayMounts {
  readonly #layout: Layout;
  readonly #context: DriverContext;
  readonly #profile: MountProfile;
  readonly #layers: LayerMetadataCache;
  readonly #volatile: VolatileMarkers;
  readonly #mutex = new KeyedMutex();
  readonly #mounted = new Map<string, Mounted>();
  readonly #teardowns: DeferredTeardowns;
  readonly #table: LayerMounts;
  #tier: MountTier | undefined;

  constructor(
    layout: Layout,
    context: DriverContext,
    profile: MountProfile,
    layers: LayerMetadataCache,
    volatile: VolatileMarkers,
  ) {
    this.#layout = layout;
    this.#context = context;
    this.#profile = profile;
    this.#layers = layers;
    this.#volatile = volatile;
    this.#teardowns = new DeferredTeardowns(context, profile);
    this.#table = new LayerMounts(layout, context);
  }

  /** How the last mount was made. */
  get tier(): MountTier | undefined {
    return this.#tier;
  }

  /** Whether this store has it mounted with an upper directory. */
  writable(id: string): boolean {
    return this.#mounted.get(id)?.writable === true;
  }

  /** The path of a layer's tree, counted. `view`: nothing can be written through it. */
  get(id: string, label: string, view: boolean): Promise<string> {
    return this.#mutex.run(id, async () => {
      const layer = await this.#layers.load(id);
      const held = this.#mounted.get(id);
      const writable = !view && !layer.frozen;
      if (held === undefined && layer.lower === undefined && !view) {
        await this.#layers.checkTrees(id);
        return this.#layout.diff(id);
      }
      if (this.#context.readOnly) {
        throw new LayerStoreError(
          'ERR_READ_ONLY',
          `cannot mount the layer "${id}": the store is open read-only, and mounts nothing`,
        );
      }
      if (held !== undefined) return this.#again(layer, held, label, view);
      await this.#ended(layer);
      this.#mounted.set(id, { count: 1, ...(await this.#mount(layer, label, writable)) });
      return this.#layout.merged(id);
    });
  }

  /** Takes one count away. At zero it unmounts, and removes the mount point, which detaches copies in other mount namespaces. */
  put(id: string): Promise<void> {
    return this.#mutex.run(id, async () => {
      const held = this.#mounted.get(id);
      if (held === undefined) {
        if ((await this.#layers.load(id)).lower === undefined) return;
        throw new LayerStoreError(
          'ERR_NOT_MOUNTED',
          `cannot unmount the layer "${id}": it is not mounted by this store`,
        );
      }
      if (held.count > 1) {
        held.count--;
        return;
      }
      // One call where nothing is odd; whatever is, is looked into step by step.
      const keeper = held.writable ? this.#teardowns.keeper : undefined;
      const outcome = await this.#context.engine.unmountAndRemove(this.#layout.merged(id), held.device, keeper);
      if (outcome !== 'foreign') {
        this.#mounted.delete(id);
        if (keeper !== undefined) await this.#teardowns.add(id);
        if (outcome === 'target-left') await this.#removeTarget(id);
        if (held.writable) await this.#volatile.finish(id);
        return;
      }
      const there = await this.#verify(id, held);
      if (there) await this.#context.engine.unmount(this.#layout.merged(id));
      this.#mounted.delete(id);
      await this.#removeTarget(id);
      if (held.writable && there) await this.#volatile.finish(id);
    });
  }

  /** Mounts of this driver's ids in the mount table, each id once. */
  async live(): Promise<LiveMount[]> {
    const found = new Map<string, LiveMount>();
    for (const { fsType, target } of await this.#context.engine.mounts(this.#layout.home)) {
      const id = target.startsWith(`${this.#layout.home}/`)
        ? target.slice(this.#layout.home.length + 1).split('/')[0]
        : undefined;
      if (fsType !== 'overlay' || id === undefined || !isLayerID(id) || target !== this.#layout.merged(id)) continue;
      found.set(id, { id, path: target });
    }
    return [...found.values()];
  }

  /** Takes a mount of an earlier process over, as one `get`. ERR_NOT_MOUNTED where there is none. */
  adopt(id: string): Promise<string> {
    return this.#mutex.run(id, async () => {
      const layer = await this.#layers.load(id);
      const held = this.#mounted.get(id);
      if (held !== undefined) return this.#again(layer, held, held.label, !held.writable);
      const entry = await this.#table.entry(id);
      if (entry === undefined) {
        throw new LayerStoreError(
          'ERR_NOT_MOUNTED',
          `cannot take over the mount of layer "${id}": nothing is mounted there any more`,
        );
      }
      this.#mounted.set(id, {
        count: 1,
        label: labelOf(entry),
        writable: isWritable(entry),
        device: await this.#device(id),
      });
      return this.#layout.merged(id);
    });
  }

  /** Mounts stay as they are; what is left of those that are gone ends. */
  async close(): Promise<void> {
    await this.#teardowns.end();
  }

  /** Resolves when nothing is left of the layer's mounts that are gone, with which nothing can be written any more. */
  async ended(id: string): Promise<void> {
    await this.#teardowns.ended(id);
  }

  /** Runs `work` while no `get` or `put` of `id` runs; ERR_ACTIVE_MOUNT where it is mounted. */
  whileIdle<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.#mutex.run(id, async () => {
      const { count } = this.#mounted.get(id) ?? { count: 0 };
      if (count > 0) throw active(id, `it is mounted ${count === 1 ? 'once' : `${count} times`}`);
      return work();
    });
  }

  /** Whether the mount table has anything on the layer's mount point. */
  async inTable(id: string): Promise<boolean> {
    return (await this.#table.entries(id)).length > 0;
  }

  async #again(layer: KnownLayer, held: Mounted, label: string, view: boolean): Promise<string> {
    const { id } = layer;
    if (held.label !== label) {
      throw invalidArgument(
        `the layer "${id}" is mounted with the label ${quote(held.label)}: give the same one, or unmount it first`,
      );
    }
    if (view && held.writable) throw active(id, 'it is mounted writable, and this asks for a view');
    if (!(await this.#verify(id, held))) held.device = (await this.#mount(layer, label, held.writable)).device;
    held.count++;
    return this.#layout.merged(id);
  }

  /** No directory of the stack is the upper one of an overlay that has yet to end: an init layer's may be below another's. */
  async #ended({ id, lower }: KnownLayer): Promise<void> {
    if (this.#teardowns.none) return;
    await this.#teardowns.ended(id);
    for (let next = lower; next !== undefined; next = next.next) await this.#teardowns.ended(next.id);
  }

  /** Whether the mount is there; a stranger in its place is ERR_ACTIVE_MOUNT. */
  async #verify(id: string, held: Mounted): Promise<boolean> {
    try {
      if ((await stat(this.#layout.merged(id))).dev === held.device) return true;
    } catch (error) {
      // If the directory cannot be read, the mount table decides.
      this.#context.logger.debug({ layer: id, ...errorFields(error) }, 'cannot look at a mount');
    }
    if ((await this.#table.entry(id)) === undefined) {
      this.#context.logger.warn(
        { layer: id, path: this.#layout.merged(id) },
        'a mount vanished: something else unmounted it',
      );
      return false;
    }
    held.device = await this.#device(id);
    return true;
  }

  async #mount(layer: KnownLayer, label: string, writable: boolean): Promise<Omit<Mounted, 'count'>> {
    const { id } = layer;
    if (writable) await this.#layers.checkStack(id, layer.lower);
    else await this.#layers.checkTrees(id, ...lowerPaths(layer.lower, (lower) => lower.id));
    if (writable) requireDirectorySync(this.#layout.work(id));
    const mount = this.#request(layer, label, writable);
    const { target } = mount;
    const device = writable && this.#volatile.concerns(id) ? undefined : await this.#mountAtOnce(mount);
    if (device !== undefined) return { label, writable, device };
    const live = await this.#makeTarget(id);
    if (live !== undefined) {
      if (isWritable(live) !== writable)
        throw active(id, 'an earlier process left it mounted, and not in the way that is asked for');
      return { label, writable, device: await this.#device(id) };
    }
    const undo = new Rollback((label, error) => {
      // The failure that made this necessary is the one to report.
      this.#context.logger.warn(
        { layer: id, step: label, ...errorFields(error) },
        'cannot clean up after a mount that failed',
      );
    });
    undo.push('remove the mount point', () => this.#removeTarget(id));
    try {
      if (writable) {
        await this.#volatile.prepare(id);
        undo.push('remove the marker', () => this.#volatile.finish(id));
      }
      this.#tier = await this.#context.engine.mountOverlay(mount);
      undo.push('unmount', () => this.#context.engine.unmount(target, { detach: true }));
      return { label, writable, device: await this.#device(id) };
    } catch (error) {
      await undo.run();
      throw error;
    }
  }

  #request({ id, lower }: KnownLayer, label: string, writable: boolean): OverlayMount {
    const options = [
      ...(writable ? this.#profile.writable : this.#profile.readOnly),
      ...(label === '' ? [] : [contextOption(label)]),
    ];
    const target = this.#layout.merged(id);
    const lowers = lowerPaths(lower, ({ link }) => this.#layout.link(link));
    if (!writable) {
      lowers.unshift(this.#layout.diff(id));
      // Without an upper directory overlayfs wants two lower ones; the mount point below the mount is an empty one.
      if (lowers.length === 1) lowers.push(target);
    }
    const upper = { upper: this.#layout.diff(id), work: this.#layout.work(id) };
    return { ...(writable ? upper : {}), lowers, target, options };
  }

  /** Mount point and mount in one call; `undefined` where a mount point is there already. */
  async #mountAtOnce(mount: OverlayMount): Promise<number | undefined> {
    try {
      const { tier, device } = await this.#context.engine.mountOnNewTarget(mount, TARGET_MODE);
      this.#tier = tier;
      return device;
    } catch (error) {
      if (hasErrno(error, 'EEXIST') && (error as { syscall?: string }).syscall === 'mkdir') return undefined;
      throw error;
    }
  }

  /** Makes the mount point. A directory that could be made has no mount on it; one that is there is looked at. */
  async #makeTarget(id: string): Promise<MountEntry | undefined> {
    try {
      await this.#context.engine.batch([{ op: 'mkdir', path: this.#layout.merged(id), mode: TARGET_MODE }]);
      return undefined;
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
      // Mounting on a link would mount on what it leads to.
      await requireDirectory(this.#layout.merged(id));
      return this.#table.entry(id);
    }
  }

  async #device(id: string): Promise<number> {
    return (await stat(this.#layout.merged(id))).dev;
  }

  async #removeTarget(id: string): Promise<void> {
    try {
      await rmdir(this.#layout.merged(id));
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      // Something else put files or a mount there: theirs to take away, and no harm to the layer.
      this.#context.logger.warn(
        { layer: id, path: this.#layout.merged(id), ...errorFields(error) },
        'cannot remove a mount point after unmounting it',
      );
    }
  }
}

export class LayerMounts {
  readonly #layout: Layout;
  readonly #context: DriverContext;

  constructor(layout: Layout, context: DriverContext) {
    this.#layout = layout;
    this.#context = context;
  }

  /** The overlay mount on the layer's mount point; ERR_ACTIVE_MOUNT where it is a foreign one, or several are stacked. */
  async entry(id: string): Promise<MountEntry | undefined> {
    const entries = await this.entries(id);
    const [entry] = entries;
    if (entry === undefined) return undefined;
    if (entries.length > 1)
      throw active(id, `${entries.length} mounts are stacked on "${entry.target}"; unmount them by hand`);
    if (entry.fsType !== 'overlay') {
      throw active(
        id,
        `a foreign mount of type ${entry.fsType} ("${entry.source}") is on "${entry.target}"; unmount it by hand`,
      );
    }
    const upper = upperOf(entry);
    if (upper !== undefined && !this.#isOurs(id, upper)) {
      throw active(
        id,
        `a foreign overlay with the upper directory "${upper}" is on "${entry.target}"; unmount it by hand`,
      );
    }
    return entry;
  }

  async entries(id: string): Promise<MountEntry[]> {
    const target = this.#layout.merged(id);
    return (await this.#context.engine.mounts(target)).filter((entry) => entry.target === target);
  }

  /** The kernel shows the upper directory as it was named: by an absolute path, a relative one, or a descriptor in /proc. */
  #isOurs(id: string, upper: string): boolean {
    return (
      upper === this.#layout.diff(id) || upper.startsWith('/proc/') || upper === 'diff' || upper.endsWith(`${id}/diff`)
    );
  }
}

function upperOf({ options }: MountEntry): string | undefined {
  return /(?:^|,)upperdir=((?:\\.|[^,\\])*)/.exec(options)?.[1];
}

/** The SELinux context a mount was made with; empty for none. */
export function labelOf({ options }: MountEntry): string {
  return /(?:^|,)context="?([^",]*(?:,c[0-9][^",]*)*)"?(?:,|$)/.exec(options)?.[1] ?? '';
}

export function isWritable(entry: MountEntry): boolean {
  return upperOf(entry) !== undefined;
}

/** The error for work that a mount stands in the way of. */
export function active(id: string, why: string): LayerStoreError {
  return new LayerStoreError('ERR_ACTIVE_MOUNT', `the layer "${id}" is in use: ${why}`);
}
