/** TaskPool: a bounded number of promises at once. The first failure is thrown by the next `run` or `drain`. */
export class TaskPool {
  readonly #limit: number;
  readonly #running = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Starts a task; resolves once there is room for it, not when it is done. */
  async run(task: () => Promise<void>): Promise<void> {
    const running = (async () => {
      try {
        await task();
      } catch (error) {
        this.#failure ??= { error };
      }
    })();
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
    while (this.#running.size >= this.#limit) await Promise.race(this.#running);
    this.#check();
  }

  /** Resolves once every task has ended. */
  async drain(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    this.#check();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
