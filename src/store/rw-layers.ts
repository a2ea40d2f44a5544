/** Writable layers made and thrown away. State changes of one name run under its lock. */
import type { ChainID } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import type { MountRecord } from '../metadata/metadata-store.js';
import { defined } from '../util/defined.js';
import { errorFields } from '../util/logger.js';
import { randomID } from '../util/random-id.js';
import { Rollback } from '../util/rollback.js';
import type { StoreContext } from './context.js';
import { syncData } from './draft.js';
import type { LayerNode, RWNode } from './layer-map.js';
import { discardFiles, removeUnheld, unpin } from './removal.js';
import { createRWHandle, isInMountTable, rwNodeOf } from './rw-handle.js';
import type { CreateRWLayerOptions, LayerMetadata, RWLayer } from './types.js';

export async function createRWLayer(
  ctx: StoreContext,
  name: string,
  parentID: ChainID | undefined,
  options: CreateRWLayerOptions,
): Promise<RWLayer> {
  return ctx.locks.run(`rw:${name}`, async () => {
    if (ctx.rwLayers.find(name) !== undefined) {
      throw new LayerStoreError(
        'ERR_MOUNT_NAME_CONFLICT',
        `there is an RW layer named "${name}" already: take another name, or getRWLayer() for that one`,
      );
    }
    const parent = parentID === undefined ? undefined : ctx.layers.require(parentID);
    if (parent !== undefined) parent.pins += 1;
    try {
      const record = await makeRWLayer(ctx, name, parent, options);
      const node = ctx.rwLayers.add({ name, mountID: record.id, initID: record.initID }, parent);
      node.defaultLabel = options.mountLabel;
      return createRWHandle(ctx, node);
    } finally {
      await unpin(ctx, parent);
    }
  });
}

/** Directories, then the record; on failure neither. */
async function makeRWLayer(
  ctx: StoreContext,
  name: string,
  parent: LayerNode | undefined,
  options: CreateRWLayerOptions,
): Promise<MountRecord> {
  const id = randomID();
  const initID = options.initFunc === undefined ? undefined : `${id}-init`;
  const record: MountRecord = {
    id,
    ...defined({ initID, parent: parent?.chainID }),
  };
  const strict = ctx.durability === 'strict';
  const back = new Rollback((step, error) => {
    ctx.logger.warn(
      { name, id, step, ...errorFields(error) },
      'a failed RW layer cannot be taken back wholly; the next cleanup tries again',
    );
  });
  back.push('drop its files', () => discardFiles(ctx, id, initID === undefined ? [id] : [id, initID]));
  try {
    if (await makeAtOnce(ctx, name, record, parent, options, back)) return record;
    await ctx.intents.begin(
      id,
      { kind: 'rw', name, ...defined({ with: initID === undefined ? undefined : [initID] }) },
      { sync: strict },
    );
    const label = defined({ mountLabel: options.mountLabel });
    if (initID !== undefined && options.initFunc !== undefined) {
      await makeInitLayer(ctx, initID, parent?.cacheID, options.initFunc, options.mountLabel);
    }
    await ctx.driver.createReadWrite(id, initID ?? parent?.cacheID, {
      ...label,
      ...defined({ storageOpt: options.storageOpt }),
    });
    if (initID !== undefined) await syncData(ctx, [initID]);
    back.push('drop its record', () => ctx.metadata.removeMount(name));
    await ctx.metadata.setMount(name, record);
  } catch (error) {
    await back.run();
    throw error;
  }
  try {
    await ctx.intents.end(id);
  } catch (error) {
    ctx.intents.abandon(id);
    ctx.logger.warn(
      { name, id, ...errorFields(error) },
      'an intent that is done stays behind; the next cleanup drops it',
    );
  }
  return record;
}

async function makeAtOnce(
  ctx: StoreContext,
  name: string,
  record: MountRecord,
  parent: LayerNode | undefined,
  options: CreateRWLayerOptions,
  back: Rollback,
): Promise<boolean> {
  try {
    return await createAtOnce(ctx, name, record, parent?.cacheID, options);
  } catch (error) {
    // Its rename may have been done before a later step failed.
    back.push('drop its record', () => ctx.metadata.removeMount(name));
    throw error;
  }
}

/** What `initFunc` writes is no part of the RW layer's changes; its own error comes through as it is. */
async function makeInitLayer(
  ctx: StoreContext,
  initID: string,
  parentCacheID: string | undefined,
  initFunc: (root: string) => void | Promise<void>,
  label: string | undefined,
): Promise<void> {
  await ctx.driver.createReadWrite(initID, parentCacheID, defined({ mountLabel: label }));
  const path = await ctx.driver.get(initID, label);
  try {
    await initFunc(path);
  } catch (error) {
    // The first error is the one to hear; the mount goes all the same.
    await ctx.driver.put(initID).catch((failure: unknown) => {
      ctx.logger.warn(
        { id: initID, ...errorFields(failure) },
        'an init layer cannot be unmounted after initFunc failed',
      );
    });
    throw error;
  }
  await ctx.driver.put(initID);
}

/** Ends a handle; the last one ends the RW layer, and parents that nothing else keeps. */
export async function releaseRWLayer(ctx: StoreContext, layer: unknown): Promise<LayerMetadata[]> {
  const node = rwNodeOf(ctx, layer);
  const owner = layer as object;
  return ctx.locks.run(`rw:${node.name}`, async () => {
    // Released by a second call while this one waited?
    rwNodeOf(ctx, layer);
    const own = node.owners.get(owner) ?? 0;
    if (own > 0) throw activeMount(node, `${own} of this handle's mounts are open`);
    if (node.owners.size > 1) {
      node.owners.delete(owner);
      return [];
    }
    if (node.mountCount > 0) throw activeMount(node, `it is mounted at "${node.path ?? ''}"`);
    return removeRWLayer(ctx, node);
  });
}

