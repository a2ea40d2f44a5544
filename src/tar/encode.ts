/**
 * Header blocks of the tars that are made here, byte for byte as docs/on-disk-format.md says ("The tar of an RW layer").
 * Text is latin1 that stands for bytes.
 */
import { LayerStoreError } from '../errors.js';
import { shown } from './errors.js';
import { BLOCK } from './header.js';

/** What one entry's header says. */
export interface HeaderFields {
  /** With a `/` at the end for a directory. */
  name: string;
  type: '0' | '1' | '2' | '3' | '4' | '5' | '6';
  mode: number;
  uid: number;
  gid: number;
  size: number;
  /** Nanoseconds since 1970. */
  mtimeNs: bigint;
  linkName?: string;
  major?: number;
  minor?: number;
  xattrs?: readonly (readonly [name: string, value: Buffer])[];
}

const MAX_NAME = 100;
const MAX_ID = 0o7777777;
const MAX_LONG = 0o77777777777;
const SECOND = 1_000_000_000n;

/** The header of an entry, a PAX header before it where one is needed. */
export function encodeHeader(fields: HeaderFields): Buffer {
  const records = paxRecords(fields);
  const seconds = floorSeconds(fields.mtimeNs);
  const own = block({
    ...fields,
    uid: fields.uid > MAX_ID ? 0 : fields.uid,
    gid: fields.gid > MAX_ID ? 0 : fields.gid,
    size: fields.size > MAX_LONG ? 0 : fields.size,
    seconds: seconds < 0n || seconds > BigInt(MAX_LONG) ? 0 : Number(seconds),
  });
  if (records.length === 0) return own;
  const data = Buffer.from(records.join(''), 'latin1');
  const pax = block({ name: 'PaxHeader', type: 'x', mode: 0o644, uid: 0, gid: 0, size: data.length, seconds: 0 });
  return Buffer.concat([pax, data, padding(data.length), own]);
}

/** Zeros up to a whole block. */
export function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

function floorSeconds(ns: bigint): bigint {
  const seconds = ns / SECOND;
  return ns % SECOND < 0n ? seconds - 1n : seconds;
}

function paxRecords(fields: HeaderFields): string[] {
  const records: [key: string, value: string][] = [];
  for (const [name, value] of fields.xattrs ?? []) {
    if (name.includes('=')) {
      throw new LayerStoreError(
        'ERR_NOT_SUPPORTED',
        `"${shown(fields.name)}" has an extended attribute with "=" in its name, which a tar cannot carry`,
        {
          path: shown(fields.name),
        },
      );
    }
    records.push([`SCHILY.xattr.${name}`, value.toString('latin1')]);
  }
  if (fields.gid > MAX_ID) records.push(['gid', String(fields.gid)]);
  if ((fields.linkName ?? '').length > MAX_NAME) records.push(['linkpath', fields.linkName ?? '']);
  const seconds = floorSeconds(fields.mtimeNs);
  if (seconds < 0n || seconds > BigInt(MAX_LONG) || fields.mtimeNs % SECOND !== 0n)
    records.push(['mtime', decimalTime(fields.mtimeNs)]);
  if (fields.name.length > MAX_NAME) records.push(['path', fields.name]);
  if (fields.size > MAX_LONG) records.push(['size', String(fields.size)]);
  if (fields.uid > MAX_ID) records.push(['uid', String(fields.uid)]);
  return records.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => record(key, value));
}

/** `LENGTH KEY=VALUE\n`, LENGTH counting itself. */
function record(key: string, value: string): string {
  const rest = key.length + value.length + 3;
  let length = rest + 1;
  while (String(length).length + rest !== length) length = rest + String(length).length;
  return `${String(length)} ${key}=${value}\n`;
}

function decimalTime(ns: bigint): string {
  const absolute = ns < 0n ? -ns : ns;
  const fraction = absolute % SECOND;
  const digits = fraction === 0n ? '' : `.${String(fraction).padStart(9, '0').replace(/0+$/, '')}`;
  return `${ns < 0n ? '-' : ''}${String(absolute / SECOND)}${digits}`;
}

interface BlockFields extends Omit<HeaderFields, 'type' | 'mtimeNs' | 'xattrs'> {
  type: string;
  seconds: number;
}

function block(fields: BlockFields): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  bytes.write(fields.name.slice(0, MAX_NAME), 0, 'latin1');
  octal(bytes, 100, 7, fields.mode & 0o7777);
  octal(bytes, 108, 7, fields.uid);
  octal(bytes, 116, 7, fields.gid);
  octal(bytes, 124, 11, fields.size);
  octal(bytes, 136, 11, fields.seconds);
  bytes.fill(0x20, 148, 156);
  bytes.write(fields.type, 156, 'latin1');
  bytes.write((fields.linkName ?? '').slice(0, MAX_NAME), 157, 'latin1');
  bytes.write('ustar\x0000', 257, 'latin1');
  octal(bytes, 329, 7, fields.major ?? 0);
  octal(bytes, 337, 7, fields.minor ?? 0);
  let sum = 0;
  for (const byte of bytes) sum += byte;
  octal(bytes, 148, 6, sum);
  return bytes;
}

/** Digits with leading zeros, then NUL. */
function octal(bytes: Buffer, at: number, digits: number, value: number): void {
  bytes.write(value.toString(8).padStart(digits, '0'), at, 'latin1');
  bytes[at + digits] = 0;
}
