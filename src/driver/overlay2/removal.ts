/**
 * Taking layers away: a rename at once, the files later, and what a crash left in between. Directories that are neither
 * a leftover of ours nor asked for are never touched.
 */
import { readlink } from 'node:fs/promises';
import type { BatchOp, StepsAround } from '../../engine/engine.js';
import { LayerStoreError, systemError } from '../../errors.js';
import { errorFields } from '../../util/logger.js';
import { type DriverContext, isLayerID } from '../context.js';
import type { Unlink } from '../driver.js';
import { directoriesIn, hasErrno, isMissing, kindOf, namesIn, readRecord } from '../files.js';
import type { DriverLeftover } from '../graph-driver.js';
import { isLeftover, removedID, removingName, TreeRemoval } from '../tree-removal.js';
import { isLinkID, type Layout, LINK_DIRECTORY, linkTarget } from './layout.js';
import { active } from './mounts.js';

export class Removal {
  readonly #layout: Layout;
  readonly #context: DriverContext;
  readonly #trees: TreeRemoval;

  constructor(layout: Layout, context: DriverContext) {
    this.#layout = layout;
    this.#context = context;
    this.#trees = new TreeRemoval(context);
  }

  /**
   * Renames the directory of `id` and drops its link, with the store's steps in one batch; what is returned unlinks the
   * files. An id that is not there is no error. `link`: its name in `l/` where that is known; it is read and checked
   * otherwise.
   */
  async detach(id: string, link: string | undefined, around: StepsAround): Promise<Unlink> {
    const { aside, mountPoint, steps } = await this.#steps(id, link);
    this.#trees.markPending(aside);
    try {
      await this.#run(id, mountPoint, [...around.before, ...steps, ...around.after]);
    } catch (error) {
      this.#trees.unmarkPending(aside);
      if (!isMissing(error, this.#layout.directory(id))) throw error;
      // The batch stopped where the directory should have been: the steps before were done.
      if (around.after.length > 0) await this.#context.engine.batch(around.after);
      return async () => undefined;
    }
    return (signal) => this.#trees.run(aside, signal);
  }

  async #steps(
    id: string,
    link: string | undefined,
  ): Promise<{ aside: string; mountPoint: BatchOp; steps: BatchOp[] }> {
    const directory = this.#layout.directory(id);
    const aside = `${this.#layout.home}/${removingName(id)}`;
    const own = link ?? (await this.#ownLink(directory, id));
    const strict = this.#context.durability === 'strict';
    const steps: BatchOp[] = [
      { op: 'rename', path: directory, dest: aside, noReplace: true },
      ...(own === undefined ? [] : [{ op: 'unlink' as const, path: this.#layout.link(own), missingOk: true }]),
      ...(strict ? [{ op: 'fsync' as const, path: this.#layout.home }] : []),
    ];
    // Fails where something is mounted on it, and detaches copies of an old mount in other namespaces.
    return { aside, mountPoint: { op: 'rmdir', path: this.#layout.merged(id), missingOk: true }, steps };
  }

  /** Ends what earlier processes began: half-removed layers, scratch directories, links to layers that are gone. */
  async cleanup(signal?: AbortSignal): Promise<void> {
    const { home } = this.#layout;
    const directories = await directoriesIn(home, this.#context.engine);
    await this.#trees.removeAll(home, directories.filter(isLeftover), (name) => this.#dropLinkOf(name), signal);
    if (signal?.aborted === true) return;
    const links = await namesIn(this.#layout.links, this.#context.engine);
    // Each layer has one link: looking at each of them is worth it only where there are more.
    const layers = directories.filter((name) => isLayerID(name) && name !== LINK_DIRECTORY).length;
    if (links.length > layers) await this.#dropDangling(links);
  }

  /** Removed before the directory, because a file in the directory names the link. */
  async #dropLinkOf(leftover: string): Promise<void> {
    const id = removedID(leftover);
    const link = id === undefined ? undefined : await this.#ownLink(`${this.#layout.home}/${leftover}`, id);
    if (link === undefined) return;
    await this.#context.engine.batch([{ op: 'unlink', path: this.#layout.link(link), missingOk: true }]);
  }

  async leftovers(): Promise<Required<DriverLeftover>[]> {
    const { home } = this.#layout;
    return this.#trees.leftovers(home, (await directoriesIn(home, this.#context.engine)).filter(isLeftover));
  }

  async #dropDangling(links: readonly string[]): Promise<void> {
    for (const link of links.filter(isLinkID)) {
      const path = this.#layout.link(link);
      try {
        const id = linkTarget(await readlink(path));
        if (id === undefined || (await kindOf(this.#layout.directory(id))) !== undefined) continue;
        await this.#context.engine.batch([{ op: 'unlink', path, missingOk: true }]);
        this.#context.logger.info({ path, layer: id }, 'removed the link of a layer that is gone');
      } catch (error) {
        this.#context.logger.warn({ path, ...errorFields(error) }, 'cannot look after a link of the overlay2 driver');
      }
    }
  }

  /** Removes the mount point first: if something is mounted on it, nothing else has been removed yet. Other files in it do no harm. */
  async #run(id: string, mountPoint: BatchOp, steps: readonly BatchOp[]): Promise<void> {
    try {
      await this.#context.engine.batch([mountPoint, ...steps]);
    } catch (error) {
      const about = LayerStoreError.is(error) ? error.path : undefined;
      if (about !== mountPoint.path) throw error;
      if (hasErrno(error, 'ENOTEMPTY', 'EEXIST', 'ENOTDIR')) return this.#context.engine.batch(steps);
      if (hasErrno(error, 'EBUSY')) throw active(id, `something is mounted on "${mountPoint.path}"`);
      throw error;
    }
  }

  /** The link that a layer's own record names, if it stands for that layer and no other. */
  async #ownLink(directory: string, id: string): Promise<string | undefined> {
    try {
      const link = await readRecord(`${directory}/link`, 64);
      if (link === undefined || !isLinkID(link)) return undefined;
      return linkTarget(await readlink(this.#layout.link(link))) === id ? link : undefined;
    } catch (error) {
      // A damaged or missing record: the link, if there is one, is found as a dangling one.
      this.#context.logger.debug(
        { layer: id, ...errorFields(systemError(error, 'read the link of')) },
        'a layer has no usable link',
      );
      return undefined;
    }
  }
}
