/** What every driver here is opened with, and the ids that it is called with. */
import type { Engine, Privilege } from '../engine/engine.js';
import { invalidArgument, LayerStoreError } from '../errors.js';
import type { LoggerLike } from '../util/logger.js';
import { isPlainName, PLAIN_NAME_RULE } from '../util/plain-name.js';
import { formatValue } from '../util/quote.js';

export interface DriverContext {
  /** The store's root, absolute. */
  readonly root: string;
  readonly engine: Engine;
  /** `strict`: what a driver resolved survives a power cut, as `GraphDriver` says for each method. */
  readonly durability: 'strict' | 'relaxed';
  /** Writes nothing and mounts nothing. */
  readonly readOnly: boolean;
  /** Mounts a `volatile` RW layer that another boot left unclean. */
  readonly acceptVolatile: boolean;
  readonly logger: LoggerLike;
  /** What the layers of this root are made with. */
  readonly privilege: Privilege;
  /** This process is outside of the user namespace that made the layers: owners on disk are not those of the records. */
  readonly ownersShifted: boolean;
  /** Why this driver was chosen, for `status()`. */
  readonly reason: string;
}

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
