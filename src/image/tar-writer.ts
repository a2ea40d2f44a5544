/**
 * A tar of blobs, written front to back into a file. What is known only later (the size of a blob, a digest in a name) is
 * left open and filled in afterwards in its place. ustar throughout; owner 0:0, times 0: the same image, the same bytes.
 */
import type { FileHandle } from 'node:fs/promises';
import { attempt } from './errors.js';
import { BLOCK } from '../tar/header.js';

/** Octal digits of ustar's size field end at 8 GiB; beyond that its GNU form is used, which every reader knows. */
const OCTAL_LIMIT = 8 ** 11;

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
    await this.#append(directoryHeader(name));
  }

  async entry(name: string, content: Uint8Array): Promise<EntryPlace> {
    const place = { offset: this.#position };
    await this.#append(fileHeader(name, content.length));
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
    await this.#put(fileHeader(name, size), offset);
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

export function directoryHeader(name: string): Uint8Array {
  return header(`${name}/`, 0, '5');
}

export function fileHeader(name: string, size: number): Uint8Array {
  return header(name, size, '0');
}

/** What brings an entry's content to a whole number of blocks. */
export function padding(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

function header(name: string, size: number, type: '0' | '5'): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0, 100, 'latin1');
  block.write(type === '5' ? '0000755\0' : '0000644\0', 100, 'latin1');
  block.write('0000000\0', 108, 'latin1');
  block.write('0000000\0', 116, 'latin1');
  if (size < OCTAL_LIMIT) {
    block.write(`${size.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  } else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  block.write('00000000000\0', 136, 'latin1');
  block.write('        ', 148, 'latin1');
  block.write(type, 156, 'latin1');
  block.write('ustar\u000000', 257, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
