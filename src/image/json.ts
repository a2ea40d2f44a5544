/** JSON of strangers: bounded in size and depth before it is parsed, and read through checks of its shape. */
import { parseDigest, type Digest } from '../digest.js';
import { quote } from '../util/quote.js';
import { badImage, overLimit } from './errors.js';
import type { ArchiveLimits } from './limits.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** Parses bytes of at most `maxJsonBytes`, nested at most `maxJsonDepth` deep. `what` names them in errors. */
export function parseJson(bytes: Uint8Array, what: string, limits: ArchiveLimits): unknown {
  if (bytes.length > limits.maxJsonBytes)
    throw overLimit(`${what} with its ${bytes.length} bytes`, 'maxJsonBytes', limits.maxJsonBytes);
  checkDepth(bytes, what, limits.maxJsonDepth);
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
  } catch (error) {
    throw badImage(`${what} is not JSON: ${(error as Error).message}`, error);
  }
}

/** Counts brackets outside of strings, before the parser builds anything. */
function checkDepth(bytes: Uint8Array, what: string, limit: number): void {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) {
      inString = true;
    } else if (byte === 0x5b || byte === 0x7b) {
      if (++depth > limit) throw overLimit(`the nesting of ${what}`, 'maxJsonDepth', limit);
    } else if (byte === 0x5d || byte === 0x7d) {
      depth--;
    }
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function asObject(value: unknown, what: string): JsonObject {
  if (!isObject(value)) throw badImage(`${what} is not a JSON object`);
  return value;
}

export function asArray(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw badImage(`${what} is not a JSON array`);
  return value as readonly unknown[];
}

export function asString(value: unknown, what: string): string {
  if (typeof value !== 'string') throw badImage(`${what} is not a string`);
  return value;
}

/** A missing field, or null as Go writes empty slices, gives undefined. */
export function optional<T>(value: unknown, read: (value: unknown, what: string) => T, what: string): T | undefined {
  return value === undefined || value === null ? undefined : read(value, what);
}

export function asDigest(value: unknown, what: string): Digest {
  const text = asString(value, what);
  try {
    return parseDigest(text);
  } catch (error) {
    throw badImage(`${what} is ${quote(text)}; only sha256 digests are known here`, error);
  }
}

/** A count of bytes. */
export function asSize(value: unknown, what: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw badImage(`${what} is not a size in bytes`);
  return value;
}

export function asStringMap(value: unknown, what: string): Record<string, string> {
  const entries = Object.entries(asObject(value, what));
  return Object.fromEntries(entries.map(([key, text]) => [key, asString(text, `${what}[${quote(key)}]`)]));
}
