/** Loading: files are opened, planned, unpacked; only when all of it is good is anything handed back to be recorded. */
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { releaseAndLog } from '../store/log.js';
import type { Layer, Store } from '../store/types.js';
import type { ConfigBlob } from './config.js';
import { planDocker, planLegacy } from './docker-plan.js';
import { LayerStoreError } from '../errors.js';
import { invalidArgument, overLimit } from './errors.js';
import type { ImageFiles } from './image-files.js';
import type { Keeper } from './kept-chains.js';
import { archiveLimits, type ArchiveLimits } from './limits.js';
import { planOci } from './oci-plan.js';
import { openFiles } from './open-files.js';
import { mergeImages, noImage, type Offer, type Plan } from './plan.js';
import { parsePlatform, type Platform } from './platform.js';
import type { ImageName } from '../registry/reference.js';
import type { LoadOptions } from './types.js';
import { Unpacker } from './unpack.js';
import type { Digest } from '../digest.js';

/** An image whose layers are in the store, kept by `layer`, and that no record names yet. */
export interface LoadedImage {
  readonly config: ConfigBlob;
  readonly names: readonly ImageName[];
  readonly layer: Layer | undefined;
  readonly parent?: Digest;
}

/** @param record takes the handles over; where it throws they are released like those of a failed load */
export async function loadImages<T>(
  store: Store,
  source: { path: string } | Readable,
  options: LoadOptions,
  keeper: Keeper,
  record: (images: readonly LoadedImage[]) => Promise<T>,
): Promise<T> {
  const { signal } = options;
  signal?.throwIfAborted();
  const wanted = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const limits = archiveLimits(options.limits);
  const loaded: LoadedImage[] = [];
  try {
    const files = await openFiles(source, { limits, spoolDirectory: join(store.root, 'layerstore'), signal });
    try {
      const plan = await makePlan(files, wanted, limits);
      const unpacker = new Unpacker(store, files, options, keeper);
      if ('images' in plan) {
        for (const { config } of plan.images) refuseForeign(config);
        files.expectOnly(unpacker.needed(plan.images));
        for (const image of plan.images) {
          signal?.throwIfAborted();
          loaded.push({ ...image, layer: await unpacker.image(image) });
        }
      } else {
        for (const image of plan.legacy) loaded.push({ names: image.names, ...(await unpacker.legacy(image, limits)) });
      }
      await files.finish();
    } finally {
      await files.close();
    }
    signal?.throwIfAborted();
    return await record(loaded);
  } catch (error) {
    for (const { layer } of loaded.reverse()) if (layer !== undefined) await releaseAndLog(store, layer);
    // Whatever else an abort broke on its way, the caller's reason is why.
    signal?.throwIfAborted();
    throw error;
  }
}

async function makePlan(files: ImageFiles, wanted: Platform | undefined, limits: ArchiveLimits): Promise<Plan> {
  const first = await files.firstOf(['index.json', 'manifest.json']);
  if (first === undefined) {
    if (wanted !== undefined && (await files.firstOf(['repositories'])) !== undefined)
      throw invalidArgument(`${files.title} is of a form that knows no platforms; load it without one`);
    return { legacy: await planLegacy(files, limits) };
  }
  const offers: Offer[] = [];
  if (first === 'manifest.json') {
    offers.push(await planDocker(files, wanted, limits));
  } else {
    const index = await planOci(files, wanted, limits);
    offers.push(index);
    const docker =
      index.images.length > 0
        ? await files.isNear('manifest.json')
        : (await files.firstOf(['manifest.json'])) !== undefined;
    if (docker)
      offers.push(await planDocker(files, wanted, limits, new Set(index.images.map(({ config }) => config.id))));
  }
  const images = mergeImages(offers.flatMap((offer) => offer.images));
  const platforms = new Set(offers.flatMap((offer) => offer.platforms));
  if (images.length > limits.maxImages)
    throw overLimit(`${files.title} with its ${images.length} images`, 'maxImages', limits.maxImages);
  if (images.length > 0) return { images };
  throw noImage(files.title, `its "${first}"`, wanted, platforms);
}

export function refuseForeign({ id, platform }: ConfigBlob): void {
  if (platform === undefined || platform.os === 'linux') return;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `image ${id} is for ${JSON.stringify(platform.os)}; only Linux images are kept here`,
  );
}
