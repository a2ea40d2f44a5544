/**
 * TarReader: entries of a tar, with every byte that is no file content kept apart for the tar-split record: headers,
 * extension headers, padding, end blocks. `tar-stream` gives no raw bytes and no byte names, so reading is done here.
 * What a sequence of headers means is what Go's archive/tar makes of it, since that is what Docker registers with.
 */
import type { ByteSource } from './byte-reader.js';
import { badTar, overLimit } from './errors.js';
import { BLOCK, isHeaderOnly, isZeroBlock, noHeader, numeric, parseHeader, type TarHeader } from './header.js';
import { applyPax, integer, parsePax, xattrsOf, type PaxRecords } from './pax.js';
import {
  applySparse,
  checkRegions,
  oldGnuRegions,
  pairs,
  paxSparseRegions,
  paxSparseVersion,
  type SparseRegion,
} from './sparse.js';

/** One entry, extension headers applied. `size` is that of the file once unpacked. */
export interface TarEntry extends TarHeader {
  /** Where its header begins. */
  offset: number;
  /** Bytes behind the header; for a sparse file those of its regions. */
  stored: number;
  xattrs: readonly (readonly [name: string, value: Buffer])[];
  /** Regions with data, where the file is sparse. */
  regions?: readonly SparseRegion[];
}

export interface ReaderOptions {
  /** Bytes of one entry's extension headers, or of its sparse map: ERR_LIMIT_EXCEEDED beyond. */
  maxHeaderBytes: number;
  maxXattrs: number;
  maxXattrBytes: number;
  /** Whether {@link TarReader.takeRaw} is called for each entry: the bytes wait for it in memory. */
  keepRaw: boolean;
}

/** The header itself and the padding before it are not counted among an entry's extension headers. */
const FREE_HEADER_BYTES = 4 * BLOCK;

const PADDING = (size: number): number => (BLOCK - (size % BLOCK)) % BLOCK;

export class TarReader {
  readonly #reader: ByteSource;
  readonly #options: ReaderOptions;
  #raw: Buffer[] = [];
  /** Bytes of the current entry that are no content, so far. */
  #headerBytes = 0;
  /** Content of the current entry that was not read yet, and the padding behind it. */
  #left = 0;
  #padding = 0;

  constructor(reader: ByteSource, options: ReaderOptions) {
    this.#reader = reader;
    this.#options = options;
  }

  /** Bytes that are no content, since the last call. */
  takeRaw(): Buffer {
    const raw = this.#raw.length === 1 && this.#raw[0] !== undefined ? this.#raw[0] : Buffer.concat(this.#raw);
    this.#raw = [];
    return raw;
  }

