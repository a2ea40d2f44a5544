import type { EngineFeatures } from './engine.js';
import { openEngine } from './select.js';

/** What an engine found on this machine: kernel, mount calls, codecs. What is slower or missing says why. */
export async function engineFeatures(engine: 'native' | 'js' | 'auto' = 'auto'): Promise<EngineFeatures> {
  return (await openEngine({ engine })).features();
}
