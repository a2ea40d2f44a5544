/** Where the bytes of a tar come from: read forward, in amounts that the reader chooses. One reader at a time. */

export interface ByteSource {
  /** Bytes taken so far. */
  readonly position: number;
  /** What is at hand, at least one byte and at most `max`; `undefined` at the end. */
  some(max: number): Promise<Buffer | undefined>;
  /** `length` bytes, fewer only at the end. */
  exactly(length: number): Promise<Buffer>;
  /** Passes `length` bytes, fewer only at the end; resolves to how many. */
  skip(length: number): Promise<number>;
}

const NOTHING = Buffer.alloc(0);

/** Bytes out of chunks of any size, without copying where a chunk holds them whole. */
export class ByteReader implements ByteSource {
  readonly #chunks: AsyncIterator<Uint8Array | string>;
  #chunk: Buffer = NOTHING;
  #ended = false;
  #position = 0;

  /** @param chunks Buffers, or what else a Readable gives */
  constructor(chunks: AsyncIterable<Uint8Array | string>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  get position(): number {
    return this.#position;
  }

  async some(max: number): Promise<Buffer | undefined> {
    if (this.#chunk.length === 0 && !(await this.#fill())) return undefined;
    return this.#take(max);
  }

  async exactly(length: number): Promise<Buffer> {
    if (this.#chunk.length >= length) return this.#take(length);
    const parts: Buffer[] = [];
    let missing = length;
    while (missing > 0) {
      const part = await this.some(missing);
      if (part === undefined) break;
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  async skip(length: number): Promise<number> {
    let left = length;
    while (left > 0) {
      const part = await this.some(left);
      if (part === undefined) break;
      left -= part.length;
    }
    return length - left;
  }

  /** The first bytes without taking them; fewer only where there are no more. */
  async peek(length: number): Promise<Buffer> {
    const bytes = await this.exactly(length);
    this.#chunk = Buffer.concat([bytes, this.#chunk]);
    this.#position -= bytes.length;
    return bytes;
  }

  /** All that is left, as chunks. */
  async *rest(): AsyncGenerator<Buffer> {
    for (let part = await this.some(Infinity); part !== undefined; part = await this.some(Infinity)) yield part;
  }

  /** Asks the chunks to end; for the case that not all are wanted. */
  async close(): Promise<void> {
    this.#ended = true;
    await this.#chunks.return?.();
  }

  #take(max: number): Buffer {
    const taken = this.#chunk.length <= max ? this.#chunk : this.#chunk.subarray(0, max);
    this.#chunk = taken.length === this.#chunk.length ? NOTHING : this.#chunk.subarray(taken.length);
    this.#position += taken.length;
    return taken;
  }

  async #fill(): Promise<boolean> {
    while (!this.#ended) {
      const next = await this.#chunks.next();
      if (next.done === true) this.#ended = true;
      else if (next.value.length > 0) {
        this.#chunk = bufferOf(next.value);
        return true;
      }
    }
    return false;
  }
}

function bufferOf(chunk: Uint8Array | string): Buffer {
  if (Buffer.isBuffer(chunk)) return chunk;
  return typeof chunk === 'string' ? Buffer.from(chunk) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}
