/** A byte range of a file as a layer's source. */
import { createReadStream } from 'node:fs';
import type { TarSource } from '../engine/engine.js';

/** Whether the engines read `{ path, offset, length }` by themselves, without JavaScript in between. */
const ENGINES_READ_RANGES: boolean = false;

/** `length` bytes of the file at `path` from `offset` on. */
export function rangeSource(path: string, offset: number, length: number): TarSource {
  if (ENGINES_READ_RANGES) return { path, offset, length };
  return readRange(path, offset, length);
}

/** Opened when the first byte is asked for, so that a source nobody reads costs no descriptor. */
async function* readRange(path: string, offset: number, length: number): AsyncGenerator<Uint8Array> {
  if (length === 0) return;
  yield* createReadStream(path, { start: offset, end: offset + length - 1, highWaterMark: 1024 * 1024 });
}
