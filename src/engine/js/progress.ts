/** Reports counters at most ten times a second, and once at the end. */
import type { ProgressListener } from '../engine.js';
import { defined } from '../../util/defined.js';

const INTERVAL_MS = 100;

export class ProgressMeter {
  readonly #listener: ProgressListener | undefined;
  readonly #totalBytes: number | undefined;
  #next = 0;

  constructor(listener: ProgressListener | undefined, totalBytes: number | undefined) {
    this.#listener = listener;
    this.#totalBytes = totalBytes;
  }

  report(bytesRead: number, bytesUnpacked: number, entries: number): void {
    if (this.#listener === undefined) return;
    const now = performance.now();
    if (now < this.#next) return;
    this.#next = now + INTERVAL_MS;
    this.finish(bytesRead, bytesUnpacked, entries);
  }

  finish(bytesRead: number, bytesUnpacked: number, entries: number): void {
    this.#listener?.({
      bytesRead,
      ...defined({ totalBytes: this.#totalBytes }),
      bytesUnpacked,
      entries,
    });
  }
}
