/** Chooses an engine: the addon where it loads, else pure JavaScript. */
import { invalidArgument, LayerStoreError } from '../errors.js';
import { formatValue } from '../util/quote.js';
import type { Engine } from './engine.js';

/** The part of a logger that is used here. */
export interface LoggerLike {
  warn(fields: object, message: string): void;
}

/** Options of {@link openEngine}. */
export interface OpenEngineOptions {
  /** Default `auto`. */
  engine?: 'native' | 'js' | 'auto';
  logger?: LoggerLike;
}

/** Set to `1`, it makes {@link openEngine} behave as where no addon was built. */
export const HIDE_ADDON_VARIABLE = 'LAYERSTORE_HIDE_ADDON';

/**
 * Opens an engine.
 *
 * `native`: the addon, or ERR_NOT_SUPPORTED that says why it does not load. `js`: the pure-JavaScript path.
 * `auto`: native, else JavaScript, said once through `logger.warn`. Anything else: ERR_INVALID_ARGUMENT.
 * An engine has no state to close. `openStore` opens its own; this one is for drivers, and for work without a store.
 *
 * @example
 * ```ts
 * const engine = await openEngine({ engine: 'js' });
 * console.log((await engine.hashFile('layer.tar')).diffID);
 * ```
 */
export async function openEngine(options: OpenEngineOptions = {}): Promise<Engine> {
  const wanted = options.engine ?? 'auto';
  switch (wanted) {
    case 'native':
      return loadNative();
    case 'js':
      return loadJs();
    case 'auto':
      try {
        return await loadNative();
      } catch (error) {
        if (!LayerStoreError.is(error, 'ERR_NOT_SUPPORTED')) throw error;
        options.logger?.warn(
          { engine: 'js', reason: error.message },
          `using the pure-JavaScript engine: ${error.message}`,
        );
        return loadJs();
      }
    default:
      throw invalidArgument(`unknown engine ${formatValue(wanted)}: give "native", "js" or "auto"`);
  }
}

async function loadNative(): Promise<Engine> {
  if (process.env[HIDE_ADDON_VARIABLE] === '1') {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `the native engine is hidden by ${HIDE_ADDON_VARIABLE}=1; unset it, or choose the engine "js"`,
    );
  }
  const { loadNativeEngine } = await import('./native/index.js');
  return loadNativeEngine();
}

// Each engine is imported only where it is used: the other's modules cost start-up time and memory.
async function loadJs(): Promise<Engine> {
  const { createJsEngine } = await import('./js/index.js');
  return createJsEngine();
}
