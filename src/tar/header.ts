/**
 * One tar header block, read as Go's archive/tar reads it (that is what Docker sees): v7, ustar, GNU and star; octal and
 * base-256 numbers. Text is latin1 that stands for bytes.
 */
import { LayerStoreError } from '../errors.js';
import { badTar } from './errors.js';

export const BLOCK = 512;

export type TarFormat = 'v7' | 'ustar' | 'gnu' | 'star';

/** Fields of a header, extension headers not applied. */
export interface TarHeader {
  format: TarFormat;
  name: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  /** Seconds, whole, and nanoseconds from 0 to 999,999,999 on top of them. */
  mtime: TarTime;
  /** One character. */
  type: string;
  linkName: string;
  major: number;
  minor: number;
}

export interface TarTime {
  seconds: number;
  nanoseconds: number;
}

const FOREIGN: readonly (readonly [magic: string, name: string])[] = [
  ['\xfd7zXZ\0', 'xz'],
  ['BZh', 'bzip2'],
  ['LZIP', 'lzip'],
  ['\x1f\x9d', 'compress'],
  ['\x1f\xa0', 'compress'],
  ['\x5d\0\0', 'lzma'],
  ['\x04\x22\x4d\x18', 'lz4'],
  ['\x89LZO', 'lzop'],
  ['LRZI', 'lrzip'],
  ['PK\x03\x04', 'zip'],
  ['7z\xbc\xaf\x27\x1c', '7z'],
];

/**
 * The error for bytes that are no header: ERR_BAD_COMPRESSION where they are the start of a source in another format, else
 * ERR_BAD_TAR.
 */
export function noHeader(bytes: Buffer, offset: number, why: string): LayerStoreError {
  const start = bytes.toString('latin1', 0, 8);
  const format = offset === 0 ? FOREIGN.find(([magic]) => start.startsWith(magic))?.[1] : undefined;
  if (format === undefined) return badTar(why, offset);
  return new LayerStoreError(
    'ERR_BAD_COMPRESSION',
    `the source is ${format} data, which is not supported: give a tar, plain or compressed with gzip or zstd`,
    { detail: `${format} data` },
  );
}

/** Whether a block holds zeros only. */
export function isZeroBlock(block: Buffer): boolean {
  return block[0] === 0 && block.every((byte) => byte === 0);
}

/** Reads a header block; throws ERR_BAD_TAR. */
export function parseHeader(block: Buffer, offset: number): TarHeader {
  checkSum(block, offset);
  const format = formatOf(block);
  const number = (at: number, length: number, what: string): number => numeric(block, at, length, what, offset);
  const header: TarHeader = {
    format,
    name: text(block, 0, 100),
    mode: Number(BigInt.asUintN(12, int64(block, 100, 8, 'mode', offset))),
    uid: number(108, 8, 'uid'),
    gid: number(116, 8, 'gid'),
    size: number(124, 12, 'size'),
    mtime: { seconds: number(136, 12, 'mtime'), nanoseconds: 0 },
    type: String.fromCharCode(block[156]!),
    linkName: text(block, 157, 100),
    major: 0,
    minor: 0,
  };
  if (format === 'v7') return header;
  header.major = number(329, 8, 'device number');
  header.minor = number(337, 8, 'device number');
  const prefix = prefixOf(block, format, offset);
  if (prefix !== '') header.name = `${prefix}/${header.name}`;
  return header;
}

function checkSum(block: Buffer, offset: number): void {
  const stored = octal(text(block, 148, 8, true));
  let unsigned = 0;
  let signed = 0;
  for (let index = 0; index < BLOCK; index++) {
    const byte = index >= 148 && index < 156 ? 0x20 : block[index]!;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  // Some old writers added the bytes up as signed ones.
  if (stored !== unsigned && stored !== signed) throw noHeader(block, offset, 'the checksum of a header is wrong');
}

function formatOf(block: Buffer): TarFormat {
  const magic = block.toString('latin1', 257, 265);
  if (magic === 'ustar  \0') return 'gnu';
  if (!magic.startsWith('ustar\0')) return 'v7';
  return block.toString('latin1', 508, 512) === 'tar\0' ? 'star' : 'ustar';
}

function prefixOf(block: Buffer, format: TarFormat, offset: number): string {
  switch (format) {
    case 'ustar':
      return text(block, 345, 155);
    case 'star':
      numeric(block, 476, 12, 'access time', offset);
      numeric(block, 488, 12, 'change time', offset);
      return text(block, 345, 131);
    default:
      return gnuPrefix(block, offset);
  }
}

// Go before 1.8 wrote a ustar prefix into headers with GNU's magic; where the times that GNU has there are none, it is one.
function gnuPrefix(block: Buffer, offset: number): string {
  try {
    if (block[345] !== 0) numeric(block, 345, 12, 'access time', offset);
    if (block[357] !== 0) numeric(block, 357, 12, 'change time', offset);
    return '';
  } catch {
    const prefix = text(block, 345, 155);

    return /^[\x00-\x7f]*$/.test(prefix) ? prefix : '';
  }
}

/** Bytes up to the first NUL. */
function text(block: Buffer, at: number, length: number, trim = false): string {
  const field = block.toString('latin1', at, at + length);
  // Numbers may have leading NULs and blanks as well.

  const from = trim ? field.replace(/^[ \0]+|[ \0]+$/g, '') : field;
  const nul = from.indexOf('\0');
  return nul < 0 ? from : from.slice(0, nul);
}

function octal(digits: string): number | undefined {
  if (digits === '') return 0;
  return /^[0-7]+$/.test(digits) ? parseInt(digits, 8) : undefined;
}

/**
 * A number of a header block: octal, or base-256 where the first bit is set. One of more than 53 bits comes out near to
 * what it is: whoever uses it must look whether it is within bounds.
 */
export function numeric(block: Buffer, at: number, length: number, what: string, offset: number): number {
  return Number(int64(block, at, length, what, offset));
}

function int64(block: Buffer, at: number, length: number, what: string, offset: number): bigint {
  const value = (block[at]! & 0x80) === 0 ? octal(text(block, at, length, true)) : base256(block, at, length);
  if (value === undefined) throw badTar(`the ${what} of a header is not a number`, offset);
  return BigInt(value);
}

function base256(block: Buffer, at: number, length: number): bigint | undefined {
  // Two's complement, the first bit being the mark.
  const first = block[at]!;
  const negative = (first & 0x40) !== 0;
  let value = BigInt(negative ? (first & 0x7f) - 0x80 : first & 0x7f);
  for (let index = 1; index < length; index++) value = (value << 8n) | BigInt(block[at + index]!);
  return BigInt.asIntN(64, value) === value ? value : undefined;
}

/** Types that never have data behind them, whatever their size says. */
export function isHeaderOnly(type: string): boolean {
  return type >= '1' && type <= '6';
}
