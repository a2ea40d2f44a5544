/**
 * Unlinks trees, each path by one caller at a time. Two at once get in each other's way: one finds a directory gone that
 * it has just opened and fails, and would be over before the tree is gone.
 */
import type { Engine } from '../engine/engine.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import type { DriverLeftover } from './graph-driver.js';
import { removedID } from './leftovers.js';

export class TreeRemoval {
  readonly #engine: Engine;
  readonly #paths = new KeyedMutex();
  /** Paths that somebody here is about to unlink, or unlinks. */
  readonly #going = new Set<string>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Said before the path comes to be, or before its turn: no leftover until a `run` on it has ended. */
  announce(path: string): void {
    this.#going.add(path);
  }

  /** The contrary, where no `run` follows. */
  forgo(path: string): void {
    this.#going.delete(path);
  }

  /** Resolves when nothing is left at `path`; whoever comes second waits, then ends what the first one could not. */
  run(path: string, signal?: AbortSignal): Promise<void> {
    return this.#paths.run(path, async () => {
      this.#going.add(path);
      try {
        await this.#engine.removeTree(path, signal === undefined ? {} : { signal });
      } finally {
        this.#going.delete(path);
      }
    });
  }

  /** Those of `names` in `home` that nobody here unlinks already, with the space they hold. */
  async leftovers(home: string, names: readonly string[]): Promise<DriverLeftover[]> {
    const found: DriverLeftover[] = [];
    for (const name of names) {
      const path = `${home}/${name}`;
      if (this.#going.has(path)) continue;
      const id = removedID(name);
      found.push({
        what: name,
        why: id === undefined ? 'scratch of a process that is gone' : `the removal of "${id}" was begun and not ended`,
        // It may be unlinked while it is looked at, and holds nothing then.
        bytes: (await this.#engine.usage(path).catch(() => undefined))?.allocated ?? 0,
      });
    }
    return found;
  }
}
