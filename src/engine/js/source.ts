/**
 * SourceReader: the chunks of a TarSource, whatever kind it is, with an end that can be forced: `cancel` rejects a read
 * that is waiting for a source which gives nothing. hashFile reads one for its digests alone.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { invalidArgument, LayerStoreError, systemError } from '../../errors.js';
import type { DiffID, Digest } from '../../digest.js';
import type { HashFileResult, TarSource } from '../engine.js';
import { DEFAULT_LIMITS } from '../limits.js';
import { decode } from './compression.js';
import * as fs from './fs.js';

const READ_SIZE = 256 * 1024;

export interface SourceOptions {
  signal: AbortSignal | undefined;
  /** Makes `digest()` work. */
  hash: boolean;
}

export class SourceReader implements AsyncIterable<Buffer> {
  readonly totalBytes: number | undefined;
  readonly #chunks: AsyncIterator<unknown>;
  readonly #stop: (() => void) | undefined;
  readonly #hash: Hash | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.cancel(this.#signal?.reason);
  #bytes = 0;
  #pending: ((reason: unknown) => void) | undefined;
  #cancelled: { reason: unknown } | undefined;
  #ended = false;

  private constructor(
    chunks: AsyncIterator<unknown>,
    totalBytes: number | undefined,
    stop: (() => void) | undefined,
    options: SourceOptions,
  ) {
    this.#chunks = chunks;
    this.totalBytes = totalBytes;
    this.#stop = stop;
    this.#hash = options.hash ? createHash('sha256') : undefined;
    this.#signal = options.signal;
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Takes the source over: it is let go of also where this throws, as after an abort. */
  static async open(source: TarSource, options: SourceOptions): Promise<SourceReader> {
    const reader = await SourceReader.#of(source, options);
    if (options.signal?.aborted === true) {
      await reader.close();
      options.signal.throwIfAborted();
    }
    return reader;
  }

  static async #of(source: TarSource, options: SourceOptions): Promise<SourceReader> {
    if (typeof source === 'object' && source !== null) {
      if (Symbol.asyncIterator in source) {
        // The iterator listens from its first `next` on, and tells then of an error that came before.
        if ('destroy' in source && 'on' in source) source.on('error', () => undefined);
        const chunks = (source as AsyncIterable<unknown>)[Symbol.asyncIterator]();
        const { destroy } = source as { destroy?: unknown };
        const stop =
          typeof destroy === 'function' ? (): void => void (source as { destroy(): void }).destroy() : undefined;
        return new SourceReader(chunks, undefined, stop, options);
      }
      if ('path' in source && typeof source.path === 'string') return SourceReader.#openFile(source, options);
    }
    throw invalidArgument(
      'a tar source must be a Readable, an async iterable of Uint8Array, a web ReadableStream or { path }',
    );
  }

  static async #openFile(
    source: { path: string; offset?: number; length?: number },
    options: SourceOptions,
  ): Promise<SourceReader> {
    const { path, offset, length } = source;
    try {
      const stat = await fs.stat(path);
      const totalBytes = length ?? (stat.isFile() ? Number(stat.size) : undefined);
      return new SourceReader(readFile(path, offset, length), totalBytes, undefined, options);
    } catch (error) {
      throw systemError(error, 'open the tar', 'check the path', { path });
    }
  }

  /** Bytes read so far. */
  get bytesRead(): number {
    return this.#bytes;
  }

  /** SHA-256 of the bytes read; once, and only where `hash` was asked for. */
  digest(): Digest | undefined {
    return this.#hash === undefined ? undefined : `sha256:${this.#hash.digest('hex')}`;
  }

  /** Ends a read that is waiting, and every later one, with `reason`. */
  cancel(reason: unknown): void {
    this.#cancelled ??= { reason };
    this.#pending?.(reason);
  }

  /** Lets go of the source; one that was not read to its end is destroyed. */
  async close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    if (this.#ended) return;
    this.#ended = true;
    this.#stop?.();
    // A generator that is waiting for its own source answers return() only when that one does: it is not waited for.
    const returned = Promise.resolve(this.#chunks.return?.()).catch(() => undefined);
    if (this.#pending === undefined && this.#stop === undefined) await returned;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    for (;;) {
      const next = await this.#next();
      if (next.done === true) break;
      const chunk = asBuffer(next.value);
      this.#bytes += chunk.length;
      this.#hash?.update(chunk);
      yield chunk;
    }
    this.#ended = true;
  }

  #next(): Promise<IteratorResult<unknown>> {
    return new Promise((resolve, reject) => {
      if (this.#cancelled !== undefined) {
        reject(this.#cancelled.reason);
        return;
      }
      this.#pending = reject;
      const settled = (): void => void (this.#pending = undefined);
      this.#chunks.next().then(
        (result) => {
          settled();
          resolve(result);
        },
        (error: unknown) => {
          settled();
          // A source that failed is at its end: nothing of it is left to be destroyed.
          this.#ended = true;
          reject(error);
        },
      );
    });
  }
}

