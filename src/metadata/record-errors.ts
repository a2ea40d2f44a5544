/** The one sentence for a record that cannot be used. */
import { LayerStoreError } from '../errors.js';

export function corrupt(who: string, flaw: string, path?: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `the record of ${who} is damaged: ${flaw}; verify says more, repair or registering it again puts it right`,
    { ...(path === undefined ? {} : { path }), ...(cause === undefined ? {} : { cause }) },
  );
}
