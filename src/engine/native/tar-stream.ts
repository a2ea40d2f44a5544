/** A tar of the addon as a Readable: pulled a block at a time, with one call in flight. */
import { Readable } from 'node:stream';
import type { Binding, NativeTarRequest, TarReader } from './binding.js';
import { nativeError } from './errors.js';

/** Bytes that the stream holds ready for its consumer; the addon holds a few blocks more. */
const HIGH_WATER_MARK = 512 * 1024;

export interface TarStreamOptions {
  action: string;
  signal?: AbortSignal | undefined;
}

/**
 * Opens the stream. It errors with a LayerStoreError, or with `signal.reason`; destroying it stops the native thread,
 * and `close` comes after that thread has ended.
 */
export function openTarStream(binding: Binding, request: NativeTarRequest, options: TarStreamOptions): Readable {
  options.signal?.throwIfAborted();
  return new NativeTarStream(new binding.TarReader(request), options);
}

class NativeTarStream extends Readable {
  readonly #reader: TarReader;
  readonly #options: TarStreamOptions;
  readonly #abort: () => void;

  constructor(reader: TarReader, options: TarStreamOptions) {
    super({ highWaterMark: HIGH_WATER_MARK });
    this.#reader = reader;
    this.#options = options;
    this.#abort = () => this.destroy(options.signal?.reason as Error);
    options.signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Node calls it again only after the `push`, so there is one read in flight. */
  override _read(): void {
    try {
      const block = this.#reader.read();
      if (block === null || Buffer.isBuffer(block)) this.push(block);
      else block.then((next) => this.push(next), (error: unknown) => this.#fail(error));
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.destroy(nativeError(error, this.#options.action, this.#options.signal) as Error);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#options.signal?.removeEventListener('abort', this.#abort);
    this.#reader.destroy().then(
      () => callback(error),
      (failure: unknown) => callback(error ?? (failure as Error)),
    );
  }
}
