/**
 * Work in flight by key, so that equal work is done once. A flight ends with its outcome, or with undefined if it
 * failed; then each waiting caller does the work itself.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Promise<T | undefined>>();

  get size(): number {
    return this.#flights.size;
  }

  /** The flight of `key`, if there is one; it never rejects. */
  of(key: string): Promise<T | undefined> | undefined {
    return this.#flights.get(key);
  }

  /** Begins a flight under keys that have none; returns the function that ends it. Synchronous, so that an `of` just before it holds. */
  start(keys: readonly string[]): (outcome?: T) => void {
    let resolve!: (outcome: T | undefined) => void;
    const flight = new Promise<T | undefined>((settle) => (resolve = settle));
    for (const key of keys) this.#flights.set(key, flight);
    return (outcome) => {
      for (const key of keys) if (this.#flights.get(key) === flight) this.#flights.delete(key);
      resolve(outcome);
    };
  }
}
