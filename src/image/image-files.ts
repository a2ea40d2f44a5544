/** ImageFiles: the files of an image, wherever they lie. A tar file and a directory are here, a stream in archive-stream.ts. */
import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { TarSource } from '../engine/engine.js';
import { digestMismatch, systemError } from '../errors.js';
import type { ByteSource } from '../tar/byte-reader.js';
import { quote } from '../util/quote.js';
import { ArchiveEntries, ArchiveNames } from './archive-entries.js';
import { attempt, badImage, hasErrno, overLimit } from './errors.js';
import type { ArchiveLimits } from './limits.js';

export interface ImageFiles {
  /** What it is called in errors: the path, or `the stream`. */
  readonly title: string;
  /**
   * The first of `names` that is there, in their order; of a stream, the first that comes, so that nothing needs to be
   * kept that comes behind it.
   */
  firstOf(names: readonly string[]): Promise<string | undefined>;
  /** Whether a file is there; of a stream, whether it has come or comes next, so that nothing else has to be kept. */
  isNear(name: string): Promise<boolean>;
  /** A small file whole; undefined where it is missing. ERR_LIMIT_EXCEEDED over `maxBytes`. */
  read(name: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /**
   * A blob as a source for a layer. Where that is known before it is read: ERR_BAD_IMAGE for a missing one and
   * ERR_DIGEST_MISMATCH for a size other than `size`; else its stream fails with these.
   */
  blob(name: string, size: number | undefined): Promise<TarSource>;
  /** From now on only these names are asked for, each as often as it stands here: what else a stream carries is passed over, not kept. */
  expectOnly(names: readonly string[]): void;
  /** Reads the rest, so that a truncated archive or a name that comes twice is noticed although it was not asked for. */
  finish(): Promise<void>;
  close(): Promise<void>;
}

interface Place {
  readonly offset: number;
  readonly size: number;
}

/** Bytes of the file that a header is read with. */
const READ_AHEAD = 16 * 1024;

export const OPEN_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

/** A tar file on disk: one pass over its headers, then every blob is read where it lies. */
export class ArchiveFile implements ImageFiles {
  readonly title: string;
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #names: ArchiveNames<Place>;

  private constructor(path: string, file: FileHandle, names: ArchiveNames<Place>) {
    this.title = quote(path);
    this.#path = path;
    this.#file = file;
    this.#names = names;
  }

