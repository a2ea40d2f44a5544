/** Makes and removes RW layers. State changes of one name run under its lock. */
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { Engine, StepsAround } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import type { FullMetadataStore, MountRecord } from '../metadata/metadata-store.js';
import { defined } from '../util/defined.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { randomID } from '../util/random-id.js';
import type { TaskQueue } from '../util/task-queue.js';
import type { Drafts } from './draft.js';
import type { Intents } from './intents.js';
import type { LayerMap, LayerNode, RWMap, RWNode } from './layer-map.js';
import type { Removals } from './removal.js';
import type { RWHandles } from './rw-handle.js';
import type { CreateRWLayerOptions, LayerMetadata, RWLayer } from './types.js';

interface RWLayerParts {
  readonly background: TaskQueue;
  readonly drafts: Drafts;
  readonly driver: Driver;
  readonly engine: Engine;
  readonly intents: Intents;
  readonly layers: LayerMap;
  readonly locks: KeyedMutex;
  readonly logger: LoggerLike;
  readonly metadata: FullMetadataStore;
  readonly removals: Removals;
  readonly rwHandles: RWHandles;
  readonly rwLayers: RWMap;
}

export class RWLayers {
  readonly #parts: RWLayerParts;

  constructor(parts: RWLayerParts) {
    this.#parts = parts;
  }

