/**
 * Tars made by hand, block by block: everything a header can say, also what no sane archiver writes. For tests of
 * readers; nothing here is a way to write good archives.
 */

/** A header of 512 bytes, field by field; what is absent is what GNU tar would write for an empty regular file. */
export interface TarEntry {
  /** Raw bytes where it is no text. */
  name: string | Uint8Array;
  /** `0` file, `1` hard link, `2` symbolic link, `3` `4` devices, `5` directory, `6` FIFO, `x` `g` PAX, `L` `K` GNU. */
  type?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  /** Seconds. */
  mtime?: number;
  linkname?: string | Uint8Array;
  content?: string | Uint8Array;
  /** What the header claims, where that is not the length of `content`. */
  size?: number;
  devmajor?: number;
  devminor?: number;
  uname?: string;
  gname?: string;
  /** PAX records written in front, as a header of their own. */
  pax?: Readonly<Record<string, string | Uint8Array>>;
  magic?: 'ustar' | 'gnu' | 'v7';
  prefix?: string | Uint8Array;
  /** Overwrites bytes of the finished header, before the checksum is computed. */
  patch?: readonly { at: number; bytes: Uint8Array | string }[];
  /** What stands in the checksum field instead of the right one. */
  checksum?: string;
  /** No padding after the content. */
  unpadded?: boolean;
}

const BLOCK = 512;

/** The entries, and the two blocks of zeros that end a tar (`end: false` leaves them out). */
export function buildTar(entries: readonly TarEntry[], options: { end?: boolean; recordSize?: number } = {}): Buffer {
  const parts = entries.flatMap((entry) => entryParts(entry));
  if (options.end !== false) parts.push(Buffer.alloc(2 * BLOCK));
  const bytes = Buffer.concat(parts);
  const { recordSize } = options;
  return recordSize === undefined ? bytes : Buffer.concat([bytes, zeros(bytes.length, recordSize)]);
}

function entryParts(entry: TarEntry): Buffer[] {
  const parts: Buffer[] = [];
  if (entry.pax !== undefined) {
    const records = paxRecords(entry.pax);
    parts.push(...entryParts({ name: 'PaxHeaders/x', type: 'x', content: records, mtime: entry.mtime ?? 0 }));
  }
  const content = bytesOf(entry.content ?? '');
  parts.push(tarHeader(entry), content);
  if (entry.unpadded !== true) parts.push(zeros(content.length, BLOCK));
  return parts;
}

function zeros(length: number, unit: number): Buffer {
  return Buffer.alloc((unit - (length % unit)) % unit);
}

/** One header block. */
export function tarHeader(entry: TarEntry): Buffer {
  const block = Buffer.alloc(BLOCK);
  const { magic = 'ustar' } = entry;
  put(block, 0, 100, entry.name);
  putNumber(block, 100, 8, entry.mode ?? (entry.type === '5' ? 0o755 : 0o644));
  putNumber(block, 108, 8, entry.uid ?? 0);
  putNumber(block, 116, 8, entry.gid ?? 0);
  putNumber(block, 124, 12, entry.size ?? bytesOf(entry.content ?? '').length);
  putNumber(block, 136, 12, entry.mtime ?? 1_700_000_000);
  put(block, 156, 1, entry.type ?? '0');
  put(block, 157, 100, entry.linkname ?? '');
  if (magic === 'ustar') put(block, 257, 8, 'ustar\x0000');
  if (magic === 'gnu') put(block, 257, 8, 'ustar  \x00');
  put(block, 265, 32, entry.uname ?? '');
  put(block, 297, 32, entry.gname ?? '');
  if (magic !== 'v7') {
    putNumber(block, 329, 8, entry.devmajor ?? 0);
    putNumber(block, 337, 8, entry.devminor ?? 0);
  }
  put(block, 345, 155, entry.prefix ?? '');
  for (const { at, bytes } of entry.patch ?? []) bytesOf(bytes).copy(block, at);
  put(block, 148, 8, entry.checksum ?? checksumOf(block));
  return block;
}

/** The sum of all bytes, its own field taken as blanks. */
function checksumOf(block: Buffer): string {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += block[i] ?? 0;
  return `${sum.toString(8).padStart(6, '0')}\0 `;
}

/** `27 mtime=1700000000.123456789\n`, the length counting itself. */
export function paxRecords(records: Readonly<Record<string, string | Uint8Array>>): Buffer {
  return Buffer.concat(
    Object.entries(records).map(([key, value]) => {
      const rest = Buffer.concat([Buffer.from(` ${key}=`), bytesOf(value), Buffer.from('\n')]);
      let length = rest.length + 1;
      while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

/** A GNU long name (`L`) or long link (`K`) in front of the entry that it belongs to. */
export function gnuLong(type: 'L' | 'K', text: string | Uint8Array): TarEntry {
  return {
    name: '././@LongLink',
    type,
    content: Buffer.concat([bytesOf(text), Buffer.alloc(1)]),
    mtime: 0,
    mode: 0o644,
    magic: 'gnu',
  };
}

function put(block: Buffer, at: number, length: number, value: string | Uint8Array): void {
  bytesOf(value).subarray(0, length).copy(block, at);
}

/** Octal digits, or GNU's base-256 where they do not fit or the number is negative. */
function putNumber(block: Buffer, at: number, length: number, value: number): void {
  const octal = value < 0 ? '' : Math.trunc(value).toString(8);
  if (value >= 0 && octal.length < length) {
    block.write(`${octal.padStart(length - 1, '0')}\0`, at, 'latin1');
    return;
  }
  let rest = BigInt.asUintN(length * 8, BigInt(Math.trunc(value)));
  for (let i = length - 1; i >= 0; i--) {
    block[at + i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[at] = value < 0 ? 0xff : (block[at] ?? 0) | 0x80;
}

function bytesOf(value: string | Uint8Array): Buffer {
  return typeof value === 'string' ? Buffer.from(value) : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

/** A zstd frame of stored blocks: valid for every reader, compressed by none (RFC 8878, 3.1.1). */
export function storedZstd(bytes: Uint8Array): Buffer {
  const parts = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0])];
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(bytes.length));
  parts.push(size);
  const step = 128 * 1024;
  for (let at = 0; at === 0 || at < bytes.length; at += step) {
    const block = bytes.subarray(at, at + step);
    const header = Buffer.alloc(3);
    header.writeUIntLE((block.length << 3) | (at + step >= bytes.length ? 1 : 0), 0, 3);
    parts.push(header, Buffer.from(block));
  }
  return Buffer.concat(parts);
}
