import type { EngineFeatures } from './engine.js';
import { openEngine } from './select.js';

/**
 * What an engine found on this machine: kernel, mount calls, codecs. What is slower or missing says why.
 * `ERR_NOT_SUPPORTED` where `native` is asked for and the addon does not load; `ERR_INVALID_ARGUMENT` for other words.
 *
 * @example
 * ```ts
 * const features = await engineFeatures();
 * console.log(features);
 * ```
 */
export async function engineFeatures(engine: 'native' | 'js' | 'auto' = 'auto'): Promise<EngineFeatures> {
  return (await openEngine({ engine })).features();
}
