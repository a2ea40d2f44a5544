/** Opens a store: root, lock, format version, driver, records, recovery; what was opened is given back on failure. */
import { join, resolve } from 'node:path';
import { openDriver } from '../driver/select.js';
import type { Engine } from '../engine/engine.js';
import { openEngine } from '../engine/select.js';
import { LayerStoreError, systemError } from '../errors.js';
import { adaptMetadataStore, type Journal } from '../metadata/adapt.js';
import { openFileMetadataStore } from '../metadata/file-store.js';
import type { FullMetadataStore, MetadataStore } from '../metadata/metadata-store.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike, silentLogger } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { Rollback } from '../util/rollback.js';
import { SingleFlight } from '../util/single-flight.js';
import { TaskQueue } from '../util/task-queue.js';
import { withTimeout } from '../util/timeout.js';
import { checkStoreOptions } from './arguments.js';
import { Commits } from './commit.js';
import { Drafts } from './draft.js';
import { Exports } from './export.js';
import { DiskSpace } from './gc.js';
import { Intents } from './intents.js';
import { LayerHandles } from './layer-handle.js';
import { LayerMap, type LayerNode, RWMap } from './layer-map.js';
import { Lifecycle, observed } from './lifecycle.js';
import { Recovery } from './recovery.js';
import { References } from './references.js';
import { Registrations } from './register.js';
import { Removals } from './removal.js';
import { checkFormatVersion, lockForWriting, ownPaths, prepareRoot } from './root.js';
import { RWHandles } from './rw-handle.js';
import { RWLayers } from './rw-layers.js';
import { LayerStore, type StoreParts } from './store.js';
import { Trees } from './trees.js';
import type { CloseOptions, Store, StoreOptions } from './types.js';
import { Verification } from './verify.js';

const DEFAULT_MAX_DEPTH = 125;
/** Trees unlinked at once in the background: more would only fight over the same disk. */
const DELETIONS_AT_ONCE = 2;
/** Milliseconds that close() waits for them: a hundred thousand files take a few seconds. */
const DELETION_PATIENCE = 30_000;

/**
 * Opens the store under `options.root`, making it if it is missing.
 *
 * `ERR_STORE_LOCKED`: another writer, or a running dockerd, has the root; the message names its pid. `ERR_NOT_SUPPORTED`:
 * the driver or engine that is asked for does not work here, or this is not Linux. `ERR_INVALID_ARGUMENT`: an option that
 * is unknown or wrong, a root that others may write to. `ERR_SYSTEM`: the root cannot be made, read or written.
 *
 * ```ts
 * await using store = await openStore({ root: '/var/lib/my-layers' });
 * const layer = await store.register({ path: 'layer.tar' });
 * await store.retain(layer.chainID, 'my-image');
 * await store.release(layer);
 * ```
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const given = checkStoreOptions(options);
  requireLinux();
  const root = resolve(given.root);
  return observed('open', root, async (details) => {
    const logger: LoggerLike = given.logger ?? silentLogger;
    const back = new Rollback((step, error) => {
      logger.warn({ root, step, ...errorFields(error) }, 'a part of a store that was not opened cannot be closed');
    });
    try {
      const parts = await build(given, root, logger, back);
      if (parts.readOnly) await parts.recovery.loadReadOnly();
      else await parts.recovery.recover();
      details.layers = parts.layers.count;
      return new LayerStore(parts, (how) => shutDown(parts, back, how));
    } catch (error) {
      await back.run();
      throw error;
    }
  });
}

/** Elsewhere the package installs and type-checks; a store would fail later, after it had made half of its root. */
function requireLinux(): void {
  if (process.platform === 'linux') return;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `cannot open a store on ${process.platform}: layers are kept with Linux system calls; run this in a Linux virtual machine or container`,
  );
}

/** All parts of an open store. */
interface Built extends StoreParts {
  readonly intents: Intents;
  readonly background: TaskQueue;
}