  /** The next entry; `undefined` at the end of the archive. The content of the last one must have been read. */
  async next(): Promise<TarEntry | undefined> {
    const extension: Extension = { records: undefined, longName: '', longLink: '' };
    this.#headerBytes = 0;
    for (;;) {
      const padding = await this.#reader.exactly(this.#padding);
      this.#keep(padding);
      if (padding.length < this.#padding) return undefined; // Go takes a tar that ends inside padding for complete
      this.#padding = 0;
      const offset = this.#reader.position;
      const block = await this.#headerBlock();
      if (block === undefined) return undefined;
      const header = parseHeader(block, offset);
      checkSize(header, offset);
      switch (header.type) {
        case 'x':
          extension.records = parsePax(await this.#special(header), offset);
          break;
        case 'g': {
          // Kept, but like Docker's reader not applied to what follows.
          parsePax(await this.#special(header), offset);
          this.#padding = PADDING(header.size);
          return { ...header, size: 0, offset, stored: 0, xattrs: [] };
        }
        case 'L':
          extension.longName = untilNul(await this.#special(header));
          break;
        case 'K':
          extension.longLink = untilNul(await this.#special(header));
          break;
        default:
          return this.#entry(header, block, offset, extension);
      }
      this.#padding = PADDING(header.size);
    }
  }

  /** Content of the current entry as it comes, `undefined` at its end. A tar that ends inside it is ERR_BAD_TAR. */
  async content(max = Infinity): Promise<Buffer | undefined> {
    if (this.#left === 0) return undefined;
    const some = await this.#reader.some(Math.min(this.#left, max));
    if (some === undefined) throw badTar('it ends inside a file', this.#reader.position);
    this.#left -= some.length;
    return some;
  }

  /** Passes what is left of the content of the current entry. */
  async skipContent(): Promise<void> {
    const wanted = this.#left;
    this.#left = 0;
    if ((await this.#reader.skip(wanted)) < wanted) throw badTar('it ends inside a file', this.#reader.position);
  }

  /** All content of the current entry, for small ones. */
  async allContent(): Promise<Buffer> {
    const wanted = this.#left;
    const all = await this.#reader.exactly(wanted);
    if (all.length < wanted) throw badTar('it ends inside a file', this.#reader.position);
    this.#left = 0;
    return all;
  }

  /** What follows the end of the archive, as it comes; `undefined` at the end of the source. */
  async trailing(max: number): Promise<Buffer | undefined> {
    return this.#reader.some(max);
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#headerBytes += bytes.length;
    this.#limitHeader(this.#headerBytes - FREE_HEADER_BYTES);
    if (this.#options.keepRaw) this.#raw.push(bytes);
  }

  #limitHeader(bytes: number): void {
    const { maxHeaderBytes } = this.#options;
    if (bytes <= maxHeaderBytes) return;
    const what = `an entry has ${String(bytes)} bytes of extension headers or more`;
    throw overLimit('maxHeaderBytes', maxHeaderBytes, what, this.#reader.position);
  }

  async #headerBlock(): Promise<Buffer | undefined> {
    const offset = this.#reader.position;
    const block = await this.#reader.exactly(BLOCK);
    this.#keep(block);
    if (block.length === 0) return undefined;
    if (block.length < BLOCK) throw noHeader(block, offset, 'it ends inside a header');
    if (!isZeroBlock(block)) return block;
    const second = await this.#reader.exactly(BLOCK);
    this.#keep(second);
    if (second.length === 0) return undefined; // one block of zeros ends a tar too
    if (second.length < BLOCK) throw badTar('it ends inside a header', offset + BLOCK);
    if (!isZeroBlock(second)) throw badTar('a block of zeros is followed by something else', offset + BLOCK);
    return undefined;
  }

  /** Data of an extension header. */
  async #special(header: TarHeader): Promise<Buffer> {
    this.#limitHeader(header.size);
    const data = await this.#reader.exactly(header.size);
    if (data.length < header.size) throw badTar('it ends inside an extension header', this.#reader.position);
    this.#keep(data);
    return data;
  }

  async #entry(header: TarHeader, block: Buffer, offset: number, extension: Extension): Promise<TarEntry> {
    const { records } = extension;
    if (records !== undefined) applyPax(header, records, offset);
    // As Go: one that is empty leaves what the header says.
    if (extension.longName !== '') header.name = extension.longName;
    if (extension.longLink !== '') header.linkName = extension.longLink;
    checkSize(header, offset);
    if (header.type === '\0') header.type = header.name.endsWith('/') ? '5' : '0';
    const stored = isHeaderOnly(header.type) ? 0 : header.size;
    this.#left = stored;
    this.#padding = PADDING(stored);
    const xattrs = records === undefined ? [] : xattrsOf(records);
    this.#limitXattrs(xattrs, offset);
    // The header itself becomes the entry: a copy of it would take longer than reading it.
    const entry: TarEntry = Object.assign(header, { offset, stored, xattrs });
    const regions = await this.#sparse(entry, block, records);
    if (regions !== undefined) {
      if (isHeaderOnly(entry.type)) throw badTar('an entry without data has a sparse map', offset);
      checkRegions(regions, entry.size, this.#left, offset);
      entry.regions = regions;
      entry.stored = this.#left;
    }
    return entry;
  }

  #limitXattrs(xattrs: TarEntry['xattrs'], offset: number): void {
    const { maxXattrs, maxXattrBytes } = this.#options;
    if (xattrs.length > maxXattrs)
      throw overLimit('maxXattrs', maxXattrs, `an entry has ${String(xattrs.length)} extended attributes`, offset);
    let bytes = 0;
    for (const [name, value] of xattrs) bytes += name.length + value.length;
    if (bytes > maxXattrBytes)
      throw overLimit('maxXattrBytes', maxXattrBytes, `an entry has ${String(bytes)} bytes of attributes`, offset);
  }

  async #sparse(entry: TarEntry, block: Buffer, records: PaxRecords | undefined): Promise<SparseRegion[] | undefined> {
    if (entry.type === 'S') return this.#oldGnuSparse(entry, block);
    const version = records === undefined ? undefined : paxSparseVersion(records);
    if (records === undefined || version === undefined) return undefined;
    applySparse(entry, records, entry.offset);
    return version === '0' ? paxSparseRegions(records, entry.offset) : this.#mapInData(entry);
  }

  async #oldGnuSparse(entry: TarEntry, block: Buffer): Promise<SparseRegion[]> {
    if (entry.format !== 'gnu') throw badTar('a sparse file has no GNU header', entry.offset);
    entry.size = numeric(block, 483, 12, 'real size', entry.offset);
    const regions = oldGnuRegions(block, 386, 4, entry.offset);
    for (let more = block[482] !== 0; more;) {
      const next = await this.#reader.exactly(BLOCK);
      if (next.length < BLOCK) throw badTar('it ends inside a sparse map', this.#reader.position);
      this.#keep(next);
      regions.push(...oldGnuRegions(next, 0, 21, entry.offset));
      more = next[504] !== 0;
    }
    return regions;
  }

  /** Format 1.0: the map is decimal lines at the start of the data, padded to whole blocks. */
  async #mapInData(entry: TarEntry): Promise<SparseRegion[]> {
    let text = '';
    let lines = 0;
    let wanted: number | undefined;
    while (wanted === undefined || lines < wanted) {
      if (this.#left < BLOCK) throw badTar('a sparse map is malformed', entry.offset);
      const block = await this.#reader.exactly(BLOCK);
      if (block.length < BLOCK) throw badTar('it ends inside a sparse map', this.#reader.position);
      this.#left -= BLOCK;
      this.#keep(block);
      const more = block.toString('latin1');
      text += more;
      for (const character of more) if (character === '\n') lines++;
      if (wanted === undefined && lines > 0) {
        const count = mapNumber(text.slice(0, text.indexOf('\n')), entry.offset);
        wanted = count * 2 + 1;
      }
    }
    return pairs(
      text
        .split('\n')
        .slice(1, wanted)
        .map((line) => mapNumber(line, entry.offset)),
    );
  }
}

interface Extension {
  records: PaxRecords | undefined;
  longName: string;
  longLink: string;
}

/** A header without data may carry any size: nobody reads it. */
function checkSize(header: TarHeader, offset: number): void {
  if (header.size >= 0) return;
  if (!isHeaderOnly(header.type)) throw badTar('the size of a header is negative', offset);
  header.size = 0;
}

function untilNul(bytes: Buffer): string {
  const nul = bytes.indexOf(0);
  return bytes.toString('latin1', 0, nul < 0 ? bytes.length : nul);
}

function mapNumber(line: string, offset: number): number {
  const number = integer(line, 'GNU.sparse.map', offset);
  if (number < 0) throw badTar('a sparse map is malformed', offset);
  return number;
}