  async create(name: string, parentID: ChainID | undefined, options: CreateRWLayerOptions): Promise<RWLayer> {
    return this.#parts.locks.run(`rw:${name}`, async () => {
      if (this.#parts.rwLayers.find(name) !== undefined) {
        throw new LayerStoreError(
          'ERR_MOUNT_NAME_CONFLICT',
          `there is an RW layer named "${name}" already: take another name, or getRWLayer() for that one`,
        );
      }
      const parent = parentID === undefined ? undefined : this.#parts.layers.require(parentID);
      if (parent !== undefined) parent.pins += 1;
      try {
        const record = await this.#make(name, parent, options);
        const node = this.#parts.rwLayers.add({ name, mountID: record.id, initID: record.initID }, parent);
        node.defaultLabel = options.mountLabel;
        return this.#parts.rwHandles.create(node);
      } finally {
        await this.#parts.removals.unpin(parent);
      }
    });
  }

  /** Makes the RW layer's files and its record; on failure neither is left. */
  async #make(name: string, parent: LayerNode | undefined, options: CreateRWLayerOptions): Promise<MountRecord> {
    const id = randomID();
    const initID = options.initFunc === undefined ? undefined : `${id}-init`;
    const record: MountRecord = { id, ...defined({ initID, parent: parent?.chainID }) };
    this.#parts.intents.hold(id);
    try {
      await this.#parts.metadata.createMount(name, record, (around) =>
        this.#makeFiles(record, parent?.cacheID, options, around),
      );
    } catch (error) {
      await this.#takeBack(name, record);
      throw error;
    }
    this.#parts.intents.letGo(id);
    return record;
  }

  async #makeFiles(
    { id, initID }: MountRecord,
    parentCacheID: string | undefined,
    { initFunc, mountLabel, storageOpt }: CreateRWLayerOptions,
    { before, after }: StepsAround,
  ): Promise<void> {
    const options = defined({ mountLabel, storageOpt });
    if (initID === undefined || initFunc === undefined) {
      await this.#parts.driver.createReadWrite(id, parentCacheID, options, { before, after });
      return;
    }
    await this.#parts.driver.createReadWrite(initID, parentCacheID, defined({ mountLabel }), { before, after: [] });
    await this.#fillInitLayer(initID, initFunc, mountLabel);
    await this.#parts.drafts.sync([initID]);
    await this.#parts.driver.createReadWrite(id, initID, options, { before: [], after });
  }

  /** Never rejects: what stays has its intent, for the next cleanup, or is a whole RW layer. */
  async #takeBack(name: string, record: MountRecord): Promise<void> {
    try {
      // It may have been published before a later step failed.
      const recorded = await this.#parts.metadata.getMountID(name).catch(() => undefined); // mostly there is none
      if (recorded === record.id) await this.#parts.metadata.removeMount(name);
    } catch (error) {
      this.#parts.logger.warn(
        { name, id: record.id, ...errorFields(error) },
        'the record of a failed RW layer cannot be removed; its files go, and the next open sets it aside',
      );
    }
    await this.#parts.removals.discardFiles(record.id, idsOf(record));
  }

  /** What `initFunc` writes is no part of the RW layer's changes; its own error comes through as it is. */
  async #fillInitLayer(
    initID: string,
    initFunc: (root: string) => void | Promise<void>,
    label: string | undefined,
  ): Promise<void> {
    const path = await this.#parts.driver.get(initID, label);
    try {
      await initFunc(path);
    } catch (error) {
      // The caller gets the first error; the mount is undone all the same.
      await this.#parts.driver.put(initID).catch((failure: unknown) => {
        this.#parts.logger.warn(
          { id: initID, ...errorFields(failure) },
          'an init layer cannot be unmounted after initFunc failed',
        );
      });
      throw error;
    }
    await this.#parts.driver.put(initID);
  }

  /** Ends a handle; the last one ends the RW layer, and parents that nothing else keeps. */
  async release(layer: unknown): Promise<LayerMetadata[]> {
    const node = this.#parts.rwHandles.nodeOf(layer);
    const owner = layer as object;
    return this.#parts.locks.run(`rw:${node.name}`, async () => {
      // Released by a second call while this one waited?
      this.#parts.rwHandles.nodeOf(layer);
      const own = node.owners.get(owner) ?? 0;
      if (own > 0) throw activeMount(node, `${own} of this handle's mounts are open`);
      if (node.owners.size > 1) {
        node.owners.delete(owner);
        return [];
      }
      if (node.mountCount > 0) throw activeMount(node, `it is mounted at "${node.path ?? ''}"`);
      return this.remove(node);
    });
  }

  /** Removes the RW layer, and its parents where nothing else keeps them; rejects only while nothing has changed. */
  async remove(node: RWNode): Promise<LayerMetadata[]> {
    const owners = new Map(node.owners);
    node.owners.clear(); // no reader comes in from here on
    try {
      await this.#takeAway(node);
    } catch (error) {
      for (const [owner, count] of owners) node.owners.set(owner, count);
      throw error;
    }
    this.#parts.rwLayers.take(node);
    return this.#removeParents(node);
  }

  /** Renames the record away first; it becomes the intent. From then on the RW layer is removed, whatever fails. */
  async #takeAway({ name, mountID, initID, readers }: RWNode): Promise<void> {
    const record: MountRecord = { id: mountID, ...defined({ initID }) };
    const ids = idsOf(record);
    this.#parts.intents.hold(mountID);
    try {
      await this.#parts.metadata.deleteMount(name, record, async ({ before, after }) => {
        if (readers.count === 0) {
          await this.#detachAll(ids, { before, after });
          this.#parts.intents.letGo(mountID);
          return;
        }
        if (before.length > 0) await this.#parts.engine.batch(before);
        this.#parts.removals.trail(this.#parts.removals.discardFiles(mountID, ids, readers)); // readers of the files are not waited for
      });
    } catch (error) {
      if (await isRecorded(this.#parts.metadata, name, mountID)) {
        this.#parts.intents.letGo(mountID);
        throw error;
      }
      this.#parts.logger.debug({ name, ...errorFields(error) }, 'an RW layer did not go in one step; its files go now');
      await this.#parts.removals.discardFiles(mountID, ids);
    }
  }

  /** The files' names go, in order, with the steps around all of it; they are unlinked in the background. */
  async #detachAll(ids: readonly string[], { before, after }: StepsAround): Promise<void> {
    for (const [index, id] of ids.entries()) {
      const around = { before: index === 0 ? before : [], after: index === ids.length - 1 ? after : [] };
      void this.#parts.background.push(await this.#parts.driver.detach(id, around));
    }
  }

  async #removeParents(node: RWNode): Promise<LayerMetadata[]> {
    if (node.parent === undefined) return [];
    try {
      return await this.#parts.removals.removeUnheld(node.parent);
    } catch (error) {
      this.#parts.logger.error(
        { name: node.name, ...errorFields(error) },
        'the parent of a removed RW layer stays; gc tries again',
      );
      return [];
    }
  }

  /** ERR_ACTIVE_MOUNT if the RW layer is mounted, ERR_LAYER_IN_USE if anything but `owner` uses it. */
  async checkConsumable(node: RWNode, owner: object): Promise<void> {
    if (node.mountCount > 0 || (await this.#parts.rwHandles.isInMountTable(node))) {
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

function activeMount(node: RWNode, why: string): LayerStoreError {
  return new LayerStoreError('ERR_ACTIVE_MOUNT', `cannot release RW layer "${node.name}": ${why}; unmount it first`);
}