/** The record goes first, by an intent that names the files; rejects only while nothing has changed. */
export async function removeRWLayer(ctx: StoreContext, node: RWNode): Promise<LayerMetadata[]> {
  if (await removeAtOnce(ctx, node)) {
    ctx.rwLayers.take(node);
    return removeParents(ctx, node);
  }
  const ids = node.initID === undefined ? [node.mountID] : [node.mountID, node.initID];
  const more = defined({ with: node.initID === undefined ? undefined : [node.initID] });
  await ctx.intents.begin(
    node.mountID,
    { kind: 'remove', name: node.name, ...more },
    { sync: ctx.durability === 'strict' },
  );
  try {
    await ctx.metadata.removeMount(node.name);
  } catch (error) {
    await ctx.intents.end(node.mountID).catch(() => ctx.intents.abandon(node.mountID)); // the record outweighs it
    throw error;
  }
  ctx.rwLayers.take(node);
  node.owners.clear();
  const discarded = discardFiles(ctx, node.mountID, ids, node.readers);
  // The renames are awaited, so that the layer is gone when this resolves; whoever still reads is not waited for.
  if (node.readers.count === 0) await discarded;
  return removeParents(ctx, node);
}

async function removeParents(ctx: StoreContext, node: RWNode): Promise<LayerMetadata[]> {
  if (node.parent === undefined) return [];
  try {
    return await removeUnheld(ctx, node.parent);
  } catch (error) {
    ctx.logger.error(
      { name: node.name, ...errorFields(error) },
      'the parent of a removed RW layer stays; gc tries again',
    );
    return [];
  }
}

function activeMount(node: RWNode, why: string): LayerStoreError {
  return new LayerStoreError('ERR_ACTIVE_MOUNT', `cannot release RW layer "${node.name}": ${why}; unmount it first`);
}

/** ERR_ACTIVE_MOUNT or ERR_LAYER_IN_USE unless nobody but `owner` uses the RW layer and it is mounted nowhere. */
export async function checkConsumable(ctx: StoreContext, node: RWNode, owner: object): Promise<void> {
  if (node.mountCount > 0 || (await isInMountTable(ctx, node))) {
    throw new LayerStoreError(
      'ERR_ACTIVE_MOUNT',
      `cannot consume RW layer "${node.name}": it is mounted; unmount it first, or commit without "consume"`,
    );
  }
  const others = [...node.owners.keys()].filter((handle) => handle !== owner).length;
  if (others > 0 || node.readers.count > 0) {
    const who = others > 0 ? `${others} more handles are open on it` : 'something reads it';
    throw new LayerStoreError(
      'ERR_LAYER_IN_USE',
      `cannot consume RW layer "${node.name}": ${who}; commit without "consume"`,
    );
  }
}

/** False where it takes more than one call. Rejects as a batch fails: what is made is taken back, but renames stay. */
export async function createAtOnce(
  ctx: StoreContext,
  name: string,
  record: MountRecord,
  parentCacheID: string | undefined,
  options: CreateRWLayerOptions,
): Promise<boolean> {
  const { driver, metadata, intents } = ctx;
  if (options.initFunc !== undefined || !intents.holdsRecords || !metadata.recordsAreFiles) return false;
  const { mountLabel, storageOpt } = options;
  const pending = intents.pendingRecordDir(record.id);
  try {
    const { steps, later } = metadata.setMountSteps(name, record, pending.path);
    await driver.createReadWrite(record.id, parentCacheID, defined({ mountLabel, storageOpt }), {
      before: intents.makePendingRecordDir(pending, { sync: ctx.durability === 'strict' }),
      after: [...steps, ...later],
    });
    return true;
  } catch (error) {
    // All was taken back. A record that nobody knows of has the name: step by step it is replaced.
    if (LayerStoreError.is(error) && error.errnoName === 'EEXIST') return false;
    if (!noticeApart(ctx, error)) throw error;
    return false;
  } finally {
    pending.settle();
  }
}

/** False where it takes more than one call, or that call failed: step by step it goes on from wherever it stopped. */
export async function removeAtOnce(ctx: StoreContext, node: RWNode): Promise<boolean> {
  const { driver, metadata, intents } = ctx;
  if (node.initID !== undefined || node.readers.count > 0 || !intents.holdsRecords) return false;
  if (!metadata.recordsAreFiles) return false;
  const pending = intents.pendingRecordDir(node.mountID);
  // No reader comes in from here on; where this fails its handles are as good as before.
  const owners = new Map(node.owners);
  node.owners.clear();
  try {
    const { steps, later } = metadata.removeMountSteps(node.name, pending.path);
    const unlink = await driver.detach(node.mountID, { before: steps, after: later });
    void ctx.background.push(unlink);
    return true;
  } catch (error) {
    for (const [owner, count] of owners) node.owners.set(owner, count);
    noticeApart(ctx, error);
    ctx.logger.debug(
      { name: node.name, ...errorFields(error) },
      'an RW layer does not go in one step; step by step now',
    );
    return false;
  } finally {
    pending.settle();
  }
}

/** Whether it failed because records and intents lie on different file systems, which is remembered. */
function noticeApart(ctx: StoreContext, error: unknown): boolean {
  if (!LayerStoreError.is(error) || error.errnoName !== 'EXDEV') return false;
  ctx.intents.holdsRecords = false;
  return true;
}
