/** What is saved, apart from where to. */
import type { DiffID } from '../digest.js';
import type { Layer } from '../store/types.js';
import type { ImageConfig } from './config.js';
import type { Compression } from './manifest-json.js';
import type { ImageName } from './reference.js';

/** What is written, wherever it goes. */
export interface SavePlan {
  readonly config: ImageConfig;
  readonly name: ImageName | undefined;
  /** Base first. */
  readonly layers: readonly Layer[];
  readonly format: 'docker' | 'oci';
  readonly compression: Compression;
  readonly signal: AbortSignal | undefined;
}

/** Layers by diff id: one that comes twice is written once. */
export function distinctLayers(layers: readonly Layer[]): Map<DiffID, Layer> {
  return new Map(layers.map((layer) => [layer.diffID, layer]));
}
