/** A tar file on disk: one pass over its headers, then every blob is read where it lies. */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import type { TarSource } from '../engine/engine.js';
import { ArchiveNames } from './archive-names.js';
import { attempt, badImage, digestMismatch, overLimit, quote } from './errors.js';
import type { ImageFiles } from './image-files.js';
import type { ArchiveLimits } from './limits.js';
import { BLOCK, readEntry } from './tar-header.js';

interface Place {
  readonly offset: number;
  readonly size: number;
}

export const OPEN_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

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
      throw digestMismatch(`${quote(name)} of the archive has ${place.size} bytes; its descriptor says ${size}`);
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
  const { size: end } = await attempt('read the image archive', () => file.stat());
  let position = 0;
  const source = {
    read: async (length: number): Promise<Uint8Array> => {
      const bytes = await attempt('read the image archive', () => readAt(file, position, length));
      position += bytes.length;
      return bytes;
    },
  };
  for (;;) {
    signal?.throwIfAborted();
    const entry = await readEntry(source);
    if (entry === undefined) break;
    const name = names.admit(entry);
    if (name !== undefined) names.addContent(name, { offset: position, size: entry.size });
    if (position + entry.size > end)
      throw badImage(`the archive ends in the middle of ${quote(entry.name)}: it is truncated`);
    position += Math.ceil(entry.size / BLOCK) * BLOCK;
  }
  names.end();
}

/** Exactly `length` bytes, fewer only at the end of the file. */
async function readAt(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}
