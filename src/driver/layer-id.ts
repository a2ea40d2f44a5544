import { LayerStoreError } from '../errors.js';

const LAYER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** Whether `text` can name a layer's directory: what Docker's own readers accept. */
export function isLayerID(text: string): boolean {
  return LAYER_ID.test(text);
}

/** Throws ERR_INVALID_ARGUMENT unless `id` can name a layer's directory and is none of the names a driver keeps for itself. */
export function checkLayerID(id: string, reserved?: string): void {
  if (typeof id === 'string' && LAYER_ID.test(id) && id !== reserved) return;
  throw new LayerStoreError(
    'ERR_INVALID_ARGUMENT',
    `${JSON.stringify(id)} cannot name a layer's directory: give 1 to 128 of A-Z a-z 0-9 _ . -, beginning with a letter or digit` +
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
