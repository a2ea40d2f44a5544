/** A tar of the addon as a Readable: pulled a block at a time, with one call in flight. */
import { Readable } from 'node:stream';
import type { Binding, NativeTarRequest, TarReader } from './binding.js';
import { nativeError } from './errors.js';

/** Bytes that the stream holds ready for its consumer; the addon holds a few blocks more. */
const HIGH_WATER_MARK = 512 * 1024;

/**
 * V8 drops dead buffers of an addon in a full collection, every 64 MiB of them. Its cheap collection of young memory does
 * it too, but only an allocation of V8's own looks whether the young buffers have grown to 32 MiB. So one is made now and
 * then. It counts with its length, while the kernel counts the pages that are touched, which here are none: the memory
 * that a stream really holds stays below 32 MiB.
 */
const REMINDER = 4 * 1024 * 1024;
/** Blocks from one reminder to the next. */
const EVERY = 16;

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
  #blocks = 0;

  constructor(reader: TarReader, options: TarStreamOptions) {
    super({ highWaterMark: HIGH_WATER_MARK });
    this.#reader = reader;
    this.#options = options;
    this.#abort = () => this.destroy(options.signal?.reason as Error);
    options.signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Node calls it again only after the `push`, so there is one read in flight. */
  override _read(): void {
    this.#blocks += 1;
    if (this.#blocks % EVERY === 0) Buffer.allocUnsafeSlow(REMINDER);
    try {
      const block = this.#reader.read();
      if (block === null || Buffer.isBuffer(block)) this.push(block);
      else
        block.then(
          (next) => this.push(next),
          (error: unknown) => this.#fail(error),
        );
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
