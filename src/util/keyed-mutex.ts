/** Runs the work of one key in order of arrival; different keys do not wait for each other. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>();

  /** Keys that somebody holds or waits for. */
  get size(): number {
    return this.#tails.size;
  }

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    let open!: () => void;
    const tail = new Promise<void>((resolve) => (open = resolve));
    this.#tails.set(key, tail);
    try {
      await before;
      return await work();
    } finally {
      // The last in line takes the key along, so that the map holds only what is in use.
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      open();
    }
  }
}
