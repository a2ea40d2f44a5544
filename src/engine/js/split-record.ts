/**
 * Lines of a tar-split record (vbatts/tar-split, tar/storage): type 2 is a segment of raw bytes, type 1 a file whose
 * content is read back from the tree. Names are latin1 text that stands for bytes.
 */
import { isUtf8 } from 'node:buffer';
import { LayerStoreError } from '../../errors.js';

export type SplitEntry =
  | { type: 2; payload: Buffer }
  | {
      type: 1;
      name: string;
      size: number;
      /** CRC-64 of the content; `undefined` where there is none. */ crc: Buffer | undefined;
    };

// Go's encoder writes these so, that JSON can stand inside HTML and JavaScript.
const GO_ESCAPES = /[<>&\u2028\u2029]/g;

function goString(text: string): string {
  return JSON.stringify(text).replace(
    GO_ESCAPES,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** One line with its newline. */
export function formatSplitEntry(entry: SplitEntry, position: number): string {
  if (entry.type === 2)
    return `{"type":2,"payload":"${entry.payload.toString('base64')}","position":${String(position)}}\n`;
  const bytes = Buffer.from(entry.name, 'latin1');
  let name = '';
  if (bytes.length > 0)
    name = isUtf8(bytes) ? `"name":${goString(bytes.toString())},` : `"name_raw":"${bytes.toString('base64')}",`;
  const size = entry.size === 0 ? '' : `"size":${String(entry.size)},`;
  const payload = entry.crc === undefined ? 'null' : `"${entry.crc.toString('base64')}"`;
  return `{"type":1,${name}${size}"payload":${payload},"position":${String(position)}}\n`;
}

/** Reads one line. Anything that is no such line is ERR_LAYER_CORRUPT. */
export function parseSplitEntry(line: string, position: number): SplitEntry {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw badRecord(position, 'it is no JSON', error);
  }
  if (typeof value !== 'object' || value === null) throw badRecord(position, 'it is no object');
  const { type, name, name_raw: rawName, size, payload, position: stated } = value as Record<string, unknown>;
  if (stated !== position) throw badRecord(position, 'its position is another one');
  const bytes = payload === null || payload === undefined ? undefined : base64(payload, position);
  if (type === 2) return { type: 2, payload: bytes ?? Buffer.alloc(0) };
  if (type !== 1) throw badRecord(position, 'its type is unknown');
  if (size !== undefined && !(typeof size === 'number' && Number.isSafeInteger(size) && size >= 0))
    throw badRecord(position, 'its size is no number');
  let text = '';
  if (typeof rawName === 'string') text = base64(rawName, position).toString('latin1');
  else if (typeof name === 'string') text = Buffer.from(name).toString('latin1');
  if (bytes !== undefined && bytes.length !== 8) throw badRecord(position, 'its checksum has not eight bytes');
  return { type: 1, name: text, size: size ?? 0, crc: bytes };
}

function base64(value: unknown, position: number): Buffer {
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(value) || value.length % 4 !== 0)
    throw badRecord(position, 'its payload is no base64');
  return Buffer.from(value, 'base64');
}

function badRecord(position: number, why: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `the tar-split record is damaged: line ${String(position)} cannot be read, ${why}; repair the layer from its tar`,
    { cause, detail: why },
  );
}
