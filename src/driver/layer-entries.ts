/**
 * The entries of a layer's tar without their content: out of its tar-split record, which holds every header and the
 * checksum of every file, or out of the tar itself where there is no record.
 */
import { isUtf8 } from 'node:buffer';
import type { Readable } from 'node:stream';
import { Crc64 } from '../engine/js/crc64.js';
import { readSplitEntries, type SplitEntry } from '../engine/js/tar-split.js';
import { LayerStoreError } from '../errors.js';
import type { ByteSource } from '../tar/byte-reader.js';
import { badTar } from '../tar/errors.js';
import { treePath } from '../tar/path.js';
import { TarReader, type TarEntry } from '../tar/reader.js';

/** One entry of a layer's tar, without its content. */
export interface LayerEntry {
  /** Without a leading slash; `''` is the root. Whiteouts have their names of the tar: `.wh.x`. */
  path: string;
  /** The path's bytes, where they are no UTF-8; `path` then holds replacement characters. */
  rawPath?: Uint8Array;
  /** `link` is a hard link. */
  type: 'file' | 'link' | 'symlink' | 'directory' | 'character-device' | 'block-device' | 'fifo';
  /** Bytes of content once unpacked; 0 for what is no file. */
  size: number;
  /** Permission bits, set-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  modified: Date;
  /** Target of a symbolic or hard link, as the tar has it; `''` for others. */
  linkTarget: string;
  /** CRC-64/ISO of the content as it lies in the tar, 16 hex digits; undefined without content. */
  crc64: string | undefined;
}

/** Out of a tar-split record: no file of the layer is read. A record that is no tar's is ERR_LAYER_CORRUPT. */
export async function* recordedEntries(
  record: { path: string } | Readable,
  signal: AbortSignal | undefined,
): AsyncGenerator<LayerEntry> {
  try {
    yield* readEntries(readSplitEntries(record), signal);
  } catch (error) {
    if (!LayerStoreError.is(error, 'ERR_BAD_TAR')) throw error;
    throw new LayerStoreError(
      'ERR_LAYER_CORRUPT',
      `the tar-split record is damaged: ${error.message}; repair the layer from its tar`,
      { cause: error },
    );
  }
}

/** Out of the tar itself; what is wrong with its end is heard, too. */
export function tarEntries(tar: Readable, signal: AbortSignal | undefined): AsyncGenerator<LayerEntry> {
  return readEntries(asSegments(tar), signal);
}

async function* asSegments(tar: Readable): AsyncGenerator<SplitEntry> {
  for await (const chunk of tar) {
    const bytes = chunk as Uint8Array;
    yield { type: 2, payload: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
  }
}

async function* readEntries(
  parts: AsyncGenerator<SplitEntry>,
  signal: AbortSignal | undefined,
): AsyncGenerator<LayerEntry> {
  const source = new SplitSource(parts);
  // The registration has held these to its limits already.
  const reader = new TarReader(source, {
    maxHeaderBytes: Infinity,
    maxXattrs: Infinity,
    maxXattrBytes: Infinity,
    keepRaw: false,
  });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const entry = await reader.next();
      if (entry === undefined) break;
      source.startContent();
      await reader.skipContent();
      if (entry.type !== 'g') yield layerEntry(entry, source.checksum());
    }
    while ((await source.skip(1 << 20)) > 0) signal?.throwIfAborted();
  } finally {
    await parts.return(undefined);
  }
}

/**
 * The bytes of a tar in which files are only sizes and checksums. Headers are read from the segments between them; content
 * can only be skipped, and what was skipped has a checksum.
 */
class SplitSource implements ByteSource {
  readonly #parts: AsyncGenerator<SplitEntry>;
  #segment: Buffer = Buffer.alloc(0);
  /** What is left of a file that has no bytes here, and its checksum. */
  #hole = { left: 0, size: 0, crc: undefined as Buffer | undefined };
  #position = 0;
  /** Checksum of the content skipped since {@link startContent}: that of one whole file, or summed up from segments. */
  #whole: Buffer | undefined;
  #sum: Crc64 | undefined;

