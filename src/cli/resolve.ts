/** What a person means by an argument: an RW layer's name, a chain id or a unique prefix of one, an image. */
import { LayerStoreError, parseChainID, type ChainID, type Image, type Images, type Store } from '../index.js';

export type Target =
  { type: 'rw'; name: string } | { type: 'layer'; chainID: ChainID } | { type: 'image'; image: Image };

const TYPES = ['rw', 'layer', 'image'] as const;
export type TargetType = (typeof TYPES)[number];

export function isTargetType(text: string): text is TargetType {
  return (TYPES as readonly string[]).includes(text);
}

/** A chain id in full, with or without `sha256:`, or a unique prefix of 8 digits or more. */
export function findChainID(store: Store, text: string): ChainID | undefined {
  const digits = text.replace(/^sha256:/, '');
  if (!/^[a-f0-9]{8,64}$/.test(digits)) return undefined;
  if (digits.length === 64) {
    const chainID = parseChainID(`sha256:${digits}`);
    return store.map().has(chainID) ? chainID : undefined;
  }
  const found = [...store.map().keys()].filter((chainID) => chainID.startsWith(`sha256:${digits}`));
  if (found.length > 1) {
    throw new LayerStoreError(
      'ERR_INVALID_ARGUMENT',
      `"${text}" is ambiguous: ${found.length} layers begin with it; give more digits`,
    );
  }
  return found[0];
}

/** As {@link findChainID}, but it has to be there. */
export function needChainID(store: Store, text: string): ChainID {
  const chainID = findChainID(store, text);
  if (chainID !== undefined) return chainID;
  throw new LayerStoreError(
    'ERR_LAYER_DOES_NOT_EXIST',
    `there is no layer "${text}" in this store: \`layerstore ls\` lists what is there`,
  );
}

async function findImage(images: Images, text: string): Promise<Image | undefined> {
  try {
    return await images.get(text);
  } catch (error) {
    // "No such image" is an answer here; anything else is a failure.
    if (LayerStoreError.is(error, 'ERR_LAYER_DOES_NOT_EXIST') || LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT')) {
      return undefined;
    }
    throw error;
  }
}

/** An RW layer's name first, then a chain id or prefix, then an image; `type` narrows it to one of them. */
export async function resolveTarget(
  store: Store,
  openImages: () => Promise<Images>,
  text: string,
  type?: TargetType,
): Promise<Target> {
  if ((type === undefined || type === 'rw') && store.mounts().has(text)) return { type: 'rw', name: text };
  if (type === undefined || type === 'layer') {
    const chainID = findChainID(store, text);
    if (chainID !== undefined) return { type: 'layer', chainID };
  }
  if (type === undefined || type === 'image') {
    const image = await findImage(await openImages(), text);
    if (image !== undefined) return { type: 'image', image };
  }
  const what = { rw: 'RW layer', layer: 'layer', image: 'image' };
  throw new LayerStoreError(
    type === 'rw' ? 'ERR_MOUNT_DOES_NOT_EXIST' : 'ERR_LAYER_DOES_NOT_EXIST',
    type === undefined
      ? `nothing here is called "${text}": it is no RW layer's name, no chain id or unique prefix of 8 digits, no image`
      : `there is no ${what[type]} "${text}" in this store`,
  );
}
