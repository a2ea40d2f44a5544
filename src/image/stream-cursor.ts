/** Reads a stream forward in pieces of the reader's choosing. One reader at a time. */
import type { BlockSource } from './tar-header.js';

export class StreamCursor implements BlockSource {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #ended = false;

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#iterator = stream[Symbol.asyncIterator]();
  }

  /** The first bytes without taking them. */
  async peek(length: number): Promise<Uint8Array> {
    const bytes = await this.read(length);
    this.#chunk = Buffer.concat([bytes, this.#chunk]);
    return bytes;
  }

  async read(length: number): Promise<Uint8Array> {
    if (this.#chunk.length >= length) return this.#take(length);
    const parts: Uint8Array[] = [];
    let missing = length;
    while (missing > 0) {
      const part = await this.readSome(missing);
      if (part === undefined) break;
      parts.push(part);
      missing -= part.length;
    }
    return Buffer.concat(parts);
  }

  /** At least one byte and at most `limit`; undefined at the end. */
  async readSome(limit: number): Promise<Uint8Array | undefined> {
    while (this.#chunk.length === 0) {
      if (this.#ended) return undefined;
      const next: IteratorResult<Uint8Array | string, unknown> = await this.#iterator.next();
      if (next.done === true) this.#ended = true;
      else this.#chunk = typeof next.value === 'string' ? Buffer.from(next.value) : next.value;
    }
    return this.#take(Math.min(limit, this.#chunk.length));
  }

  /** What is left, as a stream of its own; the cursor is used no more. */
  async *rest(): AsyncGenerator<Uint8Array> {
    for (let part = await this.readSome(Infinity); part !== undefined; part = await this.readSome(Infinity)) yield part;
  }

  #take(length: number): Uint8Array {
    const part = this.#chunk.subarray(0, length);
    this.#chunk = this.#chunk.subarray(length);
    return part;
  }
}
