/** Makes and removes RW layers. State changes of one name run under its lock. */
import type { ChainID } from '../digest.js';
import type { StepsAround } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import type { FullMetadataStore, MountRecord } from '../metadata/metadata-store.js';
import { defined } from '../util/defined.js';
import { errorFields } from '../util/logger.js';
import { randomID } from '../util/random-id.js';
import type { StoreContext } from './context.js';
import { syncData } from './draft.js';
import type { LayerNode, RWNode } from './layer-map.js';
import { discardFiles, removeUnheld, trail, unpin } from './removal.js';
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

/** Makes the RW layer's files and its record; on failure neither is left. */
async function makeRWLayer(
  ctx: StoreContext,
  name: string,
  parent: LayerNode | undefined,
  options: CreateRWLayerOptions,
): Promise<MountRecord> {
  const id = randomID();
  const initID = options.initFunc === undefined ? undefined : `${id}-init`;
  const record: MountRecord = { id, ...defined({ initID, parent: parent?.chainID }) };
  ctx.intents.hold(id);
  try {
    await ctx.metadata.createMount(name, record, (around) => makeFiles(ctx, record, parent?.cacheID, options, around));
  } catch (error) {
    await takeBack(ctx, name, record);
    throw error;
  }
  ctx.intents.letGo(id);
  return record;
}

async function makeFiles(
  ctx: StoreContext,
  { id, initID }: MountRecord,
  parentCacheID: string | undefined,
  { initFunc, mountLabel, storageOpt }: CreateRWLayerOptions,
  { before, after }: StepsAround,
): Promise<void> {
  const options = defined({ mountLabel, storageOpt });
  if (initID === undefined || initFunc === undefined) {
    await ctx.driver.createReadWrite(id, parentCacheID, options, { before, after });
    return;
  }
  await ctx.driver.createReadWrite(initID, parentCacheID, defined({ mountLabel }), { before, after: [] });
  await fillInitLayer(ctx, initID, initFunc, mountLabel);
  await syncData(ctx, [initID]);
  await ctx.driver.createReadWrite(id, initID, options, { before: [], after });
}

/** Never rejects: what stays has its intent, for the next cleanup, or is a whole RW layer. */
async function takeBack(ctx: StoreContext, name: string, record: MountRecord): Promise<void> {
  try {
    // It may have been published before a later step failed.
    const recorded = await ctx.metadata.getMountID(name).catch(() => undefined); // mostly there is none
    if (recorded === record.id) await ctx.metadata.removeMount(name);
  } catch (error) {
    ctx.logger.warn(
      { name, id: record.id, ...errorFields(error) },
      'the record of a failed RW layer cannot be removed; its files go, and the next open sets it aside',
    );
  }
  await discardFiles(ctx, record.id, idsOf(record));
}

/** Driver ids of an RW layer, the upper one first. */
function idsOf({ id, initID }: MountRecord): string[] {
  return initID === undefined ? [id] : [id, initID];
}

/** Whether the record `name` is that of the RW layer `id`; one that cannot be read may be. */
export async function isRecorded(
  metadata: Pick<FullMetadataStore, 'getMountID'>,
  name: string,
  id: string,
): Promise<boolean> {
  try {
    return (await metadata.getMountID(name)) === id;
  } catch (error) {
    return !LayerStoreError.is(error, 'ERR_MOUNT_DOES_NOT_EXIST');
  }
}

/** What `initFunc` writes is no part of the RW layer's changes; its own error comes through as it is. */
async function fillInitLayer(
  ctx: StoreContext,
  initID: string,
  initFunc: (root: string) => void | Promise<void>,
  label: string | undefined,
): Promise<void> {
  const path = await ctx.driver.get(initID, label);
  try {
    await initFunc(path);
  } catch (error) {
    // The caller gets the first error; the mount is undone all the same.
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

/** Removes the RW layer, and its parents where nothing else keeps them; rejects only while nothing has changed. */
export async function removeRWLayer(ctx: StoreContext, node: RWNode): Promise<LayerMetadata[]> {
  const owners = new Map(node.owners);
  node.owners.clear(); // no reader comes in from here on
  try {
    await takeAway(ctx, node);
  } catch (error) {
    for (const [owner, count] of owners) node.owners.set(owner, count);
    throw error;
  }
  ctx.rwLayers.take(node);
  return removeParents(ctx, node);
}

/** Renames the record away first; it becomes the intent. From then on the RW layer is removed, whatever fails. */
async function takeAway(ctx: StoreContext, { name, mountID, initID, readers }: RWNode): Promise<void> {
  const record: MountRecord = { id: mountID, ...defined({ initID }) };
  const ids = idsOf(record);
  ctx.intents.hold(mountID);
  try {
    await ctx.metadata.deleteMount(name, record, async ({ before, after }) => {
      if (readers.count === 0) {
        await detachAll(ctx, ids, { before, after });
        ctx.intents.letGo(mountID);
        return;
      }
      if (before.length > 0) await ctx.engine.batch(before);
      trail(ctx, discardFiles(ctx, mountID, ids, readers)); // readers of the files are not waited for
    });
  } catch (error) {
    if (await isRecorded(ctx.metadata, name, mountID)) {
      ctx.intents.letGo(mountID);
      throw error;
    }
    ctx.logger.debug({ name, ...errorFields(error) }, 'an RW layer did not go in one step; its files go now');
    await discardFiles(ctx, mountID, ids);
  }
}

/** The files' names go, in order, with the steps around all of it; they are unlinked in the background. */
async function detachAll(ctx: StoreContext, ids: readonly string[], { before, after }: StepsAround): Promise<void> {
  for (const [index, id] of ids.entries()) {
    const around = { before: index === 0 ? before : [], after: index === ids.length - 1 ? after : [] };
    void ctx.background.push(await ctx.driver.detach(id, around));
  }
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

/** ERR_ACTIVE_MOUNT if the RW layer is mounted, ERR_LAYER_IN_USE if anything but `owner` uses it. */
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
