/** What a load will do, before it does it: images with their checked configurations, and where each layer lies. */
import type { DiffID, Digest } from '../digest.js';
import type { LayerStoreError } from '../errors.js';
import { invalidArgument } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import type { ConfigBlob } from './config.js';
import { badImage } from './errors.js';
import { formatPlatform, type Platform } from './platform.js';
import type { ImageName } from '../registry/reference.js';

export interface PlannedLayer {
  readonly diffID: DiffID;
  /** Name of the blob among the image's files. */
  readonly file: string;
  /** What the blob's bytes must be. */
  readonly descriptor?: Descriptor;
}

export interface PlannedImage {
  readonly config: ConfigBlob;
  readonly names: readonly ImageName[];
  /** Base first; as many as the configuration has diff ids. */
  readonly layers: readonly PlannedLayer[];
  /** Id of the image it was built on, where the archive says so. */
  readonly parent?: Digest;
}

/** An image of an archive from before manifests: its layers have no digests until they are read. */
export interface LegacyImage {
  readonly names: readonly ImageName[];
  /** Base first. */
  readonly layers: readonly { readonly json: Readonly<Record<string, unknown>>; readonly file: string }[];
}

export type Plan = { readonly images: readonly PlannedImage[] } | { readonly legacy: readonly LegacyImage[] };

/** What an index or a manifest.json offers for the platform that is wanted. */
export interface Offer {
  readonly images: readonly PlannedImage[];
  /** Every platform that was looked at, for an error that says what there is. */
  readonly platforms: readonly string[];
}

/** ERR_BAD_IMAGE unless a manifest names as many layers as the configuration. */
export function checkLayerCount(config: ConfigBlob, layers: number): void {
  if (config.diffIDs.length === layers) return;
  throw badImage(
    `image ${config.id} has ${layers} layers, but its configuration names ${config.diffIDs.length} diff ids`,
  );
}

/** One image under several names is one image. */
export function mergeImages(images: readonly PlannedImage[]): PlannedImage[] {
  const merged = new Map<Digest, PlannedImage>();
  for (const image of images) {
    const before = merged.get(image.config.id);
    merged.set(image.config.id, before === undefined ? image : { ...before, names: [...before.names, ...image.names] });
  }
  return [...merged.values()];
}

/** @param list what should name one: `its index` */
export function noImage(
  title: string,
  list: string,
  wanted: Platform | undefined,
  offered: ReadonlySet<string>,
): LayerStoreError {
  if (wanted !== undefined && offered.size > 0)
    return invalidArgument(`${title} has no image for ${formatPlatform(wanted)}; it has ${[...offered].join(', ')}`);
  return badImage(`${title} holds no image: ${list} names none`);
}
