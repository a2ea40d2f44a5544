/** PAX extended header records, and what they change in a header. Text is latin1 that stands for bytes. */
import type { LayerStoreError } from '../errors.js';
import { badTar } from './errors.js';
import type { TarHeader, TarTime } from './header.js';

/** Keyword -> value. The map of GNU sparse 0.0, whose records repeat, is joined by commas under `GNU.sparse.map`. */
export type PaxRecords = Map<string, string>;

const XATTR_PREFIX = 'SCHILY.xattr.';
const NO_NUL = new Set(['path', 'linkpath', 'uname', 'gname']);

/** Reads the records of one extended header. */
export function parsePax(bytes: Buffer, offset: number): PaxRecords {
  const records: PaxRecords = new Map();
  const sparse: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const digits = space < 0 ? '' : bytes.toString('latin1', at, space);
    const length = Number(int64(digits) ?? 0);
    const end = at + length;
    if (length < 5 || end > bytes.length || space + 1 >= end || bytes[end - 1] !== 0x0a) throw badRecord(offset);
    const record = bytes.toString('latin1', space + 1, end - 1);
    const equals = record.indexOf('=');
    const key = record.slice(0, Math.max(equals, 0));
    const value = record.slice(equals + 1);
    if (key === '' || (NO_NUL.has(key) ? value : key).includes('\0')) throw badRecord(offset);
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      const expected = sparse.length % 2 === 0 ? 'GNU.sparse.offset' : 'GNU.sparse.numbytes';
      if (key !== expected || value.includes(',')) throw badRecord(offset);
      sparse.push(value);
    } else {
      records.set(key, value);
    }
    at = end;
  }
  if (sparse.length > 0) records.set('GNU.sparse.map', sparse.join(','));
  return records;
}

function badRecord(offset: number): LayerStoreError {
  return badTar('a PAX record is malformed', offset);
}

/** Applies records to a header. An empty value keeps what the header has, as in Go's reader. */
export function applyPax(header: TarHeader, records: PaxRecords, offset: number): void {
  for (const [key, value] of records) {
    if (value === '') continue;
    switch (key) {
      case 'path':
        header.name = value;
        break;
      case 'linkpath':
        header.linkName = value;
        break;
      case 'uid':
        header.uid = integer(value, key, offset);
        break;
      case 'gid':
        header.gid = integer(value, key, offset);
        break;
      case 'size':
        header.size = integer(value, key, offset);
        break;
      case 'mtime':
        header.mtime = time(value, key, offset);
        break;
      case 'atime':
      case 'ctime':
        time(value, key, offset); // Not used, but a tar where it is malformed is refused, as by Go.
        break;
    }
  }
}

/** Extended attributes among the records, in the order they came. */
export function xattrsOf(records: PaxRecords): (readonly [name: string, value: Buffer])[] {
  const xattrs: (readonly [string, Buffer])[] = [];
  for (const [key, value] of records) {
    if (key.startsWith(XATTR_PREFIX)) {
      xattrs.push([key.slice(XATTR_PREFIX.length), Buffer.from(value, 'latin1')]);
    }
  }
  return xattrs;
}

/**
 * A whole decimal number with an optional sign, of at most 64 bits. One of more than 53 bits comes out near to what it is:
 * whoever uses it must look whether it is within bounds.
 */
export function integer(value: string, key: string, offset: number): number {
  const number = int64(value);
  if (number === undefined) throw badTar(`the PAX record "${printable(key)}" is not a number`, offset);
  return Number(number);
}

function int64(text: string): bigint | undefined {
  const [, sign = '', digits] = /^([+-]?)0*(\d{1,19})$/.exec(text) ?? [];
  if (digits === undefined) return undefined;
  const number = sign === '-' ? -BigInt(digits) : BigInt(digits);
  return BigInt.asIntN(64, number) === number ? number : undefined;
}

function time(value: string, key: string, offset: number): TarTime {
  const [, whole = '', fraction = ''] = /^([^.]*)(?:\.(\d*))?$/.exec(value) ?? [];
  const exact = int64(whole);
  if (exact === undefined) throw badTar(`the PAX record "${printable(key)}" is not a time`, offset);
  const seconds = Number(exact);
  const nanoseconds = Number(fraction.padEnd(9, '0').slice(0, 9));
  if (nanoseconds === 0 || !whole.startsWith('-')) return { seconds, nanoseconds };
  return { seconds: seconds - 1, nanoseconds: 1e9 - nanoseconds };
}

function printable(text: string): string {
  return Buffer.from(text, 'latin1').toString().slice(0, 100);
}
