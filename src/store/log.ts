/** Release at the end of a program's interest, where a failure is for the log and not for the caller. */
import { errorFields, silentLogger, type LoggerLike } from '../util/logger.js';
import type { Layer, LayerMetadata, Logger, Store } from './types.js';

/**
 * Writes one line at level `info` for each layer that a release removed: chain id, diff id, `size` and `diffSize` in bytes.
 *
 * @example
 * ```ts
 * logReleaseMetadata(await store.release(layer), console);
 * ```
 */
export function logReleaseMetadata(metadata: readonly LayerMetadata[], logger: Logger): void {
  for (const { chainID, diffID, size, diffSize } of metadata) {
    logger.info({ chainID, diffID, size, diffSize }, 'layer removed');
  }
}

const loggers = new WeakMap<Store, LoggerLike>();

/** Notes the logger that a store was opened with. */
export function noteLogger(store: Store, logger: LoggerLike): void {
  loggers.set(store, logger);
}

/**
 * Releases a handle and never throws: what was removed and what failed goes to `logger`, by default the one that the
 * store was opened with.
 *
 * @example
 * ```ts
 * await releaseAndLog(store, layer, console); // one line a removed layer
 * await releaseAndLog(store, layer, console); // a line at level `error`: it was released already
 * ```
 */
export async function releaseAndLog(store: Store, layer: Layer, logger?: Logger): Promise<void> {
  const log = logger ?? loggers.get(store) ?? silentLogger;
  try {
    logReleaseMetadata(await store.release(layer), log);
  } catch (error) {
    log.error({ chainID: chainOf(layer), ...errorFields(error) }, 'cannot release a layer');
  }
}

function chainOf(layer: unknown): unknown {
  return typeof layer === 'object' && layer !== null && 'chainID' in layer ? layer.chainID : undefined;
}
