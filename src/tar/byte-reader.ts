/** ByteReader: exact amounts of bytes out of chunks of any size, without copying where a chunk holds them whole. */

const NOTHING = Buffer.alloc(0);

export class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #chunk: Buffer = NOTHING;
  #ended = false;
  #position = 0;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Bytes taken so far. */
  get position(): number {
    return this.#position;
  }

  /** Bytes that can be taken without waiting. */
  get buffered(): number {
    return this.#chunk.length;
  }

  /** What is at hand, at most `max` bytes; `undefined` at the end. */
  async some(max: number): Promise<Buffer | undefined> {
    if (this.#chunk.length === 0 && !(await this.#fill())) return undefined;
    return this.#take(max);
  }

  /** `length` bytes, fewer only at the end. */
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
        this.#chunk = next.value;
        return true;
      }
    }
    return false;
  }
}
