/**
 * A tar stream, read forward on demand. What comes before it is asked for is kept: small files in memory, others in a
 * spool. A blob that is asked for before it came goes straight to whoever asked: an archive that names its layers first
 * (as ours do) is loaded in one pass and needs no room.
 *
 * Only one part at a time moves the cursor (`#turn`). A layer waits for its blob while others are unpacked; since what is
 * passed over on the way is kept, no order of asking can lock up.
 */
import type { TarSource } from '../engine/engine.js';
import type { ByteReader } from '../tar/byte-reader.js';
import { quote } from '../util/quote.js';
import { ArchiveEntries, type ArchiveEntry } from './archive-entries.js';
import { ArchiveNames } from './archive-entries.js';
import { badImage, overLimit } from './errors.js';
import type { ImageFiles } from './image-files.js';
import type { ArchiveLimits } from './limits.js';
import type { Spool } from './spool.js';

const MEMORY_FILE = 256 * 1024;
const MEMORY_TOTAL = 16 * 1024 * 1024;
/** What may follow the end of the archive: padding of tapes. */
const MAX_TRAILER = 16 * 1024 * 1024;

type Content =
  { readonly bytes: Uint8Array } | { readonly offset: number; readonly size: number } | 'passed on' | 'passed over';

interface Pending {
  readonly name: string;
  readonly entry: ArchiveEntry;
}

export class ArchiveStream implements ImageFiles {
  readonly title: string;
  readonly #bytes: ByteReader;
  readonly #entries: ArchiveEntries;
  readonly #spool: Spool;
  readonly #names: ArchiveNames<Content>;
  /** How often each blob will still be asked for; undefined: unknown, so all is kept. */
  #expected: ReadonlyMap<string, number> | undefined;
  #inMemory = 0;
  #ended = false;
  /** Where the cursor stands is known no more. */
  #failure: unknown;
  #turn: Promise<void> = Promise.resolve();

  /**
   * Takes the spool over.
   *
   * @param title what it is called in errors: the path, or `the stream`
   */
  constructor(title: string, bytes: ByteReader, spool: Spool, limits: ArchiveLimits) {
    this.title = title;
    this.#bytes = bytes;
    this.#entries = new ArchiveEntries(bytes);
    this.#spool = spool;
    this.#names = new ArchiveNames(title, limits.maxArchiveEntries);
  }

  async firstOf(names: readonly string[]): Promise<string | undefined> {
    const find = (): string | undefined => names.find((name) => this.#names.get(name) !== undefined);
    return this.#inTurn(async () => {
      while (find() === undefined && (await this.#step())) continue;
      return find();
    });
  }

  async isNear(name: string): Promise<boolean> {
    return this.#inTurn(async () => {
      if (this.#names.get(name) === undefined) await this.#step();
      return this.#names.get(name) !== undefined;
    });
  }

  async read(name: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const content = await this.#inTurn(async () => {
      while (this.#names.get(name) === undefined && (await this.#step())) continue;
      return this.#names.get(name);
    });
    if (content === undefined) return undefined;
    if (typeof content === 'string')
      throw badImage(`${quote(name)} of the stream is asked for as a layer and as something else`);
    if ('bytes' in content) {
      if (content.bytes.length > maxBytes)
        throw overLimit(`${quote(name)} with its ${content.bytes.length} bytes`, 'maxJsonBytes', maxBytes);
      return content.bytes;
    }
    if (content.size > maxBytes)
      throw overLimit(`${quote(name)} with its ${content.size} bytes`, 'maxJsonBytes', maxBytes);
    const parts: Uint8Array[] = [];
    for await (const part of this.#spool.read(content.offset, content.size)) parts.push(part);
    return Buffer.concat(parts);
  }

  async blob(name: string): Promise<TarSource> {
    // What lies in the spool already is read from there without going through here.
    const content = this.#names.get(name);
    if (content !== undefined && typeof content !== 'string' && 'offset' in content)
      return this.#spool.source(content.offset, content.size);
    return this.#pull(name);
  }

