/**
 * Work in flight by key, so that equal work is done once. A flight ends with its outcome, or with nothing where it
 * failed: whoever waited then does the work himself.
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

  /** Takes keys that nobody has; gives what ends their flights. Synchronous, so that `of` before it stays true. */
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
