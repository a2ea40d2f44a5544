/**
 * GrowingFile: a tar source over a file that somebody else still writes, front to back. The native engine reads the file by
 * itself and hears only how far it may; every other reader iterates over the chunks.
 */
import { open } from 'node:fs/promises';
import { LayerStoreError } from '../errors.js';

/** What is known of the file once somebody wants to read it. */
export interface GrowingBytes {
  readonly path: string;
  /** Bytes that it will have. */
  readonly size: number;
  /**
   * Resolves when more than `position` bytes, or all of them, can be read: with their number. They never change then.
   * Rejects where the file will not be finished, also when all bytes are there but were not found good.
   */
  readable(position: number): Promise<number>;
}

const READ_BYTES = 512 * 1024;

/** Can be read several times, and by several at once; each begins at the first byte. Holds no descriptor by itself. */
export class GrowingFile implements AsyncIterable<Uint8Array> {
  readonly #open: () => Promise<GrowingBytes>;

  /** @param open asked when the first byte is wanted */
  constructor(open: () => Promise<GrowingBytes>) {
    this.#open = open;
  }

  open(): Promise<GrowingBytes> {
    return this.#open();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    const bytes = await this.#open();
    let readable = await bytes.readable(0);
    if (readable === 0) return;
    const file = await open(bytes.path, 'r');
    try {
      for (let position = 0; ;) {
        const chunk = Buffer.allocUnsafeSlow(Math.min(readable - position, READ_BYTES));
        const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
        if (bytesRead === 0) throw new LayerStoreError('ERR_BAD_TAR', `"${bytes.path}" ends before its last byte`);
        position += bytesRead;
        yield chunk.subarray(0, bytesRead);
        if (position === readable) {
          readable = await bytes.readable(position);
          if (position === readable) return;
        }
      }
    } finally {
      await file.close();
    }
  }
}
