/**
 * Layers that were there before a load, that it builds on, and that must be there after it also where it fails and
 * nobody else refers to them. As a reference source they outlast the load's own handles without becoming anybody's.
 */
import type { ChainID } from '../digest.js';

export class KeptChains {
  readonly #loads = new Set<Keeper>();

  /** @param before what was there when the load began; nothing else is kept */
  begin(before: Iterable<ChainID>): Keeper {
    const keeper = new Keeper(new Set(before), () => this.#loads.delete(keeper));
    this.#loads.add(keeper);
    return keeper;
  }

  /** For `Store.addReferenceSource`. */
  chains(): Iterable<ChainID> {
    return [...this.#loads].flatMap(({ kept }) => [...kept]);
  }
}

/** One load's. */
export class Keeper {
  readonly kept = new Set<ChainID>();
  readonly #before: ReadonlySet<ChainID>;
  readonly end: () => void;

  constructor(before: ReadonlySet<ChainID>, end: () => void) {
    this.#before = before;
    this.end = end;
  }

  keep(chain: ChainID): void {
    if (this.#before.has(chain)) this.kept.add(chain);
  }
}
