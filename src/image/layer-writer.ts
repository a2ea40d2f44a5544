/** Writes layers into files, byte for byte or compressed: the engine does both without passing through here. */
import type { Layer } from '../store/types.js';
import type { Blob, Compression } from './manifest-json.js';

export interface LayerProgress {
  signal?: AbortSignal | undefined;
  /** Bytes of the layer's tar so far. */
  onBytes?: ((bytes: number) => void) | undefined;
}

/** Appends a layer to the file behind `fd`, where that stands. */
export async function writeLayer(
  layer: Layer,
  fd: number,
  compression: Compression,
  { signal, onBytes }: LayerProgress = {},
): Promise<Blob> {
  const { bytes, diffID, blob } = await layer.exportTo(
    { fd },
    {
      ...(compression === 'none' ? {} : { compression }),
      ...(signal === undefined ? {} : { signal }),
      ...(onBytes === undefined ? {} : { onProgress: ({ bytesRead }) => onBytes(bytesRead) }),
    },
  );
  onBytes?.(bytes);
  return blob ?? { digest: diffID, size: bytes };
}
