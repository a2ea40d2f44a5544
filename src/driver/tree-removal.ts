/**
 * Unlinks trees, each path by one caller at a time. Two at once get in each other's way: one finds a directory gone that
 * it has just opened and fails, and would be over before the tree is gone.
 */
import type { Engine } from '../engine/engine.js';
import { KeyedMutex } from '../util/keyed-mutex.js';

export class TreeRemoval {
  readonly #engine: Engine;
  readonly #paths = new KeyedMutex();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Resolves when nothing is left at `path`; whoever comes second waits, then ends what the first one could not. */
  run(path: string, signal?: AbortSignal): Promise<void> {
    return this.#paths.run(path, () => this.#engine.removeTree(path, signal === undefined ? {} : { signal }));
  }
}
