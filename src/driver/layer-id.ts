import { invalidArgument, LayerStoreError } from '../errors.js';
import { isPlainName, PLAIN_NAME_RULE } from '../util/plain-name.js';
import { formatValue } from '../util/quote.js';

/** Whether `text` can name a layer's directory: what Docker's own readers accept. */
export function isLayerID(text: string): boolean {
  return isPlainName(text);
}

/** Throws ERR_INVALID_ARGUMENT unless `id` can name a layer's directory and is none of the names a driver keeps for itself. */
export function checkLayerID(id: string, reserved?: string): void {
  if (isPlainName(id) && id !== reserved) return;
  throw invalidArgument(
    `${formatValue(id)} cannot name a layer's directory: give ${PLAIN_NAME_RULE}` +
      (id === reserved ? `; "${reserved}" itself is taken` : ''),
  );
}

/** The error for an id that has no directory. */
export function noSuchLayer(id: string, home: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_DOES_NOT_EXIST',
    `there is no layer directory "${id}" in "${home}": it was removed, or never made there`,
  );
}
