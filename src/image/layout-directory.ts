/** An OCI image layout in a directory. Its files are found by names made from digests; links out of it change nothing, since every digest is checked. */
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { TarSource } from '../engine/engine.js';
import { systemError } from '../errors.js';
import { attempt, badImage, digestMismatch, hasErrno, overLimit, quote } from './errors.js';
import type { ImageFiles } from './image-files.js';
import { OPEN_FLAGS } from './archive-file.js';

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
      throw digestMismatch(`${quote(name)} of ${this.title} has ${found} bytes; its descriptor says ${size}`);
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
      if (!stats.isFile()) throw badImage(`${quote(name)} in ${this.title} is no regular file`);
      return stats.size;
    } catch (error) {
      if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return undefined;
      throw systemError(error, 'read the image layout');
    }
  }
}
