/**
 * What stands in the files of a record: text to value and back, pure. Readers take what Docker's take (blanks around
 * digests and ids, none around sizes); everything else is a `InvalidRecordError`, which says in one clause what is wrong.
 */
import * as crypto from 'node:crypto';
import type { ChainID, DiffID, Digest } from '../digest.js';
import { isDigest } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import { isPlainName } from '../util/plain-name.js';
import { quote } from '../util/quote.js';
import { NotRegularError, readRegularFileSync } from '../util/regular-file.js';
import type { Descriptor } from './metadata-store.js';

/** Thrown by the readers here; the stores turn it into ERR_LAYER_CORRUPT with the record's name. */
export class InvalidRecordError extends Error {}

const MOUNT_ID = /^[a-f0-9]{64}(-init)?$/;

/** Go's strings.TrimSpace: white space of Unicode, without the byte order mark that JavaScript trims too. */
function trim(text: string): string {
  // Almost every record has none, and this runs for each file of each layer. Only ends count.
  if (isInk(text.charCodeAt(0)) && isInk(text.charCodeAt(text.length - 1))) return text;
  return text.replace(/^[\s\u0085]+|[\s\u0085]+$/gu, (blanks) => (blanks.includes('\ufeff') ? blanks : ''));
}

function isInk(code: number): boolean {
  return code > 0x20 && code < 0x7f;
}

function notEmpty(text: string): string {
  if (text === '') throw new InvalidRecordError('is empty');
  return text;
}

export function readDigest(text: string): Digest {
  const digest = trim(notEmpty(text));
  if (!isDigest(digest)) throw new InvalidRecordError(`holds ${quote(digest)}, no "sha256:" and 64 hex digits`);
  return digest;
}

/** Docker's builder registers ids of its own that are not 64 hex digits. */
export function readCacheID(text: string): string {
  const id = trim(notEmpty(text));
  if (!isPlainName(id)) throw new InvalidRecordError(`holds ${quote(id)}, no driver id`);
  return id;
}

export function readMountID(text: string): string {
  const id = trim(notEmpty(text));
  if (!MOUNT_ID.test(id)) throw new InvalidRecordError(`holds ${quote(id)}, not 64 hex digits`);
  return id;
}

/** Bytes. Go's ParseInt trims nothing. A negative size, or one that no file system can hold, is refused. */
export function readSize(text: string): number {
  const size = /^\+?[0-9]{1,19}$/.test(notEmpty(text)) ? Number(text) : NaN;
  if (!Number.isSafeInteger(size)) throw new InvalidRecordError(`holds ${quote(text)}, no count of bytes`);
  return size;
}

/** Docker keeps a descriptor only when its digest is set; an object without one stands for none. */
export function readDescriptor(text: string): Descriptor | undefined {
  let value: unknown;
  try {
    value = JSON.parse(notEmpty(text));
  } catch (error) {
    if (error instanceof InvalidRecordError) throw error;
    throw new InvalidRecordError('is no JSON');
  }
  if (!isObject(value)) throw new InvalidRecordError('holds no JSON object');
  if (value['digest'] === undefined || value['digest'] === '') return undefined;
  const { mediaType = '', digest, size = 0, urls, annotations, platform } = value;
  if (!isDigest(digest)) throw new InvalidRecordError('has a "digest" that is none');
  if (typeof mediaType !== 'string') throw new InvalidRecordError('has a "mediaType" that is not a string');
  if (!Number.isSafeInteger(size) || (size as number) < 0)
    throw new InvalidRecordError('has a "size" that is not a count of bytes');
  // JSON null is what Go writes nowhere and reads as absent.
  const known: Descriptor = { mediaType, digest: digest, size: size as number };
  if (urls !== undefined && urls !== null) {
    if (!Array.isArray(urls) || !urls.every((url) => typeof url === 'string'))
      throw new InvalidRecordError('has "urls" that are not strings');
    known.urls = urls;
  }
  if (annotations !== undefined && annotations !== null) {
    if (!isObject(annotations) || !Object.values(annotations).every((text) => typeof text === 'string')) {
      throw new InvalidRecordError('has "annotations" that are not strings');
    }
    known.annotations = annotations as Record<string, string>;
  }
  if (platform !== undefined && platform !== null) known.platform = platform;
  return known;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** As Go's encoding/json writes it: fixed order of keys, empty ones left out, map keys sorted, `<`, `>`, `&` escaped. */
export function writeDescriptor(descriptor: Descriptor): string {
  const { mediaType, digest, size, urls, annotations, platform } = descriptor;
  const members: string[] = [];
  if (mediaType !== '') members.push(`"mediaType":${JSON.stringify(mediaType)}`);
  members.push(`"size":${size}`, `"digest":${JSON.stringify(digest)}`);
  if (urls !== undefined && urls.length > 0) members.push(`"urls":${JSON.stringify(urls)}`);
  if (annotations !== undefined && Object.keys(annotations).length > 0) {
    members.push(`"annotations":${writeMap(annotations)}`);
  }
  if (platform !== undefined && platform !== null) members.push(`"platform":${JSON.stringify(platform)}`);
  return `{${members.join(',')}}`.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** By hand, since JavaScript would move keys that look like array indexes to the front; Go sorts by bytes. */
function writeMap(map: Record<string, string>): string {
  const entries = Object.entries(map).map(([key, value]) => ({ key, value, bytes: Buffer.from(key) }));
  entries.sort((a, b) => Buffer.compare(a.bytes, b.bytes));
  return `{${entries.map(({ key, value }) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(',')}}`;
}

/** Node's hash of short texts in one call, from 20.12 on, costs half of what an object for each does. */
const sha256 = (text: string): string =>
  typeof crypto.hash === 'function'
    ? crypto.hash('sha256', text)
    : crypto.createHash('sha256').update(text).digest('hex');

/** Whether `chainID` is what `diffID` on top of `parent` makes: a flipped digit in either file shows here. */
export function checkChain(chainID: ChainID, diffID: DiffID, parent: ChainID | undefined): void {
  const expected = parent === undefined ? diffID : `sha256:${sha256(`${parent} ${diffID}`)}`;
  if (expected !== (chainID as string)) {
    throw new InvalidRecordError(
      `does not fit its name: "diff"${parent === undefined ? '' : ' and "parent"'} give ${expected}`,
    );
  }
}

/** More than any id or digest needs with blanks around it. */
export const SMALL_LIMIT = 512;
/** Annotations may be long; beyond this it is no descriptor. */
export const DESCRIPTOR_LIMIT = 1 << 20;

/**
 * The file's content, or `undefined` where there is none; bytes that are no UTF-8 become replacement characters, which no
 * reader of records accepts. `InvalidRecordError` for what is no regular file or holds more than `limit` bytes; any other trouble is
 * Node's own error.
 */
export function readRecordFile(path: string, limit = SMALL_LIMIT): string | undefined {
  try {
    return readRegularFileSync(path, limit)?.toString('utf8');
  } catch (error) {
    if (error instanceof NotRegularError) throw new InvalidRecordError(error.message);
    throw error;
  }
}

export function corrupt(who: string, flaw: string, path?: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `the record of ${who} is damaged: ${flaw}; repair the layer from its tar`,
    { path, cause },
  );
}
