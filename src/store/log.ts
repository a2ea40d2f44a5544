/** Release at the end of a program's interest, where a failure is for the log and not for the caller. */
import { errorFields } from '../util/logger.js';
import type { Layer, LayerMetadata, Logger, Store } from './types.js';

/** Writes one line for each layer that a release removed: chain id, diff id, sizes in bytes. */
export function logReleaseMetadata(metadata: readonly LayerMetadata[], logger: Logger): void {
  for (const { chainID, diffID, size, diffSize } of metadata) {
    logger.info({ chainID, diffID, size, diffSize }, 'layer removed');
  }
}

/**
 * Releases a handle and never throws: what was removed and what failed goes to `logger`, by default the console's
 * warnings alone.
 */
export async function releaseAndLog(store: Store, layer: Layer, logger?: Logger): Promise<void> {
  try {
    const removed = await store.release(layer);
    if (logger !== undefined) logReleaseMetadata(removed, logger);
  } catch (error) {
    const fields = { chainID: chainOf(layer), ...errorFields(error) };
    if (logger !== undefined) logger.error(fields, 'cannot release a layer');
    else console.warn('layerstore: cannot release a layer', fields);
  }
}

function chainOf(layer: unknown): unknown {
  return typeof layer === 'object' && layer !== null && 'chainID' in layer ? layer.chainID : undefined;
}
