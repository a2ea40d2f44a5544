/**
 * Background work: at most `concurrency` tasks at once, the rest in order. A task's failure is reported, never thrown.
 * `close` aborts the signal that tasks look at, drops what has not begun, and waits for the ones that run.
 */
export class TaskQueue {
  readonly #concurrency: number;
  readonly #report: (error: unknown) => void;
  readonly #abort = new AbortController();
  readonly #waiting: { task: (signal: AbortSignal) => Promise<void>; done: () => void }[] = [];
  readonly #running = new Set<Promise<void>>();
  #failed = 0;

  constructor(concurrency: number, report: (error: unknown) => void) {
    this.#concurrency = concurrency;
    this.#report = report;
  }

  /** Number of tasks that did not complete: they failed, or `close` stopped or dropped them. */
  get failed(): number {
    return this.#failed;
  }

  /** Resolves when the task is over, failed or dropped; never rejects. */
  push(task: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.#abort.signal.aborted) {
      this.#failed += 1;
      return Promise.resolve();
    }
    return new Promise((done) => {
      this.#waiting.push({ task, done });
      this.#next();
    });
  }

  /** Resolves when nothing waits or runs. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.race(this.#running);
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#failed += this.#waiting.length;
    for (const { done } of this.#waiting.splice(0)) done();
    await this.idle();
  }

  #next(): void {
    while (this.#running.size < this.#concurrency) {
      const entry = this.#waiting.shift();
      if (entry === undefined) return;
      const run: Promise<void> = this.#run(entry.task).finally(() => {
        this.#running.delete(run);
        entry.done();
        this.#next();
      });
      this.#running.add(run);
    }
  }

  async #run(task: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await task(this.#abort.signal);
    } catch (error) {
      this.#failed += 1;
      // After close() a failure is only the stop that it asked for.
      if (!this.#abort.signal.aborted) this.#report(error);
    }
  }
}
