/** Brings a planned image's layers into the store: those that are there are kept, the others go in side by side. */
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { Progress, UnpackLimits } from '../engine/engine.js';
import { releaseAndLog } from '../store/log.js';
import type { ChainLink, Layer, Store } from '../store/types.js';
import { chainIDs, readConfig, type ConfigBlob } from './config.js';
import { layerError } from './errors.js';
import type { ImageFiles } from './image-files.js';
import type { Keeper } from './kept-chains.js';
import { legacyConfig } from './legacy-config.js';
import { layerLimits, type ArchiveLimits } from './limits.js';
import type { LegacyImage, PlannedImage } from './plan.js';
import type { ImageProgress, LoadOptions } from './types.js';

const NOTHING_READ: Progress = { bytesRead: 0, bytesUnpacked: 0, entries: 0 };

export class Unpacker {
  readonly #store: Store;
  readonly #files: Pick<ImageFiles, 'blob'>;
  readonly #options: LoadOptions;
  readonly #keeper: Keeper;

  constructor(store: Store, files: Pick<ImageFiles, 'blob'>, options: LoadOptions, keeper: Keeper) {
    this.#store = store;
    this.#files = files;
    this.#options = options;
    this.#keeper = keeper;
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
        links.push({ tar, diffID, onProgress, ...(descriptor === undefined ? {} : { descriptor }) });
      }
      const top = await this.#store.registerChain(links, base?.chainID, this.#registerOptions());
      for (let index = present; index < layers.length; index++) reports[index]?.('done');
      return top;
    } catch (error) {
      throw layerError(error);
    } finally {
      // The new layers hold their parents; on failure the keeper leaves the base as it was.
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
        this.#keeper.keep(layer.chainID);
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
      ...(signal === undefined ? {} : { signal }),
      ...(limits === undefined ? {} : { limits: layerLimits(limits) }),
    };
  }

  /** A handle on the topmost of `chains` that the store has. */
  async #holdPresent(chains: readonly ChainID[]): Promise<Layer | undefined> {
    const there = this.#store.map();
    const count = presentCount(chains, (chain) => there.has(chain));
    if (count === 0) return undefined;
    const chain = chains[count - 1] as ChainID;
    this.#keeper.keep(chain);
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
