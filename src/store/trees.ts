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
import { LayerStoreError, systemError } from '../errors.js';
import type { TarSplitTarget, UnpackLimits } from '../engine/engine.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { StoreContext } from './context.js';
import { type Draft, fillDraft, publishDraft, syncData, withdraw } from './draft.js';
import { createHandle } from './layer-handle.js';
import type { LayerNode } from './layer-map.js';
import { pinParent } from './register.js';
import { unpin } from './removal.js';
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

/** Names the trees that somebody answers for. */
export type TreeSource = () => Promise<Iterable<string>>;

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
  /** For reports of what nobody answers for. */
  addTreeSource(source: TreeSource): void;
  /** `end` runs when the store closes, before its parts do; the result takes that back. */
  atClose(end: () => Promise<void>): () => void;
}

const known = new WeakMap<Store, StoreTrees>();

export function noteTrees(store: Store, ctx: StoreContext): void {
  known.set(store, new Trees(ctx));
}

/** ERR_INVALID_ARGUMENT for anything but a store that `openStore` gave. */
export function treesOf(store: Store): StoreTrees {
  const trees = known.get(store);
  if (trees !== undefined) return trees;
  throw new LayerStoreError('ERR_INVALID_ARGUMENT', '"store" must be what openStore() gave');
}

class Trees implements StoreTrees {
  readonly #ctx: StoreContext;

  constructor(ctx: StoreContext) {
    this.#ctx = ctx;
  }

  get root(): string {
    return this.#ctx.root;
  }

  get durability(): 'strict' | 'relaxed' {
    return this.#ctx.durability;
  }

  get limits(): UnpackLimits | undefined {
    return this.#ctx.limits;
  }

  get logger(): LoggerLike {
    return this.#ctx.logger;
  }

  get driver(): Driver {
    return this.#ctx.driver;
  }

  checkWritable(action: string): void {
    this.#ctx.lifecycle.check(action);
    this.#ctx.lifecycle.checkWritable(action);
  }

  treeOf(chainID: ChainID): string | undefined {
    return this.#ctx.layers.find(chainID)?.cacheID;
  }

  async publish(tree: FilledTree): Promise<{ layer: Layer; id: string }> {
    const ctx = this.#ctx;
    const parent = pinParent(ctx, tree.parent, 1);
    // No event of the store tells of it.
    const draft: Draft = { cacheID: tree.id, details: {} };
    let node: LayerNode | undefined;
    try {
      await fillDraft(ctx, draft, parent?.chainID, tree.descriptor, {}, async ({ tarSplit }) => {
        if (tarSplit !== undefined) await give(tree.tarSplit, tarSplit);
        return tree.result;
      });
      await syncData(ctx, [tree.id]);
      // A chain that makes the same layer has layers above it in the making, bound to its own directory: it goes first.
      if (draft.record !== undefined) await ctx.flights.of(draft.record.chainID);
      const published = await publishDraft(ctx, draft, parent);
      node = published.node;
      if (!published.fresh) await draft.tx?.cancel();
      return { layer: createHandle(ctx, node), id: node.cacheID };
    } catch (error) {
      await takeBack(ctx, draft);
      throw error;
    } finally {
      await unpin(ctx, node);
      await unpin(ctx, parent);
    }
  }

  sync(ids: readonly string[]): Promise<void> {
    return syncData(this.#ctx, ids);
  }

  async discard(id: string): Promise<void> {
    void this.#ctx.background.push(await this.#ctx.driver.detach(id));
  }

  addTreeSource(source: TreeSource): void {
    this.#ctx.treeSources.push(source);
  }

  atClose(end: () => Promise<void>): () => void {
    this.#ctx.open.add(end);
    return () => this.#ctx.open.delete(end);
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

async function takeBack(ctx: StoreContext, draft: Draft): Promise<void> {
  try {
    await withdraw(ctx, draft);
    await draft.tx?.cancel();
  } catch (error) {
    ctx.logger.warn(
      { id: draft.cacheID, ...errorFields(error) },
      'an unfinished record cannot be removed; the next cleanup tries again',
    );
  }
}