/** Opens what needs closing, in order, and pushes what closes each onto `back`; then puts the store's own parts together. */
async function build(given: StoreOptions, root: string, logger: LoggerLike, back: Rollback): Promise<Built> {
  const { durability = 'strict', readOnly = false, limits, maxDepth = DEFAULT_MAX_DEPTH } = given;
  const own = ownPaths(root);
  await prepareRoot(root, { readOnly, allowWritableRoot: given.allowWritableRoot ?? false });
  const engine = await openEngine({ engine: given.engine ?? 'auto', logger });
  if (!readOnly) {
    await makeOwnDirectory(own.directory);
    const lock = await lockForWriting(root, own, engine);
    back.push('release the lock', () => lock.release());
  }
  const sync = durability === 'strict';
  await checkFormatVersion(own, { readOnly, sync, logger });
  const driver = await openDriver({
    root,
    driver: given.driver ?? 'auto',
    driverOptions: given.driverOptions ?? {},
    engine,
    durability,
    readOnly,
    acceptVolatile: given.acceptVolatile ?? false,
    logger,
  });
  back.push('close the driver', () => driver.close());
  const intents = new Intents(own.intents, engine);
  if (!readOnly) await intents.prepare();
  const metadata = await openRecords(given.metadataStore, {
    directory: join(root, 'image', driver.name, 'layerdb'),
    engine,
    durability,
    readOnly,
    logger,
    intents,
  });
  const background = new TaskQueue(DELETIONS_AT_ONCE, (error) => {
    logger.warn(errorFields(error), 'deleting in the background failed; the next cleanup tries again');
  });
  back.push('stop background work', () => background.close());

  const docker = [join(root, 'image', driver.name, 'imagedb'), join(root, 'buildkit')];
  const references = new References(own.references, { sync, docker });
  const lifecycle = new Lifecycle(root, readOnly);
  const layers = new LayerMap(maxDepth);
  const rwLayers = new RWMap();
  const locks = new KeyedMutex();
  const flights = new SingleFlight<LayerNode>();
  const removals = new Removals({ layers, references, driver, metadata, intents, locks, background, logger });
  const drafts = new Drafts({ layers, driver, metadata, intents, locks, background, durability, limits, logger });
  const exports = new Exports({ driver, metadata, lifecycle, durability });
  const handles = new LayerHandles({ driver, exports, lifecycle, logger });
  const verification = new Verification({ layers, driver, metadata, drafts, exports, removals, locks, root });
  const registrations = new Registrations({
    layers,
    flights,
    engine,
    driver,
    drafts,
    handles,
    removals,
    verification,
  });
  const rwHandles = new RWHandles({ driver, drafts, exports, handles, lifecycle, locks, logger });
  const rw = new RWLayers({
    layers,
    rwLayers,
    engine,
    driver,
    metadata,
    intents,
    drafts,
    removals,
    rwHandles,
    locks,
    background,
    logger,
  });
  const commits = new Commits({
    layers,
    rwLayers,
    flights,
    driver,
    intents,
    drafts,
    handles,
    removals,
    rw,
    rwHandles,
    locks,
    logger,
  });
  const space = new DiskSpace({
    layers,
    rwLayers,
    references,
    driver,
    metadata,
    intents,
    removals,
    background,
    own,
    root,
    logger,
  });
  const trees = new Trees({
    root,
    durability,
    limits,
    logger,
    driver,
    lifecycle,
    layers,
    flights,
    drafts,
    handles,
    removals,
    space,
    background,
  });
  const recovery = new Recovery({
    layers,
    rwLayers,
    references,
    driver,
    metadata,
    intents,
    removals,
    background,
    own,
    logger,
  });
  return {
    root,
    readOnly,
    durability,
    engine,
    driver,
    logger,
    lifecycle,
    layers,
    rwLayers,
    references,
    handles,
    registrations,
    removals,
    rw,
    rwHandles,
    commits,
    verification,
    space,
    recovery,
    trees,
    intents,
    background,
  };
}

/** Stops what still unlinks; how many trees are left. Nothing is walked after an abort, when there is no time for that. */
async function stopRemovals(
  { background, driver, intents, logger }: Built,
  signal: AbortSignal | undefined,
): Promise<number> {
  const before = background.failed;
  await background.close();
  const stopped = background.failed - before;
  try {
    const unfinished = await intents.count();
    if (background.failed === 0) return unfinished;
    const left = signal?.aborted === true ? undefined : await driver.leftovers();
    return unfinished + (left?.length ?? stopped);
  } catch (error) {
    logger.warn(errorFields(error), 'cannot tell what is left to be removed');
    return Math.max(1, stopped);
  }
}

interface RecordsSetup {
  readonly directory: string;
  readonly engine: Engine;
  readonly durability: 'strict' | 'relaxed';
  readonly readOnly: boolean;
  readonly logger: LoggerLike;
  readonly intents: Intents;
}

/** The program's own metadata store, or the one in files under `directory`. */
async function openRecords(own: MetadataStore | undefined, setup: RecordsSetup): Promise<FullMetadataStore> {
  const { intents, readOnly } = setup;
  if (own !== undefined) return adaptMetadataStore(own, journalOf(setup));
  const files = await openFileMetadataStore({ ...setup, pendingMounts: intents.directory });
  if (readOnly || (await files.canMovePending())) return files;
  return adaptMetadataStore(files, journalOf(setup));
}

/** Of a metadata store whose records cannot be intents themselves. */
function journalOf({ intents, durability, logger }: RecordsSetup): Journal {
  return {
    begin: (id, kind, also) => intents.begin(id, { kind, with: also }, { sync: durability === 'strict' }),
    endSteps: (id) => intents.endSteps(id),
    async end(id) {
      try {
        await intents.end(id);
      } catch (error) {
        intents.letGo(id);
        logger.warn({ id, ...errorFields(error) }, 'an intent that is done stays behind; the next cleanup drops it');
      }
    },
  };
}

async function makeOwnDirectory(path: string): Promise<void> {
  try {
    await makeDirectory(path, 0o700);
  } catch (error) {
    throw systemError(error, 'make the directory of our own state', 'give a data root that this user may write to');
  }
}

/**
 * After the last operation, when nothing is read any more: files of removed and failed layers are unlinked to the end, or until
 * the wait for that is over; then driver and lock are given back.
 */
async function shutDown(parts: Built, back: Rollback, { signal, onPending }: CloseOptions): Promise<void> {
  await parts.removals.trailed();
  await withTimeout(parts.background.idle(), DELETION_PATIENCE, signal);
  const pendingRemovals = parts.readOnly ? 0 : await stopRemovals(parts, signal);
  if (pendingRemovals > 0) {
    parts.logger.warn(
      { pendingRemovals },
      'files of removed or failed layers are still on disk: the next open goes on with them, and usage() counts them',
    );
  }
  await back.run();
  if (pendingRemovals > 0) onPending?.(pendingRemovals);
}
