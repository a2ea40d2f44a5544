/** One image in memory: what its record says, and the handle that keeps its layers. */
import { createChainID, type ChainID } from '../digest.js';
import type { Layer } from '../store/types.js';
import type { ConfigBlob } from './config.js';
import type { Image } from './types.js';

export interface ImageRecord {
  readonly config: ConfigBlob;
  /** The handle of this image on its top layer; absent for an image without layers, and in a read-only store. */
  readonly layer: Layer | undefined;
  readonly size: number;
}

/** Undefined where an image has no layers. */
export function topChain(config: ConfigBlob): ChainID | undefined {
  return createChainID(config.diffIDs);
}

/** @param names as repositories.json has them: with tags and with digests */
export function describeImage({ config, size }: ImageRecord, names: readonly string[]): Image {
  return Object.freeze({
    id: config.id,
    names: Object.freeze(names.filter((name) => !name.includes('@'))),
    digests: Object.freeze(names.filter((name) => name.includes('@'))),
    chainID: topChain(config),
    diffIDs: config.diffIDs,
    config: config.parsed,
    rawConfig: config.raw,
    size,
  });
}

/** In order of first name in byte order; images without one last, by id. */
export function compareImages(a: Image, b: Image): number {
  const key = ({ id, names }: Image): string => (names[0] === undefined ? `1${id}` : `0${names[0]}`);
  return key(a) < key(b) ? -1 : 1;
}
