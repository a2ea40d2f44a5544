/**
 * Spool: a file without a name for what a stream brings before it is needed. It is unlinked as soon as it is open, so
 * nothing is left of it however the process ends, and read back through its descriptor's path.
 */
import type { FileHandle } from 'node:fs/promises';
import type { TarSource } from '../engine/engine.js';
import { attempt, overLimit, withAction } from './errors.js';
import { checkFreeSpace, type ArchiveLimits } from './limits.js';
import { openNamelessFile } from '../util/nameless-file.js';

const CHECK_EVERY = 64 * 1024 * 1024;

export class Spool {
  readonly #directory: string;
  readonly #limits: Pick<ArchiveLimits, 'maxSpoolBytes' | 'minFreeBytes'>;
  #file: FileHandle | undefined;
  #end = 0;
  #uncheckedBytes = Infinity;

  constructor(directory: string, limits: Pick<ArchiveLimits, 'maxSpoolBytes' | 'minFreeBytes'>) {
    this.#directory = directory;
    this.#limits = limits;
  }

  /** Bytes kept. */
  get size(): number {
    return this.#end;
  }

  /** Keeps what `chunks` gives; its place, for {@link source}. */
  async keep(chunks: AsyncIterable<Uint8Array>): Promise<{ offset: number; size: number }> {
    const offset = this.#end;
    for await (const chunk of chunks) await this.append(chunk);
    return { offset, size: this.#end - offset };
  }

  async append(chunk: Uint8Array): Promise<void> {
    if (this.#end + chunk.length > this.#limits.maxSpoolBytes) {
      throw overLimit(
        'what the stream needs kept on disk until its layers can be unpacked',
        'maxSpoolBytes',
        this.#limits.maxSpoolBytes,
      );
    }
    const file = (this.#file ??= await this.#open());
    this.#uncheckedBytes += chunk.length;
    if (this.#uncheckedBytes >= CHECK_EVERY) {
      const { minFreeBytes } = this.#limits;
      await checkFreeSpace(this.#directory, chunk.length + CHECK_EVERY, minFreeBytes, 'keeping the stream on disk');
      this.#uncheckedBytes = 0;
    }
    for (let done = 0; done < chunk.length;) {
      const position = this.#end;
      const { bytesWritten } = await attempt('keep a part of the stream on disk', () =>
        file.write(chunk, done, chunk.length - done, position),
      );
      done += bytesWritten;
      this.#end += bytesWritten;
    }
  }

  source(offset: number, size: number): TarSource {
    return { path: `/proc/self/fd/${this.#kept.fd}`, offset, length: size };
  }

  get #kept(): FileHandle {
    if (this.#file === undefined) throw new RangeError('nothing was kept, or the spool is closed');
    return this.#file;
  }

  /** The same bytes for a reader in this language. */
  async *read(offset: number, size: number): AsyncGenerator<Uint8Array> {
    if (size === 0) return;
    const chunks = this.#kept.createReadStream({
      start: offset,
      end: offset + size - 1,
      highWaterMark: 1024 * 1024,
      autoClose: false,
    });
    yield* withAction('read what was kept of the stream', chunks);
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  async #open(): Promise<FileHandle> {
    return attempt('keep a part of the stream on disk', () => openNamelessFile(this.#directory, 'spool'));
  }
}
