/**
 * What another room of this package builds on: trees of the store's driver that are neither layers nor RW layers, with
 * records of that room's own, and the way by which such a tree becomes a layer. Whoever makes a tree answers for it: its
 * name says after a crash whose it is, and no intent of the store's is written.
 */
import { createReadStream } from 'node:fs';
import { copyFile, rename } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { ApplyResult } from '../driver/graph-driver.js';
import type { TarSplitTarget, UnpackLimits } from '../engine/engine.js';
import { LayerStoreError, systemError } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { SingleFlight } from '../util/single-flight.js';
import type { TaskQueue } from '../util/task-queue.js';
import { type Draft, type Drafts, newDraft } from './draft.js';
import type { DiskSpace, TreeSource } from './gc.js';
import type { LayerHandles } from './layer-handle.js';
import type { LayerMap, LayerNode } from './layer-map.js';
import type { Lifecycle } from './lifecycle.js';
import type { Removals } from './removal.js';
import type { Layer, Store } from './types.js';

/** A tree that holds the differences of one tar, and nothing else. */
export interface FilledTree {
  /** The driver's id. */
  readonly id: string;
  readonly parent: ChainID | undefined;
  /** What `applyDiff` found. */
  readonly result: ApplyResult;
  /** The gzip file that `applyDiff` wrote. It is copied. */
  readonly tarSplit: string;
  readonly descriptor: Descriptor | undefined;
}

export interface StoreTrees {
  readonly root: string;
  readonly durability: 'strict' | 'relaxed';
  readonly limits: UnpackLimits | undefined;
  readonly logger: LoggerLike;
  readonly driver: Driver;
  /** Throws ERR_STORE_CLOSED or ERR_READ_ONLY. */
  checkWritable(action: string): void;
  /** The driver's id of a layer's files; `undefined` where there is no such layer. */
  treeOf(chainID: ChainID): string | undefined;
  /** The layer that such a tree is, with a handle and the driver's id of its files: another where it was there already. */
  publish(tree: FilledTree): Promise<{ layer: Layer; id: string }>;
  /** What was written for these ids is on disk when it resolves, in a strict store. */
  sync(ids: readonly string[]): Promise<void>;
  /** Renames the tree away at once; its files are unlinked in the background. An id that is not there is no error. */
  discard(id: string): Promise<void>;
  /** For reports of disk use, and of what nobody answers for. A room has one: the last replaces the one before. */
  setTreeSource(room: string, source: TreeSource): void;
  /** `end` runs when the store closes, before its parts do; the result takes that back. */
  atClose(end: () => Promise<void>): () => void;
}

const known = new WeakMap<Store, StoreTrees>();

export function noteTrees(store: Store, trees: StoreTrees): void {
  known.set(store, trees);
}

/** ERR_INVALID_ARGUMENT for anything but a store that `openStore` gave. */
export function treesOf(store: Store): StoreTrees {
  const trees = known.get(store);
  if (trees !== undefined) return trees;
  throw new LayerStoreError('ERR_INVALID_ARGUMENT', '"store" must be what openStore() gave');
}

interface TreesParts {
  readonly root: string;
  readonly durability: 'strict' | 'relaxed';
  readonly limits: UnpackLimits | undefined;
  readonly logger: LoggerLike;
  readonly driver: Driver;
  readonly lifecycle: Lifecycle;
  readonly layers: LayerMap;
  readonly flights: SingleFlight<LayerNode>;
  readonly drafts: Drafts;
  readonly handles: LayerHandles;
  readonly removals: Removals;
  readonly space: DiskSpace;
  readonly background: TaskQueue;
}

export class Trees implements StoreTrees {
  readonly #parts: TreesParts;

  constructor(parts: TreesParts) {
    this.#parts = parts;
  }

  get root(): string {
    return this.#parts.root;
  }

  get durability(): 'strict' | 'relaxed' {
    return this.#parts.durability;
  }

  get limits(): UnpackLimits | undefined {
    return this.#parts.limits;
  }

  get logger(): LoggerLike {
    return this.#parts.logger;
  }

  get driver(): Driver {
    return this.#parts.driver;
  }

  checkWritable(action: string): void {
    this.#parts.lifecycle.check(action);
    this.#parts.lifecycle.checkWritable(action);
  }

  treeOf(chainID: ChainID): string | undefined {
    return this.#parts.layers.find(chainID)?.cacheID;
  }

  async publish(tree: FilledTree): Promise<{ layer: Layer; id: string }> {
    const { layers, drafts, flights, handles, removals } = this.#parts;
    const parent = layers.pinParent(tree.parent, 1);
    // No event of the store tells of it.
    const draft = newDraft(tree.id, {});
    let node: LayerNode | undefined;
    try {
      await drafts.fill(draft, parent?.chainID, tree.descriptor, {}, async ({ tarSplit }) => {
        if (tarSplit !== undefined) await give(tree.tarSplit, tarSplit);
        return tree.result;
      });
      await drafts.sync([tree.id]);
      // A chain that makes the same layer has layers above it in the making, bound to its own directory: it goes first.
      if (draft.record !== undefined) await flights.of(draft.record.chainID);
      const published = await drafts.publish(draft, parent);
      node = published.node;
      if (!published.fresh) await draft.tx?.cancel();
      return { layer: handles.create(node), id: node.cacheID };
    } catch (error) {
      await this.#takeBack(draft);
      throw error;
    } finally {
      await removals.unpin(node);
      await removals.unpin(parent);
    }
  }

  sync(ids: readonly string[]): Promise<void> {
    return this.#parts.drafts.sync(ids);
  }

  async discard(id: string): Promise<void> {
    void this.#parts.background.push(await this.#parts.driver.detach(id));
  }

  setTreeSource(room: string, source: TreeSource): void {
    this.#parts.space.setTreeSource(room, source);
  }

  atClose(end: () => Promise<void>): () => void {
    this.#parts.lifecycle.opened(end);
    return () => this.#parts.lifecycle.ended(end);
  }

  async #takeBack(draft: Draft): Promise<void> {
    try {
      await this.#parts.drafts.withdraw(draft);
      await draft.tx?.cancel();
    } catch (error) {
      this.#parts.logger.warn(
        { id: draft.cacheID, ...errorFields(error) },
        'an unfinished record cannot be removed; the next cleanup tries again',
      );
    }
  }
}

/** A copy: the transaction may fail later, and whoever made the tree tries again with the same file. */
async function give(from: string, target: TarSplitTarget): Promise<void> {
  try {
    if ('writer' in target) {
      await pipeline(createReadStream(from), createGunzip(), target.writer);
      return;
    }
    const { path } = target;
    await copyFile(from, `${path}.new`);
    await rename(`${path}.new`, path);
  } catch (error) {
    throw systemError(error, 'copy a tar-split record');
  }
}
