/** Decompression, told by the first bytes: plain, gzip (several members, zero padding), zstd (several frames, skippable ones). */
import type { Transform } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { LayerStoreError } from '../../errors.js';
import { isZstd, unzstd } from './zstd.js';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface Decoded {
  compression: Compression;
  chunks: AsyncIterable<Buffer>;
}

/** Looks at the first bytes of `input` and gives its decompressed chunks. */
export async function decode(input: AsyncIterable<Buffer>, limits: { maxWindow: number }): Promise<Decoded> {
  const iterator = input[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  let ended = false;
  while (head.length < 4 && !ended) {
    const next = await iterator.next();
    if (next.done === true) ended = true;
    else head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  const all = resume(head, iterator, ended);
  // The third byte too: a name of a tar may begin with the first two.
  if (head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return { compression: 'gzip', chunks: gunzip(all) };
  if (isZstd(head)) return { compression: 'zstd', chunks: await unzstd(all, limits) };
  return { compression: 'none', chunks: all };
}

async function* resume(head: Buffer, rest: AsyncIterator<Buffer>, ended: boolean): AsyncGenerator<Buffer> {
  try {
    if (head.length > 0) yield head;
    while (!ended) {
      const next = await rest.next();
      if (next.done === true) ended = true;
      else yield next.value;
    }
  } finally {
    if (!ended) await rest.return?.();
  }
}

function gunzip(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  // Node's own class goes on with the next member of a file, and ends at zero padding.
  return through(createGunzip({ chunkSize: 256 * 1024 }), input, 'gzip');
}

/**
 * Chunks of `input` through a transform of node:zlib. Its errors become ERR_BAD_COMPRESSION; those of the input come
 * through unchanged. Input behind the end of the compressed data is read and dropped.
 */
export async function* through(
  transform: Transform,
  input: AsyncIterable<Buffer>,
  format: string,
): AsyncGenerator<Buffer> {
  let inputError: { error: unknown } | undefined;
  let closed = false;
  transform.once('close', () => (closed = true));
  const feed = async (): Promise<void> => {
    try {
      for await (const chunk of input) {
        if (closed || transform.readableEnded) continue;
        if (!transform.write(chunk)) await room(transform);
      }
      if (!closed) transform.end();
    } catch (error) {
      inputError = { error };
      transform.destroy(error instanceof Error ? error : new Error('the input failed'));
    }
  };
  const feeding = feed();
  try {
    for await (const chunk of transform) yield chunk as Buffer;
    await feeding;
  } catch (error) {
    if (inputError !== undefined) throw inputError.error;
    throw compressionError(error, format);
  } finally {
    transform.destroy();
  }
  if (inputError !== undefined) throw inputError.error;
}

function room(transform: Transform): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['drain', 'end', 'close']) transform.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'end', 'close']) transform.on(event, done);
  });
}

/** ERR_BAD_COMPRESSION for an error of a decompressor. */
export function compressionError(error: unknown, format: string): unknown {
  if (error instanceof LayerStoreError || !(error instanceof Error)) return error;
  return new LayerStoreError(
    'ERR_BAD_COMPRESSION',
    `cannot decompress the ${format} data: ${error.message}; it is damaged or truncated`,
    {
      cause: error,
    },
  );
}