  expectOnly(names: readonly string[]): void {
    const expected = new Map<string, number>();
    for (const name of names) expected.set(name, (expected.get(name) ?? 0) + 1);
    this.#expected = expected;
  }

  async finish(): Promise<void> {
    await this.#inTurn(async () => {
      this.#expected = new Map();
      while (await this.#step()) continue;
      for (let left = MAX_TRAILER; left > 0;) {
        const part = await this.#bytes.some(left);
        if (part === undefined) return;
        left -= part.length;
      }
    });
  }

  async close(): Promise<void> {
    await this.#spool.close();
  }

  /** The blob's bytes, once it comes. */
  async *#pull(name: string): AsyncGenerator<Uint8Array> {
    const release = await this.#takeTurn();
    try {
      let pending: Pending | undefined;
      while (this.#names.get(name) === undefined && pending?.name !== name) {
        if (pending !== undefined) await this.#keep(pending);
        pending = await this.#next();
        if (pending === undefined) break;
      }
      if (pending?.name === name) {
        if (this.#uses(name) === 1) {
          this.#names.addContent(name, 'passed on');
          let given = false;
          try {
            yield* this.#content();
            given = true;
          } finally {
            // Skipping the rest could take for ever; a reader that stops in the middle has failed anyway.
            if (!given) this.#failure ??= badImage(`reading the stream was given up in the middle of ${quote(name)}`);
          }
          return;
        }
        await this.#keep(pending);
      }
    } finally {
      release();
    }
    const content = this.#names.get(name);
    if (content === undefined) throw badImage(`${quote(name)} is missing in the archive`);
    if (typeof content === 'string') {
      throw badImage(
        `${quote(name)} is needed twice but the stream has passed; write the archive to a file and load that`,
      );
    }
    if ('bytes' in content) yield content.bytes;
    else yield* this.#spool.read(content.offset, content.size);
  }

  /** How often a name will be asked for; Infinity where that is unknown. Only blobs are counted: other names may be reached through links. */
  #uses(name: string): number {
    if (this.#expected === undefined || !name.startsWith('blobs/')) return Infinity;
    return this.#expected.get(name) ?? 0;
  }

  /** Passes one entry; false at the end. */
  async #step(): Promise<boolean> {
    const pending = await this.#next();
    if (pending !== undefined) await this.#keep(pending);
    return !this.#ended;
  }

  /** The next regular file; what else comes is only noted. */
  async #next(): Promise<Pending | undefined> {
    while (!this.#ended) {
      if (this.#failure !== undefined) throw this.#failure;
      try {
        const entry = await this.#entries.next();
        if (entry === undefined) {
          this.#ended = true;
          this.#names.end();
          break;
        }
        const name = this.#names.admit(entry);
        if (name !== undefined) return { name, entry };
        await this.#entries.skip();
      } catch (error) {
        this.#failure = error;
        throw error;
      }
    }
    return undefined;
  }

  async #keep({ name, entry }: Pending): Promise<void> {
    if (this.#uses(name) === 0) {
      await this.#entries.skip();
      this.#names.addContent(name, 'passed over');
    } else if (entry.size <= MEMORY_FILE && this.#inMemory + entry.size <= MEMORY_TOTAL) {
      const parts: Uint8Array[] = [];
      for await (const part of this.#content()) parts.push(part);
      this.#inMemory += entry.size;
      this.#names.addContent(name, { bytes: Buffer.concat(parts) });
    } else {
      this.#names.addContent(name, await this.#spool.keep(this.#content()));
    }
  }

  /** The bytes of the entry that was read last. */
  async *#content(): AsyncGenerator<Uint8Array> {
    for (let part = await this.#entries.content(); part !== undefined; part = await this.#entries.content()) yield part;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const release = await this.#takeTurn();
    try {
      return await work();
    } finally {
      release();
    }
  }

  async #takeTurn(): Promise<() => void> {
    const before = this.#turn;
    let release!: () => void;
    this.#turn = new Promise((resolve) => (release = resolve));
    await before;
    return release;
  }
}
