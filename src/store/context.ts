/** What the files of the store share: its parts, put together once by `openStore`. */
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { Engine, UnpackLimits } from '../engine/engine.js';
import type { FullMetadataStore } from '../metadata/metadata-store.js';
import type { SingleFlight } from '../util/single-flight.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import type { LoggerLike } from '../util/logger.js';
import type { TaskQueue } from '../util/task-queue.js';
import type { Intents } from './intents.js';
import type { LayerMap, LayerNode, RWMap } from './layer-map.js';
import type { FreedItem } from './types.js';
import type { Lifecycle } from './lifecycle.js';
import type { References } from './references.js';

/** Lists the chains that other programs' records refer to; rejects if the list cannot be complete. */
export type ReferenceSource = () => Promise<Iterable<ChainID>>;

/** A file or directory that an interrupted operation left, and that we may remove. */
export interface Leftover {
  item: FreedItem;
  /** Absent: the driver's own `cleanup` removes it. */
  remove?: () => Promise<void>;
}

/** Lists and removes what another room left on disk. */
export type LeftoverSource = () => Promise<readonly Leftover[]>;

export interface StoreContext {
  readonly root: string;
  /** Where our own state lies. */
  readonly own: OwnPaths;
  readonly driver: Driver;
  readonly metadata: FullMetadataStore;
  readonly engine: Engine;
  readonly durability: 'strict' | 'relaxed';
  readonly maxDepth: number;
  readonly limits: UnpackLimits | undefined;
  readonly readOnly: boolean;
  readonly logger: LoggerLike;
  readonly lifecycle: Lifecycle;
  readonly layers: LayerMap;
  readonly rwLayers: RWMap;
  readonly references: References;
  readonly referenceSources: ReferenceSource[];
  readonly leftoverSources: LeftoverSource[];
  /** Trees of the driver that other rooms answer for. */
  readonly treeSources: (() => Promise<Iterable<string>>)[];
  readonly intents: Intents;
  /** `layer:CHAINID`, `rw:NAME`: state changes of one name, one after the other. */
  readonly locks: KeyedMutex;
  /** Registrations under way. */
  readonly flights: SingleFlight<LayerNode>;
  /** Deletion in the background. */
  readonly background: TaskQueue;
  /** Driver ids of layers whose removal this process will end. */
  readonly removing: Set<string>;
  /** Removals that wait for readers of the files. */
  readonly trailing: Set<Promise<void>>;
  /** Ends streams and views that are still open when the store closes. */
  readonly open: Set<() => Promise<void> | void>;
}

/** Paths below `<root>/layerstore/`, the only paths that the store itself knows. */
export interface OwnPaths {
  readonly directory: string;
  readonly lock: string;
  readonly version: string;
  readonly intents: string;
  readonly references: string;
  readonly quarantine: string;
}

export function ownPaths(root: string): OwnPaths {
  const directory = join(root, 'layerstore');
  return {
    directory,
    lock: join(directory, 'lock'),
    version: join(directory, 'version'),
    intents: join(directory, 'intents'),
    references: join(directory, 'references.json'),
    quarantine: join(directory, 'quarantine'),
  };
}
