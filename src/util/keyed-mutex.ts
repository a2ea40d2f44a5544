/** Runs the work of one key in order of arrival; different keys do not wait for each other. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<void>>();

  /** Number of keys that are held or waited for. */
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
      // The last in line deletes the key, so that the map holds only keys in use.
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      open();
    }
  }
}
