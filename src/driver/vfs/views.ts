/**
 * Read-only views of vfs trees: an overlay mount with nothing but lower directories, counted by id. Where this process may
 * not mount, or overlayfs takes nothing from the trees' file system, the tree's own directory is all there is to give, and
 * it is as writable as it is to the caller.
 */
import { rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemError } from '../../errors.js';
import { KeyedMutex } from '../../util/keyed-mutex.js';
import { errorFields } from '../../util/logger.js';
import { makeDirectory } from '../../util/make-directory.js';
import { type DriverContext, isLayerID } from '../context.js';
import { hasErrno, requireDirectory } from '../files.js';
import type { LiveMount } from '../graph-driver.js';

const TARGET_MODE = 0o700;
/** No right to mount (EACCES: a security module says so), or no overlayfs, whatever is asked for. */
const CANNOT_MOUNT = ['EPERM', 'EACCES', 'ENODEV', 'ENOSYS'];

export class VfsViews {
  readonly #context: DriverContext;
  readonly #home: string;
  readonly #mutex = new KeyedMutex();
  readonly #open = new Map<string, { count: number; readonly path: string; readonly mounted: boolean }>();

  constructor(context: DriverContext) {
    this.#context = context;
    this.#home = `${context.root === '/' ? '' : context.root}/layerstore/views`;
  }

  /** The path of the view of `directory`, the tree of `id`, counted. */
  get(id: string, directory: string): Promise<string> {
    return this.#mutex.run(id, async () => {
      const held = this.#open.get(id) ?? (await this.#mount(id, directory));
      held.count++;
      this.#open.set(id, held);
      return held.path;
    });
  }

  /** Takes one count away, the last with the mount; `false`: there is no view of `id`. */
  put(id: string): Promise<boolean> {
    return this.#mutex.run(id, async () => {
      const held = this.#open.get(id);
      if (held === undefined) return false;
      if (held.count === 1) {
        if (held.mounted) await this.#unmount(held.path);
        this.#open.delete(id);
      }
      held.count--;
      return true;
    });
  }

  /** Views in the mount table, of this process or an earlier one. */
  async live(): Promise<LiveMount[]> {
    const found = new Map<string, LiveMount>();
    for (const { target } of await this.#context.engine.mounts(this.#home)) {
      const id = target.slice(this.#home.length + 1);
      if (isLayerID(id) && target === this.#target(id)) found.set(id, { id, path: target });
    }
    return [...found.values()];
  }

  /** Takes a mount that {@link live} found over, as one `get`. */
  adopt(id: string): Promise<string> {
    return this.#mutex.run(id, () => {
      const held = this.#open.get(id) ?? { count: 0, path: this.#target(id), mounted: true };
      held.count++;
      this.#open.set(id, held);
      return Promise.resolve(held.path);
    });
  }

  async #mount(id: string, directory: string): Promise<{ count: number; path: string; mounted: boolean }> {
    const target = this.#target(id);
    // Mounting on a link would mount on what it leads to.
    for (const directory of [this.#home, target]) {
      await makeDirectory(directory, TARGET_MODE).catch((error: unknown) => {
        throw systemError(error, 'make the mount point of a view');
      });
      await requireDirectory(directory);
    }
    try {
      // Without an upper directory overlayfs wants two lower ones; the mount point below the mount is an empty one.
      await this.#context.engine.mountOverlay({ lowers: [directory, target], target, options: [] });
      return { count: 0, path: target, mounted: true };
    } catch (error) {
      const cannot =
        hasErrno(error, ...CANNOT_MOUNT) || (hasErrno(error, 'EINVAL') && (await this.#refused(directory, target)));
      await this.#removeTarget(target);
      if (!cannot) throw error;
      this.#context.logger.info(
        { layer: id, path: directory, ...errorFields(error) },
        'a view is the tree itself, which is not protected from writing: it cannot be mounted read-only',
      );
      return { count: 0, path: directory, mounted: false };
    }
  }

  /**
   * EINVAL says no more than that something does not please the kernel. Where it takes the directory that holds the trees
   * no more than this one, it is the file system: overlays stacked too deep, names compared without case.
   */
  async #refused(directory: string, target: string): Promise<boolean> {
    const { engine, root } = this.#context;
    try {
      await engine.mountOverlay({ lowers: [dirname(directory), `${root}/layerstore`], target, options: [] });
    } catch (error) {
      if (hasErrno(error, 'EINVAL')) return true;
      throw error;
    }
    await engine.unmount(target);
    return false;
  }

  async #unmount(target: string): Promise<void> {
    try {
      await this.#context.engine.unmount(target);
    } catch (error) {
      if (!hasErrno(error, 'EINVAL', 'ENOENT')) throw error;
      this.#context.logger.warn({ path: target }, 'a mount vanished: something else unmounted it');
    }
    await this.#removeTarget(target);
  }

  async #removeTarget(target: string): Promise<void> {
    try {
      await rmdir(target);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      this.#context.logger.warn({ path: target, ...errorFields(error) }, 'cannot remove the mount point of a view');
    }
  }

  #target(id: string): string {
    return `${this.#home}/${id}`;
  }
}
