/**
 * Loading: an archive or a layout is opened and planned, and its layers go into the store, those that are missing side by
 * side. Only when all of it is good is anything handed over to be recorded; what was there before stays in any case.
 */
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { Progress, UnpackLimits } from '../engine/engine.js';
import { invalidArgument, LayerStoreError } from '../errors.js';
import type { ImageName } from '../registry/reference.js';
import { releaseAndLog } from '../store/log.js';
import type { ChainLink, Layer, Store } from '../store/types.js';
import { quote } from '../util/quote.js';
import { chainIDs, legacyConfig, readConfig, type ConfigBlob } from './config.js';
import { planDocker, planLegacy } from './docker-plan.js';
import { layerError, overLimit } from './errors.js';
import type { ImageFiles } from './image-files.js';
import { archiveLimits, layerLimits, type ArchiveLimits } from './limits.js';
import { planOci } from './oci-plan.js';
import { openFiles } from './open-files.js';
import { mergeImages, noImage, type LegacyImage, type Offer, type Plan, type PlannedImage } from './plan.js';
import { parsePlatform, type Platform } from './platform.js';
import type { ImageProgress, LoadOptions } from './types.js';
import { defined } from '../util/defined.js';

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
  pins: LoadPins,
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
      const unpacker = new Unpacker(store, files, options, pins);
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
    `image ${id} is for ${quote(platform.os)}; only Linux images are kept here`,
  );
}

const NOTHING_READ: Progress = { bytesRead: 0, bytesUnpacked: 0, entries: 0 };

/** Brings a planned image's layers into the store: those that are there are kept, the others go in side by side. */
export class Unpacker {
  readonly #store: Store;
  readonly #files: Pick<ImageFiles, 'blob'>;
  readonly #options: LoadOptions;
  readonly #pins: LoadPins;

  constructor(store: Store, files: Pick<ImageFiles, 'blob'>, options: LoadOptions, pins: LoadPins) {
    this.#store = store;
    this.#files = files;
    this.#options = options;
    this.#pins = pins;
  }

  /** The blobs that will be read for these images, each as often as it will be. */
  needed(images: readonly PlannedImage[]): string[] {
    const there = new Set<ChainID>(this.#store.map().keys());
    const files: string[] = [];
    for (const { config, layers } of images) {
      const chains = chainIDs(config.diffIDs);
      const missing = layers.slice(presentCount(chains, (chain) => there.has(chain)));
      files.push(...missing.map(({ file }) => file));
      for (const chain of chains) there.add(chain);
    }
    return files;
  }

  /** A handle on the top layer; undefined for an image without layers. */
  async image({ config, layers }: PlannedImage): Promise<Layer | undefined> {
    const chains = chainIDs(config.diffIDs);
    const base = await this.#holdPresent(chains);
    const present = base === undefined ? 0 : chains.indexOf(base.chainID) + 1;
    const reports = layers.map(({ diffID }, index) => this.#reporter(config.id, diffID, index, layers.length));
    for (let index = 0; index < present; index++) reports[index]?.('present', NOTHING_READ);
    if (present === layers.length) return base;
    try {
      const links: ChainLink[] = [];
      for (const [index, { diffID, file, descriptor }] of layers.entries()) {
        if (index < present) continue;
        const tar = await this.#files.blob(file, descriptor?.size);
        const onProgress = (progress: Progress): void => reports[index]?.('unpacking', progress);
        links.push({ tar, diffID, onProgress, ...defined({ descriptor }) });
      }
      const top = await this.#store.registerChain(links, base?.chainID, this.#registerOptions());
      for (let index = present; index < layers.length; index++) reports[index]?.('done');
      return top;
    } catch (error) {
      throw layerError(error);
    } finally {
      // The new layers hold their parents; on failure the pins leave the base as it was.
      if (base !== undefined) await releaseAndLog(this.#store, base);
    }
  }

  /** Layer by layer, since what each one's diff id is shows only when it was read. */
  async legacy(image: LegacyImage, limits: ArchiveLimits): Promise<{ config: ConfigBlob; layer: Layer | undefined }> {
    const diffIDs: DiffID[] = [];
    let top: Layer | undefined;
    try {
      for (const { file } of image.layers) {
        const layer = await this.#store.register(
          await this.#files.blob(file, undefined),
          top?.chainID,
          this.#registerOptions(),
        );
        this.#pins.keep(layer.chainID);
        if (top !== undefined) await this.#store.release(top);
        top = layer;
        diffIDs.push(layer.diffID);
      }
      const config = readConfig(
        legacyConfig(
          image.layers.map(({ json }) => json),
          diffIDs,
        ),
        limits,
      );
      diffIDs.forEach((diffID, index) =>
        this.#reporter(config.id, diffID, index, diffIDs.length)('done', NOTHING_READ),
      );
      return { config, layer: top };
    } catch (error) {
      if (top !== undefined) await releaseAndLog(this.#store, top);
      throw layerError(error);
    }
  }

  #registerOptions(): { signal?: AbortSignal; limits?: UnpackLimits } {
    const { signal, limits } = this.#options;
    return {
      ...defined({ signal, limits: limits && layerLimits(limits) }),
    };
  }

  /** A handle on the topmost of `chains` that the store has. */
  async #holdPresent(chains: readonly ChainID[]): Promise<Layer | undefined> {
    const there = this.#store.map();
    const count = presentCount(chains, (chain) => there.has(chain));
    if (count === 0) return undefined;
    const chain = chains[count - 1] as ChainID;
    this.#pins.keep(chain);
    return this.#store.get(chain);
  }

  #reporter(
    image: Digest,
    diffID: DiffID,
    layer: number,
    layers: number,
  ): (status: ImageProgress['status'], progress?: Progress) => void {
    const { onProgress } = this.#options;
    let last = NOTHING_READ;
    return (status, progress = last) => {
      last = progress;
      onProgress?.({ ...progress, image, diffID, layer, layers, status });
    };
  }
}

/** How many of `chains`, base first, are there. A layer that is there has its parents, so the topmost decides. */
function presentCount(chains: readonly ChainID[], has: (chain: ChainID) => boolean): number {
  return chains.findLastIndex(has) + 1;
}

/**
 * Layers that were there before a load, that it builds on, and that must be there after it also where it fails and
 * nobody else refers to them. As a reference source they outlast the load's own handles without becoming anybody's.
 */
export class PinnedChains {
  readonly #loads = new Set<LoadPins>();

  /** @param before what was there when the load began; nothing else is kept */
  begin(before: Iterable<ChainID>): LoadPins {
    const pins = new LoadPins(new Set(before), () => this.#loads.delete(pins));
    this.#loads.add(pins);
    return pins;
  }

  /** For `Store.addReferenceSource`. */
  chains(): Iterable<ChainID> {
    return [...this.#loads].flatMap(({ kept }) => [...kept]);
  }
}

/** Those of one load. */
export class LoadPins {
  readonly kept = new Set<ChainID>();
  readonly #before: ReadonlySet<ChainID>;
  readonly end: () => void;

  constructor(before: ReadonlySet<ChainID>, end: () => void) {
    this.#before = before;
    this.end = end;
  }

  keep(chain: ChainID): void {
    if (this.#before.has(chain)) this.kept.add(chain);
  }
}
