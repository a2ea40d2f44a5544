/** What is saved, apart from where to; and who hears of it. */
import type { DiffID } from '../digest.js';
import type { Layer } from '../store/types.js';
import type { ConfigBlob } from './config.js';
import type { LayerProgress } from './layer-writer.js';
import type { Compression } from './manifest-json.js';
import type { ImageName } from '../registry/reference.js';
import type { SaveProgressListener } from './types.js';

/** One image of what is written. */
export interface SavedImage {
  readonly config: ConfigBlob;
  /** Names that it is saved under; none for one that was asked for by its id. */
  readonly names: readonly ImageName[];
  /** Base first. */
  readonly layers: readonly Layer[];
}

/** What is written, wherever it goes. */
export interface SavePlan {
  /** Each image once, whatever the number of its names. */
  readonly images: readonly SavedImage[];
  readonly format: 'docker' | 'oci';
  readonly compression: Compression;
  /** On disk when it is done. */
  readonly sync: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: SaveProgressListener | undefined;
}

/** The layers of all images by diff id: one that comes twice is written once. */
export function distinctLayers(images: readonly SavedImage[]): Map<DiffID, Layer> {
  return new Map(images.flatMap(({ layers }) => layers.map((layer) => [layer.diffID, layer])));
}

/** The listener's part for one layer, told as one of the first image that has it; and the signal. */
export async function layerProgress(plan: SavePlan, layer: Layer): Promise<LayerProgress> {
  const { images, signal, onProgress } = plan;
  signal?.throwIfAborted();
  const position = ({ layers }: SavedImage): number => layers.findIndex(({ diffID }) => diffID === layer.diffID);
  const image = images.find((each) => position(each) !== -1);
  if (onProgress === undefined || image === undefined) return { signal };
  const about = {
    image: image.config.id,
    diffID: layer.diffID,
    layer: position(image),
    layers: image.layers.length,
    totalBytes: await layer.tarSize(),
  };
  onProgress({ ...about, bytesWritten: 0 });
  return { signal, onBytes: (bytesWritten) => onProgress({ ...about, bytesWritten }) };
}
