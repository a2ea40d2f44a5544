/** Finds out what a source is: a layout directory, a tar file, or a stream of a tar, compressed or not. */
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { pipeline, Readable } from 'node:stream';
import { createGunzip, type Gunzip } from 'node:zlib';
import * as zlib from 'node:zlib';
import { invalidArgument, LayerStoreError } from '../errors.js';
import { ByteReader } from '../tar/byte-reader.js';
import { quote } from '../util/quote.js';
import { ArchiveFile, OPEN_FLAGS } from './image-files.js';
import { ArchiveStream } from './archive-stream.js';
import { attempt, badImage, withAction } from './errors.js';
import type { ImageFiles } from './image-files.js';
import { LayoutDirectory } from './image-files.js';
import type { ArchiveLimits } from './limits.js';
import { Spool } from './spool.js';

export interface OpenContext {
  readonly limits: ArchiveLimits;
  /** Where a spool is made. */
  readonly spoolDirectory: string;
  readonly signal: AbortSignal | undefined;
}

const MAGIC_LENGTH = 6;

export async function openFiles(source: { path: string } | Readable, context: OpenContext): Promise<ImageFiles> {
  if (isReadable(source)) return openStream(source, 'the stream', context);
  if (typeof source?.path !== 'string' || source.path === '') {
    throw invalidArgument('an image comes from { path } or from a Readable');
  }
  const { path } = source;
  const kind = await attempt('open the image', () => stat(path));
  if (kind.isDirectory()) return new LayoutDirectory(path);
  if (!kind.isFile()) return openStream(readPath(path), quote(path), context);
  const file = await attempt('open the image archive', () => open(path, OPEN_FLAGS));
  const magic = Buffer.alloc(MAGIC_LENGTH);
  let length = 0;
  try {
    ({ bytesRead: length } = await attempt('read the image archive', () => file.read(magic, 0, MAGIC_LENGTH, 0)));
  } catch (error) {
    await file.close();
    throw error;
  }
  if (compression(magic.subarray(0, length)) === 'none')
    return ArchiveFile.open(path, file, context.limits, context.signal);
  await file.close();
  return openStream(readPath(path), quote(path), context);
}

/** The bytes behind a path that may be a pipe. The stream is ours, so its errors say what was tried. */
function readPath(path: string): Readable {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    // Opened by the first read, so that nothing is open if there is none.
    yield* withAction('read the image archive', createReadStream(path, { highWaterMark: 1024 * 1024 }));
  }
  return Readable.from(chunks(), { objectMode: false });
}

function isReadable(source: unknown): source is Readable {
  return (
    typeof source === 'object' &&
    source !== null &&
    typeof (source as Readable).pipe === 'function' &&
    Symbol.asyncIterator in source
  );
}

async function openStream(
  stream: Readable,
  title: string,
  { limits, spoolDirectory, signal }: OpenContext,
): Promise<ImageFiles> {
  if (signal !== undefined) {
    // Whoever waits for the stream's next bytes is woken by its end.
    const stop = (): void => void stream.destroy(signal.reason instanceof Error ? signal.reason : undefined);
    signal.addEventListener('abort', stop, { once: true });
    stream.once('close', () => signal.removeEventListener('abort', stop));
  }
  const raw = new ByteReader(stream);
  const form = compression(await raw.peek(MAGIC_LENGTH));
  const cursor = form === 'none' ? raw : new ByteReader(decompressed(raw, decoder(form)));
  return new ArchiveStream(title, cursor, new Spool(spoolDirectory, limits), limits);
}

async function* decompressed(raw: ByteReader, through: Gunzip): AsyncGenerator<Uint8Array> {
  const source = Readable.from(raw.rest(), { objectMode: false });
  let sourceError: Error | undefined;
  source.once('error', (error) => (sourceError = error));
  // The error reaches the loop below through `through`, so the callback has nothing to do.
  pipeline(source, through, () => undefined);
  try {
    yield* through;
  } catch (error) {
    // The stream's own error is the caller's; one of the decoder is the archive's.
    throw sourceError ?? badImage(`the archive cannot be decompressed: ${(error as Error).message}`, error);
  }
}

type Form = 'none' | 'gzip' | 'zstd' | 'xz' | 'bzip2';

function compression(magic: Uint8Array): Form {
  const hex = Buffer.from(magic).toString('hex');
  if (hex.startsWith('1f8b08')) return 'gzip';
  if (hex.startsWith('28b52ffd')) return 'zstd';
  if (hex.startsWith('fd377a585a00')) return 'xz';
  if (hex.startsWith('425a68')) return 'bzip2';
  return 'none';
}

function decoder(form: Exclude<Form, 'none'>): Gunzip {
  if (form === 'gzip') return createGunzip();
  const { createZstdDecompress } = zlib as unknown as { createZstdDecompress?: () => Gunzip };
  if (form === 'zstd' && createZstdDecompress !== undefined) return createZstdDecompress();
  const way =
    form === 'zstd'
      ? 'use a Node that has zstd (22.15 or later), or pipe it through "zstd -dc"'
      : `pipe it through "${form} -dc"`;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `an archive that is compressed as a whole with ${quote(form)} cannot be read here; ${way}`,
  );
}
