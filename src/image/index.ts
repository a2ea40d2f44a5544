/** Images: the public names of this room. */
import type { RegistryOptions } from '../registry/types.js';
import type { Store } from '../store/types.js';
import { DockerImages } from './images.js';
import type { Images } from './types.js';

export type { RegistryCredentials, RegistryHost, RegistryOptions } from '../registry/types.js';
export type {
  AnalyzedFile,
  BlobProgress,
  ContainerConfig,
  CreateImageOptions,
  DuplicateContent,
  HistoryEntry,
  Image,
  ImageAnalysis,
  ImageConfig,
  ImageLimits,
  ImageProgress,
  ImageProgressListener,
  Images,
  LayerAnalysis,
  LoadOptions,
  PullOptions,
  PullProgressListener,
  PushOptions,
  PushProgressListener,
  SaveOptions,
  SaveProgress,
  SaveProgressListener,
  WastedPath,
} from './types.js';

const opened = new WeakMap<Store, Promise<Images>>();

/**
 * The images recorded under a store's root, in Docker's own format; from now on they are references for gc. Asked twice
 * for one store it gives the same object, with the options of the first time. A record that cannot be taken is left out and told by `problems()`.
 *
 * ```ts
 * const images = await openImages(store);
 * const [image] = await images.load({ path: 'debian.tar' });
 * const layer = await store.createRWLayer('box', image.chainID);
 * ```
 */
export function openImages(store: Store, options: { registry?: RegistryOptions } = {}): Promise<Images> {
  const before = opened.get(store);
  if (before !== undefined) return before;
  const images = DockerImages.open(store, options.registry);
  opened.set(store, images);
  // A failure is not kept, so that asking again can do better.
  images.catch(() => opened.delete(store));
  return images;
}