  /** Scans the headers; takes the handle over, also when it throws. */
  static async open(path: string, file: FileHandle, limits: ArchiveLimits, signal?: AbortSignal): Promise<ArchiveFile> {
    try {
      const names = new ArchiveNames<Place>(quote(path), limits.maxArchiveEntries);
      await scan(file, names, signal);
      return new ArchiveFile(path, file, names);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async firstOf(names: readonly string[]): Promise<string | undefined> {
    return names.find((name) => this.#names.get(name) !== undefined);
  }

  async isNear(name: string): Promise<boolean> {
    return this.#names.get(name) !== undefined;
  }

  async read(name: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const place = this.#names.get(name);
    if (place === undefined) return undefined;
    if (place.size > maxBytes)
      throw overLimit(`${quote(name)} of the archive with its ${place.size} bytes`, 'maxJsonBytes', maxBytes);
    return attempt('read the image archive', () => readAt(this.#file, place.offset, place.size));
  }

  async blob(name: string, size: number | undefined): Promise<TarSource> {
    const place = this.#names.get(name);
    if (place === undefined) throw badImage(`${quote(name)} is missing in the archive`);
    if (size !== undefined && size !== place.size) {
      throw digestMismatch(`the size of ${quote(name)} of the archive in bytes`, place.size, size);
    }
    return { path: this.#path, offset: place.offset, length: place.size };
  }

  expectOnly(): void {
    // Nothing is kept, so there is nothing to let go.
  }

  async finish(): Promise<void> {
    // The scan has seen every header.
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

async function scan(file: FileHandle, names: ArchiveNames<Place>, signal?: AbortSignal): Promise<void> {
  const { size } = await attempt('read the image archive', () => file.stat());
  const bytes = new FileBytes(file, size);
  const entries = new ArchiveEntries(bytes);
  for (let entry = await entries.next(); entry !== undefined; entry = await entries.next()) {
    signal?.throwIfAborted();
    const name = names.admit(entry);
    if (name !== undefined) names.addContent(name, { offset: bytes.position, size: entry.size });
    await entries.skip();
  }
  names.end();
}

/** A file read forward; what is skipped is not read. */
class FileBytes implements ByteSource {
  readonly #file: FileHandle;
  readonly #size: number;
  #position = 0;
  /** What was read ahead, from `position` on: headers of small files lie close together. */
  #ahead: Buffer = Buffer.alloc(0);

  constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.#size = size;
  }

  get position(): number {
    return this.#position;
  }

  async some(max: number): Promise<Buffer | undefined> {
    if (this.#ahead.length === 0) await this.#read(READ_AHEAD);
    return this.#ahead.length === 0 ? undefined : this.#take(max);
  }

  async exactly(length: number): Promise<Buffer> {
    if (this.#ahead.length < length) await this.#read(Math.max(length, READ_AHEAD));
    return this.#take(length);
  }

  async skip(length: number): Promise<number> {
    const skipped = Math.min(length, Math.max(this.#size - this.#position, 0));
    const known = this.#take(skipped).length;
    this.#position += skipped - known;
    return skipped;
  }

  async #read(length: number): Promise<void> {
    this.#ahead = await attempt('read the image archive', () => readAt(this.#file, this.#position, length));
  }

  #take(length: number): Buffer {
    const taken = this.#ahead.subarray(0, length);
    this.#ahead = this.#ahead.subarray(length);
    this.#position += taken.length;
    return taken;
  }
}

/** Exactly `length` bytes, fewer only at the end of the file. */
async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/** An OCI image layout in a directory. Its files are found by names made from digests; links out of it change nothing, since every digest is checked. */
export class LayoutDirectory implements ImageFiles {
  readonly title: string;
  readonly #path: string;

  constructor(path: string) {
    this.title = quote(path);
    this.#path = path;
  }

  async firstOf(names: readonly string[]): Promise<string | undefined> {
    for (const name of names) if ((await this.#size(name)) !== undefined) return name;
    return undefined;
  }

  async isNear(name: string): Promise<boolean> {
    return (await this.#size(name)) !== undefined;
  }

  async read(name: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const size = await this.#size(name);
    if (size === undefined) return undefined;
    if (size > maxBytes)
      throw overLimit(`${quote(name)} of ${this.title} with its ${size} bytes`, 'maxJsonBytes', maxBytes);
    return attempt('read the image layout', async () => {
      // Non-blocking, so that a FIFO put in its place meanwhile cannot hold us.
      const file = await open(join(this.#path, name), OPEN_FLAGS);
      try {
        const buffer = Buffer.alloc(size);
        const { bytesRead } = await file.read(buffer, 0, size, 0);
        return buffer.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    });
  }

  async blob(name: string, size: number | undefined): Promise<TarSource> {
    const found = await this.#size(name);
    if (found === undefined) throw badImage(`${quote(name)} is missing in ${this.title}`);
    if (size !== undefined && size !== found) {
      throw digestMismatch(`the size of ${quote(name)} of ${this.title} in bytes`, found, size);
    }
    return { path: join(this.#path, name) };
  }

  expectOnly(): void {
    // Nothing is kept, so there is nothing to let go.
  }

  async finish(): Promise<void> {
    // There is no end to reach.
  }

  async close(): Promise<void> {
    // Nothing stays open.
  }

  /** Bytes of a regular file; undefined where there is none. */
  async #size(name: string): Promise<number | undefined> {
    try {
      const stats = await stat(join(this.#path, name));
      if (!stats.isFile()) throw badImage(`${quote(name)} in ${this.title} is not a regular file`);
      return stats.size;
    } catch (error) {
      if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return undefined;
      throw systemError(error, 'read the image layout');
    }
  }
}
