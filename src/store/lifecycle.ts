/** Whether a store takes work, and what of it runs: what `close` waits for. */
import { LayerStoreError } from '../errors.js';
import { observed, type Operation, type OperationDetails } from './diagnostics.js';

export class Lifecycle {
  readonly #root: string;
  readonly #readOnly: boolean;
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(root: string, readOnly: boolean) {
    this.#root = root;
    this.#readOnly = readOnly;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Throws ERR_STORE_CLOSED after `close` was called. */
  check(operation: string): void {
    if (this.closed) {
      throw new LayerStoreError(
        'ERR_STORE_CLOSED',
        `cannot ${operation}: the store at "${this.#root}" is closed; open it again with openStore()`,
      );
    }
  }

  /** Throws ERR_READ_ONLY in a store that was opened so. */
  checkWritable(operation: string): void {
    if (this.#readOnly) {
      throw new LayerStoreError(
        'ERR_READ_ONLY',
        `cannot ${operation}: the store at "${this.#root}" is open read-only; open it without "readOnly" to change it`,
      );
    }
  }

  /** One operation: refused after close, counted until it settles, published on its channel. */
  async read<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    this.check(operation);
    const run = observed(operation, this.#root, work);
    this.#running.add(run);
    try {
      return await run;
    } finally {
      this.#running.delete(run);
    }
  }

  /** The same, for an operation that changes something. */
  async write<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    this.check(operation);
    this.checkWritable(operation);
    return this.read(operation, work);
  }

  /** Refuses new work, waits for what runs, then ends the rest by `finish`; the second caller waits for the first. */
  close(finish: () => Promise<void>): Promise<void> {
    this.#closing ??= observed('close', this.#root, async () => {
      // What fails there is its caller's to hear, not ours.
      await Promise.allSettled(this.#running);
      await finish();
    });
    return this.#closing;
  }
}
