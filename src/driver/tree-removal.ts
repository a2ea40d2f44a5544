/**
 * How trees go: renamed at once to a name that begins with a dot, unlinked later. Such names are never a layer's id, Docker
 * looks at none of them, and recovery finds them after a crash. Scratch of other kinds is named here too.
 */
import { defined } from '../util/defined.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields } from '../util/logger.js';
import { randomID } from '../util/random-id.js';
import type { DriverContext } from './context.js';
import type { DriverLeftover } from './graph-driver.js';

const REMOVING = /^\.removing-(.+)-[a-f0-9]{16}$/;
const SCRATCH = '.probe-';

/** A name for the directory of `id` while its files are unlinked; another one at each call, since an id may come again. */
export function removingName(id: string): string {
  return `.removing-${id}-${randomID(8)}`;
}

/** The id that a name of {@link removingName} stands for. */
export function removedID(name: string): string | undefined {
  return REMOVING.exec(name)?.[1];
}

/** Prefix of a probe's scratch directory, for `mkdtemp`. */
export function scratchPrefix(): string {
  return SCRATCH;
}

export function isScratch(name: string): boolean {
  return name.startsWith(SCRATCH);
}

/** Where the native engine keeps files that a later entry of the same tar replaced, beside the tree while it unpacks. */
export function isReplaced(name: string): boolean {
  return /^\.replaced-[0-9]+$/.test(name);
}

/** Whether a crash left this behind: a half-removed layer, or a probe's scratch directory. */
export function isLeftover(name: string): boolean {
  return REMOVING.test(name) || isScratch(name);
}

/**
 * Unlinks trees, each path by one caller at a time. Two at once get in each other's way: one finds a directory gone that
 * it has just opened and fails, and would be over before the tree is gone.
 */
export class TreeRemoval {
  readonly #context: DriverContext;
  readonly #paths = new KeyedMutex();
  /** Paths that this process is about to unlink, or unlinks. */
  readonly #pending = new Set<string>();

  constructor(context: DriverContext) {
    this.#context = context;
  }

  /** Marks `path` as about to be removed, until a `run` on it ends. To be called before the path comes to be. */
  markPending(path: string): void {
    this.#pending.add(path);
  }

  /** Takes the mark off where no `run` follows. */
  unmarkPending(path: string): void {
    this.#pending.delete(path);
  }

  /** Resolves when nothing is left at `path`. A second caller waits for the first, then removes what that one could not. */
  run(path: string, signal?: AbortSignal): Promise<void> {
    return this.#paths.run(path, async () => {
      this.#pending.add(path);
      try {
        await this.#context.engine.removeTree(path, defined({ signal }));
      } finally {
        this.#pending.delete(path);
      }
    });
  }

  /**
   * Removes the trees `names` of `home`, which an earlier process left, or this one has still to remove; `before` runs ahead
   * of each. One that cannot be removed keeps nobody from the others: that is logged, and the next call tries again. An abort
   * ends it early.
   */
  async removeAll(
    home: string,
    names: readonly string[],
    before: (name: string) => Promise<void>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const own = names.map((name) => `${home}/${name}`).filter((path) => !this.#pending.has(path));
    for (const path of own) this.markPending(path);
    try {
      for (const name of names) {
        const path = `${home}/${name}`;
        try {
          await before(name);
          await this.run(path, signal);
          this.#context.logger.info({ path }, 'removed what an earlier process left of a layer');
        } catch (error) {
          if (signal?.aborted === true) return;
          this.#context.logger.warn({ path, ...errorFields(error) }, 'cannot remove what an earlier process left');
        }
      }
    } finally {
      for (const path of own) this.unmarkPending(path);
    }
  }

  /** Those of `names` in `home` that are still there, with what they hold. */
  async leftovers(home: string, names: readonly string[]): Promise<Required<DriverLeftover>[]> {
    const found: Required<DriverLeftover>[] = [];
    for (const name of names) {
      const path = `${home}/${name}`;
      const pending = this.#pending.has(path);
      const id = removedID(name);
      const begun = id === undefined ? 'scratch of a process that is gone' : `the removal of "${id}" was begun`;
      const why = pending ? `${begun} and goes on` : id === undefined ? begun : `${begun} and not ended`;
      found.push({ what: name, why, pending, ...(await this.#usage(path)) });
    }
    return found;
  }

  async #usage(path: string): Promise<{ bytes: number; inodes: number }> {
    // A tree that is unlinked meanwhile can fail once or twice, and then be smaller, or gone.
    for (let attempt = 0; attempt < 3; attempt++) {
      try {
        const { allocated, inodes } = await this.#context.engine.usage(path);
        return { bytes: allocated, inodes };
      } catch (error) {
        this.#context.logger.debug({ path, ...errorFields(error) }, 'cannot measure a tree that is being removed');
      }
    }
    return { bytes: 0, inodes: 0 };
  }
}
