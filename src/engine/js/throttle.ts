/** Throttle: a budget of bytes a second. */
import { setTimeout as sleep } from 'node:timers/promises';

export class Throttle {
  readonly #rate: number | undefined;
  readonly #signal: AbortSignal | undefined;
  #next = 0;

  constructor(bytesPerSecond: number | undefined, signal: AbortSignal | undefined) {
    this.#rate = bytesPerSecond;
    this.#signal = signal;
  }

  /** Resolves once `bytes` fit the budget. */
  async take(bytes: number): Promise<void> {
    if (this.#rate === undefined || this.#rate <= 0) return;
    const now = performance.now();
    const wait = this.#next - now;
    this.#next = Math.max(now, this.#next) + (bytes / this.#rate) * 1000;
    if (wait > 0) await sleep(wait, undefined, this.#signal === undefined ? {} : { signal: this.#signal });
  }
}
