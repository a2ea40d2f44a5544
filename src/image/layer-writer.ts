/** Writes layers into files: byte for byte without passing through JavaScript, or compressed. */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { LayerStoreError } from '../errors.js';
import type { Layer } from '../store/types.js';
import type { Blob, Compression } from './manifest-json.js';
import { writeAll } from './tar-writer.js';

/** ERR_NOT_SUPPORTED where the running Node cannot write the form. */
export function checkCompression(compression: Compression): void {
  if (compression === 'zstd' && zstdCompressor() === undefined) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `Node ${process.version} cannot write zstd (22.15 and later can); choose "gzip" or "none"`,
    );
  }
}

/** Appends a layer's tar to a file at the file's own position. */
export async function writeLayer(
  layer: Layer,
  file: FileHandle,
  compression: Compression,
  signal?: AbortSignal,
): Promise<Blob> {
  if (compression === 'none') {
    const { bytes, diffID } = await layer.exportTo({ fd: file.fd });
    return { digest: diffID, size: bytes };
  }
  const hash = createHash('sha256');
  let size = 0;
  await pipeline(
    await layer.tarStream(),
    compressor(compression),
    async (compressed: AsyncIterable<Uint8Array>) => {
      for await (const chunk of compressed) {
        hash.update(chunk);
        size += chunk.length;
        await writeAll(file, chunk, null);
      }
    },
    signal === undefined ? {} : { signal },
  );
  return { digest: `sha256:${hash.digest('hex')}`, size };
}

function compressor(compression: 'gzip' | 'zstd'): Transform {
  const zstd = compression === 'zstd' ? zstdCompressor() : undefined;
  return zstd?.() ?? zlib.createGzip({ chunkSize: 256 * 1024 });
}

/** In Node since 22.15; unknown to the types of Node 20. */
function zstdCompressor(): (() => Transform) | undefined {
  return (zlib as unknown as { createZstdCompress?: () => Transform }).createZstdCompress;
}
