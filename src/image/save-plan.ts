/** What is saved, apart from where to; and who hears of it. */
import type { DiffID } from '../digest.js';
import type { Layer } from '../store/types.js';
import type { ConfigBlob } from './config.js';
import type { LayerProgress } from './layer-writer.js';
import type { Compression } from './manifest-json.js';
import type { ImageName } from '../registry/reference.js';
import type { SaveProgressListener } from './types.js';

/** What is written, wherever it goes. */
export interface SavePlan {
  readonly config: ConfigBlob;
  readonly name: ImageName | undefined;
  /** Base first. */
  readonly layers: readonly Layer[];
  readonly format: 'docker' | 'oci';
  readonly compression: Compression;
  /** On disk when it is done. */
  readonly sync: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: SaveProgressListener | undefined;
}

/** Layers by diff id: one that comes twice is written once. */
export function distinctLayers(layers: readonly Layer[]): Map<DiffID, Layer> {
  return new Map(layers.map((layer) => [layer.diffID, layer]));
}

/** The listener's part for one layer, and the signal. */
export async function layerProgress(plan: SavePlan, layer: Layer): Promise<LayerProgress> {
  const { config, layers, signal, onProgress } = plan;
  signal?.throwIfAborted();
  if (onProgress === undefined) return { signal };
  const about = {
    image: config.id,
    diffID: layer.diffID,
    layer: layers.findIndex(({ diffID }) => diffID === layer.diffID),
    layers: layers.length,
    totalBytes: await layer.tarSize(),
  };
  onProgress({ ...about, bytesWritten: 0 });
  return { signal, onBytes: (bytesWritten) => onProgress({ ...about, bytesWritten }) };
}
