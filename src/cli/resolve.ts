/** What a person means by an argument: an RW layer's name, a chain id or a unique prefix of one, an image. */
import { invalidArgument } from '../errors.js';
import {
  LayerStoreError,
  parseChainID,
  type ChainID,
  type Image,
  type Images,
  type RWLayer,
  type RWLayerInfo,
  type Store,
} from '../index.js';

export type Target =
  { type: 'rw'; info: RWLayerInfo } | { type: 'layer'; chainID: ChainID } | { type: 'image'; image: Image };

export const TARGET_TYPES = ['rw', 'layer', 'image'] as const;
export type TargetType = (typeof TARGET_TYPES)[number];

/** A chain id in full, with or without `sha256:`, or a unique prefix of 8 digits or more. */
function findChainID(store: Store, text: string): ChainID | undefined {
  const digits = text.replace(/^sha256:/, '');
  if (!/^[a-f0-9]{8,64}$/.test(digits)) return undefined;
  if (digits.length === 64) {
    const chainID = parseChainID(`sha256:${digits}`);
    return store.map().has(chainID) ? chainID : undefined;
  }
  const found = [...store.map().keys()].filter((chainID) => chainID.startsWith(`sha256:${digits}`));
  if (found.length > 1) {
    throw invalidArgument(`"${text}" is ambiguous: ${found.length} layers begin with it; give more digits`);
  }
  return found[0];
}

async function findImage(images: Images, text: string): Promise<Image | undefined> {
  try {
    return await images.get(text);
  } catch (error) {
    // "No such image" is an answer here; anything else is a failure.
    if (LayerStoreError.is(error, 'ERR_IMAGE_DOES_NOT_EXIST') || LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT')) {
      return undefined;
    }
    throw error;
  }
}

/** An RW layer's name first, then a chain id or prefix, then an image; `type` narrows it to one of them. */
export async function findTarget(
  store: Store,
  openImages: () => Promise<Images>,
  text: string,
  type?: TargetType,
): Promise<Target | undefined> {
  const info = type === undefined || type === 'rw' ? store.mounts().get(text) : undefined;
  if (info !== undefined) return { type: 'rw', info };
  const chainID = type === undefined || type === 'layer' ? findChainID(store, text) : undefined;
  if (chainID !== undefined) return { type: 'layer', chainID };
  const image = type === undefined || type === 'image' ? await findImage(await openImages(), text) : undefined;
  return image === undefined ? undefined : { type: 'image', image };
}

/** As {@link findTarget}, but it has to be there. */
export async function resolveTarget(
  store: Store,
  openImages: () => Promise<Images>,
  text: string,
  type?: TargetType,
): Promise<Target> {
  const target = await findTarget(store, openImages, text, type);
  if (target !== undefined) return target;
  if (type === 'rw') throw noRWLayer(text);
  if (type === 'image') throw noImage(text);
  throw new LayerStoreError(
    'ERR_LAYER_DOES_NOT_EXIST',
    type === 'layer'
      ? `there is no layer "${text}" in this store: \`layerstore ls\` lists the layers`
      : `nothing here is called "${text}": no RW layer, no layer by chain id or unique prefix of 8 digits, no image`,
  );
}

/** The chain id of a layer, or of an image's top layer; undefined for an image without layers. */
export async function resolveChainID(
  store: Store,
  openImages: () => Promise<Images>,
  text: string,
): Promise<ChainID | undefined> {
  const target = await resolveTarget(store, openImages, text);
  if (target.type === 'layer') return target.chainID;
  if (target.type === 'image') return target.image.chainID;
  throw invalidArgument(
    `"${text}" is an RW layer: \`layerstore commit ${text}\` makes a layer of it, whose chain id can be given here`,
  );
}

/** An image by name, id, or the first digits of its id. */
export async function needImage(images: Images, text: string): Promise<Image> {
  const image = await findImage(images, text);
  if (image === undefined) throw noImage(text);
  return image;
}

/** A handle on an RW layer, and what the store says of it. */
export async function needRWLayer(store: Store, name: string): Promise<{ rw: RWLayer; info: RWLayerInfo }> {
  const info = store.mounts().get(name);
  if (info === undefined) throw noRWLayer(name);
  return { rw: await store.getRWLayer(name), info };
}

function noRWLayer(name: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_MOUNT_DOES_NOT_EXIST',
    `there is no RW layer named "${name}" in this store: \`layerstore ls\` lists the RW layers`,
  );
}

function noImage(text: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_IMAGE_DOES_NOT_EXIST',
    `there is no image "${text}" in this store: \`layerstore images\` lists the images`,
  );
}
