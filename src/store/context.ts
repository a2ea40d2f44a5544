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

/** Names the chains that somebody beside this store refers to; rejects where it cannot name all of them. */
export type ReferenceSource = () => Promise<Iterable<ChainID>>;

/** Something that lies about and is ours to remove. */
export interface Leftover {
  item: FreedItem;
  /** Absent: the driver's own `cleanup` removes it. */
  remove?: () => Promise<void>;
}

/** Names what somebody beside this store left on disk, and removes it. */
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
  /** Ends of removals that wait for whoever still reads. */
  readonly trailing: Set<Promise<void>>;
  /** Ends streams and views that are still open when the store closes. */
  readonly open: Set<() => Promise<void> | void>;
}

/** Paths below `<root>/layerstore/`: all that the store itself knows of the disk. */
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
