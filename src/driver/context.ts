/** What every driver here is opened with. */
import type { Engine, Privilege } from '../engine/engine.js';
import type { LoggerLike } from '../util/logger.js';

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
