/**
 * A tar of blobs, written front to back into a file. What is known only later (the size of a blob, a digest in a name) is
 * left open and filled in afterwards in its place. Owner 0:0, times 0: the same image, the same bytes. Headers come from
 * tar-stream; contents do not pass through it, since the engine writes layers to a descriptor by itself
 * (docs/decisions/0012-tar-stream-for-archives.md).
 */
import type { FileHandle } from 'node:fs/promises';
import { attempt } from './errors.js';
import { BLOCK } from '../tar/header.js';

export interface EntryPlace {
  /** Of the header. */
  readonly offset: number;
}

/** One writer, one task: calls must not overlap. */
export class TarWriter {
  readonly #file: FileHandle;
  #position = 0;

  /** @param file new, open for writing and not for appending; stays the caller's */
  constructor(file: FileHandle) {
    this.#file = file;
  }

  async directory(name: string): Promise<void> {
    await this.#append(await directoryHeader(name));
  }

  async entry(name: string, content: Uint8Array): Promise<EntryPlace> {
    const place = { offset: this.#position };
    await this.#append(await fileHeader(name, content.length));
    await this.#append(content);
    await this.#pad(content.length);
    return place;
  }

  /** An entry of unknown size and name: `write` appends its content to the file at its current position. */
  async stream(write: (file: FileHandle) => Promise<number>): Promise<EntryPlace & { size: number }> {
    const place = { offset: this.#position };
    await this.#append(new Uint8Array(BLOCK));
    const size = await write(this.#file);
    this.#position += size;
    await this.#pad(size);
    return { ...place, size };
  }

  async fillHeader({ offset }: EntryPlace, name: string, size: number): Promise<void> {
    await this.#put(await fileHeader(name, size), offset);
  }

  /** @param content as long as what was written there */
  async fillContent({ offset }: EntryPlace, content: Uint8Array): Promise<void> {
    await this.#put(content, offset + BLOCK);
  }

  async end(): Promise<void> {
    await this.#append(END_OF_ARCHIVE);
  }

  async #pad(size: number): Promise<void> {
    await this.#append(padding(size));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await writeAll(this.#file, bytes, null);
    this.#position += bytes.length;
  }

  async #put(bytes: Uint8Array, offset: number): Promise<void> {
    await writeAll(this.#file, bytes, offset);
  }
}

/** @param position null: where the file's own offset stands, which moves on */
export async function writeAll(file: FileHandle, bytes: Uint8Array, position: number | null): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const at = position === null ? null : position + done;
    const { bytesWritten } = await attempt('write the image', () => file.write(bytes, done, bytes.length - done, at));
    done += bytesWritten;
  }
}

/** The two blocks that end an archive. */
export const END_OF_ARCHIVE: Uint8Array = new Uint8Array(2 * BLOCK);

export function directoryHeader(name: string): Promise<Uint8Array> {
  return header({ name: `${name}/`, type: 'directory', mode: 0o755 });
}

export function fileHeader(name: string, size: number): Promise<Uint8Array> {
  return header({ name, size, mode: 0o644 });
}

/** What brings an entry's content to a whole number of blocks. */
export function padding(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

/** One block, made by tar-stream: what a pack gives before the content of its entry. */
async function header(fields: { name: string; size?: number; type?: 'directory'; mode: number }): Promise<Uint8Array> {
  const { pack } = await import('tar-stream'); // loaded by the first save only
  const tar = pack();
  tar.entry({ ...fields, uid: 0, gid: 0, mtime: new Date(0) }).on('error', () => undefined); // it gets no content
  for await (const block of tar as AsyncIterable<Uint8Array>) return block; // leaving the loop destroys the pack
  throw new Error('tar-stream gave no header');
}
