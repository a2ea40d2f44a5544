/**
 * Taking layers away: a rename at once, the files later, and what a crash left in between. Directories that are neither
 * a leftover of ours nor asked for are never touched.
 */
import { readlink } from 'node:fs/promises';
import { systemError } from '../../errors.js';
import type { BatchOp } from '../../engine/engine.js';
import { errorFields } from '../../util/logger.js';
import type { DriverContext } from '../context.js';
import { directoriesIn, hasErrno, kindOf, namesIn, readRecord } from '../files.js';
import type { DriverLeftover, StepsAround } from '../graph-driver.js';
import { isLayerID } from '../layer-id.js';
import { isLeftover, removedID, removingName } from '../leftovers.js';
import { TreeRemoval } from '../tree-removal.js';
import { isLinkID, type Layout, LINK_DIRECTORY, linkTarget } from './layout.js';
import { active } from './table.js';

export type Unlink = (signal?: AbortSignal) => Promise<void>;

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
   * Renames the directory of `id` and drops its link; what is returned unlinks the files. An id that is not there is no
   * error. `link`: its name in `l/` where that is known; it is read and checked otherwise.
   */
  async detach(id: string, link: string | undefined): Promise<Unlink> {
    const directory = this.#layout.directory(id);
    const { aside, steps } = await this.#steps(id, link);
    this.#trees.markPending(aside);
    try {
      await this.#run(steps, id);
    } catch (error) {
      this.#trees.unmarkPending(aside);
      if (!hasErrno(error, 'ENOENT') || (await kindOf(directory)) !== undefined) throw error;
      return async () => undefined;
    }
    return this.#unlinking(aside);
  }

  /** The same together with steps of the store's, in one batch; rejects wherever anything is odd. */
  async detachWith(id: string, link: string | undefined, { before, after }: StepsAround): Promise<Unlink> {
    const { aside, steps } = await this.#steps(id, link);
    const [unmounted, ...rest] = steps;
    // The mount point first: where something is mounted on it, nothing else has happened.
    const all = [...(unmounted === undefined ? [] : [unmounted]), ...before, ...rest, ...after];
    this.#trees.markPending(aside);
    try {
      await this.#context.engine.batch(all);
    } catch (error) {
      this.#trees.unmarkPending(aside);
      throw error;
    }
    return this.#unlinking(aside);
  }

  #unlinking(aside: string): Unlink {
    return (signal) => this.#trees.run(aside, signal);
  }

  async #steps(id: string, link: string | undefined): Promise<{ aside: string; steps: BatchOp[] }> {
    const directory = this.#layout.directory(id);
    const aside = `${this.#layout.home}/${removingName(id)}`;
    const own = link ?? (await this.#ownLink(directory, id));
    const strict = this.#context.durability === 'strict';
    const steps: BatchOp[] = [
      // Fails where something is mounted on it, and detaches copies of an old mount in other namespaces.
      { op: 'rmdir', path: this.#layout.merged(id), missingOk: true },
      { op: 'rename', path: directory, dest: aside, noReplace: true },
      ...(own === undefined ? [] : [{ op: 'unlink' as const, path: this.#layout.link(own), missingOk: true }]),
      ...(strict ? [{ op: 'fsync' as const, path: this.#layout.home }] : []),
    ];
    return { aside, steps };
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

  /** Goes before the directory, since the file that names the link goes with that. */
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

  /** rmdir of the mount point is the one step that may fail without harm: where strangers put files there. */
  async #run(steps: readonly BatchOp[], id: string): Promise<void> {
    try {
      await this.#context.engine.batch(steps);
    } catch (error) {
      if (hasErrno(error, 'ENOTEMPTY', 'EEXIST', 'ENOTDIR') && (await kindOf(this.#layout.merged(id))) !== undefined) {
        await this.#context.engine.batch(steps.slice(1));
      } else if (hasErrno(error, 'EBUSY')) {
        throw active(id, `something is mounted on "${this.#layout.merged(id)}"`);
      } else {
        throw error;
      }
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
