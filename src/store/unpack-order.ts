/** In which order the layers of a chain begin to unpack, where they need not be read in the order of the chain. */
import { isFile } from './source.js';
import type { ChainLink } from './types.js';

/**
 * Indexes of `links`, largest blob first, so that no large layer is left to be unpacked alone at the end. Streams may come
 * from one archive that is read front to back, and a file without known size says nothing: then the order is as given.
 */
export function unpackOrder(links: readonly ChainLink[]): number[] {
  const sizes = links.map(sizeOf);
  const order = [...links.keys()];
  return sizes.every((size) => size !== undefined)
    ? order.sort((a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0) || a - b)
    : order;
}

function sizeOf({ tar, descriptor }: ChainLink): number | undefined {
  if (!isFile(tar)) return undefined;
  return tar.length ?? descriptor?.size;
}