/** Chunks of a file or of a range of it, one read ahead. Opened at the first read: one that is never read holds nothing. */
async function* readFile(path: string, offset: number | undefined, length: number | undefined): AsyncGenerator<Buffer> {
  let fd: number;
  try {
    fd = await fs.open(path, constants.O_RDONLY);
  } catch (error) {
    throw systemError(error, 'open the tar', 'check the path', { path });
  }
  let at = offset ?? 0;
  let left = length ?? Infinity;
  const readNext = async (): Promise<Buffer> => {
    const buffer = Buffer.allocUnsafeSlow(Math.min(READ_SIZE, left));
    // Only a range is read by position: a pipe has none.
    const count = await fs.read(fd, buffer, 0, buffer.length, offset === undefined ? null : at);
    at += count;
    left -= count;
    return buffer.subarray(0, count);
  };
  let ahead: Promise<Buffer> | undefined;
  try {
    while (ahead !== undefined || left > 0) {
      const chunk = await (ahead ?? readNext());
      ahead = undefined;
      if (chunk.length === 0) break;
      if (left > 0) {
        ahead = readNext();
        ahead.catch(() => undefined); // It is awaited in the next turn, and must not count as unhandled until then.
      }
      yield chunk;
    }
    if (length !== undefined && left > 0) {
      throw new LayerStoreError(
        'ERR_BAD_TAR',
        `the file "${path}" ends ${String(left)} bytes before the end of the range that holds the tar`,
        {
          path,
          offset: length - left,
        },
      );
    }
  } catch (error) {
    throw systemError(error, 'read the tar', undefined, { path });
  } finally {
    await ahead?.catch(() => undefined);
    await fs.close(fd);
  }
}

/** The bytes of a chunk. Memory that another thread may change, or took away, is refused: what is hashed is what is written. */
function asBuffer(value: unknown): Buffer {
  let what: string = typeof value;
  if (value instanceof Uint8Array) {
    const { buffer, byteOffset, byteLength } = value;
    if (buffer instanceof ArrayBuffer && !isDetached(buffer)) return Buffer.from(buffer, byteOffset, byteLength);
    what = buffer instanceof ArrayBuffer ? 'Uint8Array of detached memory' : 'Uint8Array of shared memory';
  }
  throw invalidArgument(`the tar source gave a chunk of type ${what}; it must give a Uint8Array of memory of its own`);
}

function isDetached(buffer: ArrayBuffer): boolean {
  try {
    return new Uint8Array(buffer).length < 0;
  } catch {
    return true; // no view can be made of what was transferred
  }
}

/** See {@link Engine.hashFile}. */
export async function hashFile(path: string, options: { signal?: AbortSignal } = {}): Promise<HashFileResult> {
  const source = await SourceReader.open({ path }, { hash: true, signal: options.signal });
  try {
    const decoded = await decode(source, DEFAULT_LIMITS);
    const hash = createHash('sha256');
    let tarSize = 0;
    for await (const chunk of decoded.chunks) {
      options.signal?.throwIfAborted();
      tarSize += chunk.length;
      if (decoded.compression !== 'none') hash.update(chunk);
    }
    const digest = source.digest()!;
    const diffID = (decoded.compression === 'none' ? digest : `sha256:${hash.digest('hex')}`) as DiffID;
    return { digest, diffID, size: source.bytesRead, tarSize, compression: decoded.compression };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    await source.close();
  }
}
