/** Sources of a tar, made one: chunks that are asked for one at a time, and a way to let go of them. */
import type { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { invalidArgument } from '../../errors.js';
import type { TarSource } from '../engine.js';
import { GrowingFile } from '../growing-file.js';

/** Chunks of a source that passes through JavaScript. */
export interface ChunkSource {
  next(): Promise<{ done: boolean; value?: unknown }>;
  /** Lets go of the source: it is destroyed, or told that nothing more is wanted. */
  stop(): void;
}

/** A range of a file, or all of it. */
export interface FileSource {
  path: string;
  offset?: number;
  length?: number;
}

/** Tells the kinds of source apart; ERR_INVALID_ARGUMENT for anything else. */
export function openSource(
  source: TarSource,
): { file: FileSource } | { chunks: ChunkSource } | { growing: GrowingFile } {
  if (typeof source === 'object' && source !== null) {
    if (source instanceof GrowingFile) return { growing: source };
    if (isReadable(source)) return { chunks: fromReadable(source) };
    if (isWebStream(source)) return { chunks: fromWebStream(source) };
    if (isIterable(source)) return { chunks: fromIterable(source) };
    if ('path' in source && typeof source.path === 'string') return { file: checkRange(source) };
  }
  throw invalidArgument(
    'a tar source must be a Readable, an async iterable of Uint8Array, a ReadableStream or { path }',
  );
}

function isReadable(source: object): source is Readable {
  return 'pipe' in source && typeof source.pipe === 'function' && 'destroy' in source && Symbol.asyncIterator in source;
}

function isWebStream(source: object): source is ReadableStream<Uint8Array> {
  return 'getReader' in source && typeof source.getReader === 'function';
}

function isIterable(source: object): source is AsyncIterable<Uint8Array> {
  return Symbol.asyncIterator in source && typeof source[Symbol.asyncIterator] === 'function';
}

function checkRange(source: FileSource): FileSource {
  const { offset, length } = source;
  if ((offset === undefined) !== (length === undefined)) {
    throw invalidArgument('a range of a file needs both offset and length');
  }
  for (const [name, value] of [
    ['offset', offset],
    ['length', length],
  ] as const) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 0)) {
      throw invalidArgument(`${name} must be a whole number of bytes, not ${String(value)}`);
    }
  }
  return source;
}

function fromReadable(stream: Readable): ChunkSource {
  // The iterator listens from its first `next` on, and tells then of an error that came before. Behind `stop` the premature
  // end that destroying the stream reports belongs to nobody.
  stream.on('error', ignore);
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<unknown>;
  return {
    next: () => iterator.next() as Promise<{ done: boolean; value?: unknown }>,
    stop: () => void stream.destroy(),
  };
}

function fromWebStream(stream: ReadableStream<Uint8Array>): ChunkSource {
  const reader = stream.getReader();
  return {
    next: () => reader.read(),
    stop: () => void reader.cancel().catch(ignore),
  };
}

function fromIterable(iterable: AsyncIterable<Uint8Array>): ChunkSource {
  const iterator = iterable[Symbol.asyncIterator]() as AsyncIterator<unknown>;
  return {
    next: () => iterator.next() as Promise<{ done: boolean; value?: unknown }>,
    // Not awaited: a generator that waits for its next chunk would answer only after it.
    stop: () => void Promise.resolve(iterator.return?.()).catch(ignore),
  };
}

/** For failures of a source that is already given up: the error that made us give up is the one to report. */
function ignore(): void {}