  constructor(parts: AsyncGenerator<SplitEntry>) {
    this.#parts = parts;
  }

  get position(): number {
    return this.#position;
  }

  startContent(): void {
    this.#whole = undefined;
    this.#sum = undefined;
  }

  checksum(): string | undefined {
    return (this.#whole ?? this.#sum?.digest())?.toString('hex');
  }

  async some(max: number): Promise<Buffer | undefined> {
    if (!(await this.#fill())) return undefined;
    if (this.#segment.length === 0) throw badTar('a file is where a header has to be', this.#position);
    return this.#take(max);
  }

  async exactly(length: number): Promise<Buffer> {
    if (this.#segment.length >= length) return this.#take(length);
    const parts: Buffer[] = [];
    let missing = length;
    while (missing > 0) {
      const part = await this.some(missing);
      if (part === undefined) break;
      parts.push(part);
      missing -= part.length;
    }
    return Buffer.concat(parts);
  }

  async skip(length: number): Promise<number> {
    let left = length;
    while (left > 0 && (await this.#fill())) {
      if (this.#segment.length > 0) {
        const part = this.#take(left);
        (this.#sum ??= new Crc64()).update(part);
        left -= part.length;
        continue;
      }
      const hole = this.#hole;
      if (hole.left === length && hole.size === length) this.#whole = hole.crc;
      const passed = Math.min(hole.left, left);
      hole.left -= passed;
      left -= passed;
      this.#position += passed;
    }
    return length - left;
  }

  #take(max: number): Buffer {
    const taken = this.#segment.subarray(0, max);
    this.#segment = this.#segment.subarray(taken.length);
    this.#position += taken.length;
    return taken;
  }

  /** Whether there are bytes or a hole to go on with. */
  async #fill(): Promise<boolean> {
    while (this.#segment.length === 0 && this.#hole.left === 0) {
      const next = await this.#parts.next();
      if (next.done === true) return false;
      if (next.value.type === 2) this.#segment = next.value.payload;
      else this.#hole = { left: next.value.size, size: next.value.size, crc: next.value.crc };
    }
    return true;
  }
}

const TYPES: Readonly<Record<string, LayerEntry['type']>> = {
  '1': 'link',
  '2': 'symlink',
  '3': 'character-device',
  '4': 'block-device',
  '5': 'directory',
  '6': 'fifo',
};

function layerEntry(entry: TarEntry, checksum: string | undefined): LayerEntry {
  const bytes = treePath(entry.name, entry.offset);
  const type = TYPES[entry.type] ?? (entry.name.endsWith('/') ? 'directory' : 'file');
  const { seconds, nanoseconds } = entry.mtime;
  // No spread into this object, which would take longer than all the rest: there is one for each file of an image.
  const made: LayerEntry = {
    path: utf8(bytes),
    type,
    size: type === 'file' ? entry.size : 0,
    mode: entry.mode & 0o7777,
    uid: entry.uid,
    gid: entry.gid,
    modified: new Date(seconds * 1000 + Math.floor(nanoseconds / 1e6)),
    linkTarget: type === 'link' || type === 'symlink' ? utf8(entry.linkName) : '',
    crc64: type === 'file' && entry.size > 0 ? checksum : undefined,
  };
  if (NOT_ASCII.test(bytes)) {
    const rawPath = Buffer.from(bytes, 'latin1');
    if (!isUtf8(rawPath)) made.rawPath = rawPath;
  }
  return made;
}

const NOT_ASCII = /[^\x00-\x7f]/;

function utf8(latin1: string): string {
  return NOT_ASCII.test(latin1) ? Buffer.from(latin1, 'latin1').toString() : latin1;
}
