/** Compressed out: a tar's chunks as the bytes of a blob, hashed on the way into a descriptor. */
import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream/promises';
import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import type { Digest } from '../../digest.js';
import { LayerStoreError, systemError } from '../../errors.js';
import type { BlobCompression } from '../engine.js';
import * as fs from './fs.js';

const CHUNK = 256 * 1024;

/** Writes `chunks` compressed where the descriptor stands. ERR_NOT_SUPPORTED for zstd where the running Node has none. */
export async function compressTo(
  chunks: AsyncIterable<Uint8Array>,
  form: BlobCompression,
  fd: number,
  signal?: AbortSignal,
): Promise<{ digest: Digest; size: number }> {
  const hash = createHash('sha256');
  let size = 0;
  await pipeline(
    chunks,
    compressor(form),
    async (compressed: AsyncIterable<Uint8Array>) => {
      for await (const chunk of compressed) {
        hash.update(chunk);
        size += chunk.length;
        try {
          await fs.writeAll(fd, chunk);
        } catch (error) {
          throw systemError(error, 'write the compressed tar', 'check the space left and who reads it');
        }
      }
    },
    signal === undefined ? {} : { signal },
  );
  return { digest: `sha256:${hash.digest('hex')}`, size };
}

function compressor(form: BlobCompression): Transform {
  if (form === 'gzip') return zlib.createGzip({ chunkSize: CHUNK });
  // In Node since 22.15; unknown to the types of Node 20.
  const { createZstdCompress } = zlib as unknown as { createZstdCompress?: (options: object) => Transform };
  if (createZstdCompress === undefined) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `Node ${process.version} cannot write zstd by itself (22.15 and later can, and so can the native engine); choose "gzip" or "none"`,
    );
  }
  return createZstdCompress({ chunkSize: CHUNK });
}
