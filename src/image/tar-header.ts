/**
 * The headers of an image archive: v7, ustar, PAX and GNU long names. Only what an archive of blobs needs; the layers'
 * own tars are read by the engine. Names stay names here: they are looked up in a map, never used as paths.
 */
import { badImage, quote } from './errors.js';

export const BLOCK = 512;
/** A PAX header or a long name of an archive of blobs is a few hundred bytes. */
const MAX_EXTENSION = 64 * 1024;

/** Where blocks come from: a file read by position, or a stream. */
export interface BlockSource {
  /** Exactly `length` bytes; fewer only at the end of the archive. */
  read(length: number): Promise<Uint8Array>;
}

export interface TarEntry {
  readonly name: string;
  readonly type: 'file' | 'directory' | 'link' | 'symlink' | 'other';
  /** Bytes of content that follow the header (before padding). */
  readonly size: number;
  /** Of links. */
  readonly target: string;
}

interface Overrides {
  name?: string;
  target?: string;
  size?: number;
}

/** The next entry, or undefined at the end. The content, and its padding up to a full block, is left to the caller. */
export async function readEntry(source: BlockSource): Promise<TarEntry | undefined> {
  const overrides: Overrides = {};
  let extended = false;
  for (;;) {
    const block = await source.read(BLOCK);
    if (block.length === 0 || (block.length === BLOCK && isZero(block))) {
      if (extended) throw badImage('the archive ends between an extension header and the entry it belongs to');
      return undefined;
    }
    if (block.length < BLOCK) throw badImage('the archive ends in the middle of a header: it is truncated');
    checkSum(block);
    const size = number(block, 124, 12);
    const type = String.fromCharCode(block[156] as number);
    if (type === 'x' || type === 'g' || type === 'L' || type === 'K') {
      const content = await readExtension(source, size);
      if (type === 'x') readPax(content, overrides);
      else if (type === 'L') overrides.name = text(content, 0, content.length);
      else if (type === 'K') overrides.target = text(content, 0, content.length);
      extended = true;
      continue;
    }
    if (type === 'S') throw badImage('the archive holds a sparse file; image archives are written without');
    return {
      name: overrides.name ?? headerName(block),
      type: entryType(type, overrides.name ?? headerName(block)),
      size: hasContent(type) ? (overrides.size ?? size) : 0,
      target: overrides.target ?? text(block, 157, 100),
    };
  }
}

/** Links, devices and directories have no content whatever their header says. */
function hasContent(type: string): boolean {
  return !'123456'.includes(type);
}

function entryType(type: string, name: string): TarEntry['type'] {
  if (type === '5') return 'directory';
  if (type === '1') return 'link';
  if (type === '2') return 'symlink';
  if (type === '0' || type === '\0' || type === '7') return name.endsWith('/') ? 'directory' : 'file';
  return 'other';
}

async function readExtension(source: BlockSource, size: number): Promise<Uint8Array> {
  if (size > MAX_EXTENSION)
    throw badImage(`the archive has an extension header of ${size} bytes; ${MAX_EXTENSION} is the most`);
  const padded = Math.ceil(size / BLOCK) * BLOCK;
  const content = await source.read(padded);
  if (content.length < padded) throw badImage('the archive ends in the middle of an extension header: it is truncated');
  return content.subarray(0, size);
}

/** PAX records: `LENGTH KEY=VALUE\n`, the length counting itself. */
function readPax(content: Uint8Array, overrides: Overrides): void {
  let at = 0;
  while (at < content.length) {
    const space = content.indexOf(0x20, at);
    const length = space < 0 ? NaN : Number(text(content, at, space - at));
    const end = at + length;
    const equals = content.indexOf(0x3d, space);
    if (!Number.isInteger(length) || end > content.length || equals < 0 || equals >= end || content[end - 1] !== 0x0a) {
      throw badImage('the archive has a PAX header that cannot be read');
    }
    const key = text(content, space + 1, equals - space - 1);
    const value = text(content, equals + 1, end - equals - 2);
    if (key === 'path') overrides.name = value;
    else if (key === 'linkpath') overrides.target = value;
    else if (key === 'size') overrides.size = paxSize(value);
    else if (key.startsWith('GNU.sparse.'))
      throw badImage('the archive holds a sparse file; image archives are written without');
    at = end;
  }
}

function paxSize(value: string): number {
  const size = Number(value);
  if (!/^[0-9]+$/.test(value) || !Number.isSafeInteger(size))
    throw badImage(`the archive has an entry of size ${quote(value)}`);
  return size;
}

function headerName(block: Uint8Array): string {
  const name = text(block, 0, 100);
  // GNU's own form has times where ustar has the prefix; its magic ends in blanks.
  const ustar = text(block, 257, 6) === 'ustar' && block[262] === 0;
  const prefix = ustar ? text(block, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

/** A field up to its first zero byte. */
function text(bytes: Uint8Array, start: number, length: number): string {
  const field = bytes.subarray(start, start + length);
  const zero = field.indexOf(0);
  return new TextDecoder().decode(zero < 0 ? field : field.subarray(0, zero));
}

/** Octal, or GNU's base-256 where the first bit is set. */
function number(block: Uint8Array, start: number, length: number): number {
  const first = block[start] as number;
  let value = 0;
  if (first & 0x80) {
    if (first !== 0x80) throw badImage('the archive has an entry with a negative or absurd size');
    for (let i = start + 1; i < start + length; i++) value = value * 256 + (block[i] as number);
  } else {
    const digits = text(block, start, length).trim();
    if (digits !== '' && !/^[0-7]+$/.test(digits))
      throw badImage(`the archive has a header whose size is ${quote(digits)}: it is no tar, or damaged`);
    value = digits === '' ? 0 : parseInt(digits, 8);
  }
  if (!Number.isSafeInteger(value)) throw badImage('the archive has an entry with an absurd size');
  return value;
}

/** The checksum field counts as blanks; some old writers summed signed bytes. */
function checkSum(block: Uint8Array): void {
  let unsigned = 8 * 0x20;
  let signed = unsigned;
  for (let i = 0; i < BLOCK; i++) {
    if (i >= 148 && i < 156) continue;
    const byte = block[i] as number;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const stored = parseInt(text(block, 148, 8).trim(), 8);
  if (stored !== unsigned && stored !== signed)
    throw badImage('the archive has a header with a wrong checksum: it is no tar, or damaged');
}

function isZero(block: Uint8Array): boolean {
  return block.every((byte) => byte === 0);
}
