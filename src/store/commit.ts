/**
 * Commits: makes a read-only layer of an RW layer's changes. The layer is the same as if the tar of the changes were
 * registered, but a driver that can makes no tar. With `consume` the layer takes the files and the RW layer is removed.
 */
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { SingleFlight } from '../util/single-flight.js';
import type { Draft, Drafts } from './draft.js';
import type { Intents } from './intents.js';
import type { LayerHandles } from './layer-handle.js';
import type { LayerMap, LayerNode, RWMap, RWNode } from './layer-map.js';
import type { Observed } from './lifecycle.js';
import type { Removals } from './removal.js';
import type { RWHandles } from './rw-handle.js';
import type { RWLayers } from './rw-layers.js';
import type { Layer, RegisterOptions } from './types.js';

export type CommitOptions = RegisterOptions & { consume?: boolean };

interface CommitParts {
  readonly drafts: Drafts;
  readonly driver: Driver;
  readonly flights: SingleFlight<LayerNode>;
  readonly handles: LayerHandles;
  readonly intents: Intents;
  readonly layers: LayerMap;
  readonly locks: KeyedMutex;
  readonly logger: LoggerLike;
  readonly removals: Removals;
  readonly rw: RWLayers;
  readonly rwHandles: RWHandles;
  readonly rwLayers: RWMap;
}

export class Commits {
  readonly #parts: CommitParts;

  constructor(parts: CommitParts) {
    this.#parts = parts;
  }

  async commit(layer: unknown, options: Observed<CommitOptions>): Promise<Layer> {
    const rw = this.#parts.rwHandles.nodeOf(layer);
    options.signal?.throwIfAborted();
    const parent = this.#parts.layers.pinParent(rw.parent?.chainID, 1);
    try {
      if (options.consume !== true) return await this.#commitCopy(rw, parent, options);
      return await this.#parts.locks.run(`rw:${rw.name}`, async () => {
        this.#parts.rwHandles.nodeOf(layer); // released while this waited?
        await this.#parts.rw.checkConsumable(rw, layer as object);
        return this.consume(rw, parent, options);
      });
    } finally {
      await this.#parts.removals.unpin(parent);
    }
  }

  async #commitCopy(rw: RWNode, parent: LayerNode | undefined, options: Observed<CommitOptions>): Promise<Layer> {
    const leave = rw.readers.enter();
    try {
      const draft = await this.#parts.drafts.begin({ kind: 'layer' }, options);
      let node: LayerNode | undefined;
      try {
        await this.fill(draft, rw, parent, options, false);
        node = await this.#publish(draft, parent, options);
        return this.#parts.handles.create(node);
      } catch (error) {
        await this.#parts.drafts.discard(draft);
        throw error;
      } finally {
        await this.#parts.removals.unpin(node);
      }
    } finally {
      leave();
    }
  }

  /**
   * Crash order: intent (durable), files taken over, record published, RW record dropped, intent dropped. Before the
   * publication recovery gives the files back to the RW layer; after it, it drops the RW layer.
   */
  async consume(rw: RWNode, parent: LayerNode | undefined, options: Observed<CommitOptions>): Promise<Layer> {
    const intent = { kind: 'consume', name: rw.name, rwID: rw.mountID } as const;
    const draft = await this.#parts.drafts.begin(intent, options);
    let node: LayerNode;
    try {
      await this.fill(draft, rw, parent, options, true);
      await this.#parts.drafts.sync([draft.cacheID], options.signal);
      await this.#waitForChain(draft);
      options.signal?.throwIfAborted();
      const published = await this.#parts.drafts.publish(draft, parent);
      node = published.node;
      if (!published.fresh) {
        // The same layer exists already: its own files stay, the taken ones and the RW layer are removed.
        draft.publishing = false;
        try {
          await this.#parts.rw.remove(rw);
        } catch (error) {
          await this.#parts.removals.unpin(node);
          throw error;
        }
      }
    } catch (error) {
      await this.#giveBack(draft, rw);
      throw error;
    }
    try {
      const handle = this.#parts.handles.create(node);
      if (!draft.publishing) await this.#parts.drafts.discard(draft);
      else if (await this.#dropConsumed(rw)) await this.#parts.drafts.end(draft);
      else this.#parts.intents.letGo(draft.cacheID); // by it the next open drops the RW layer's record
      return handle;
    } finally {
      await this.#parts.removals.unpin(node);
    }
  }

  /** Gives the RW layer its files back. On failure the intent stays, and the next open tries again. */
  async #giveBack(draft: Draft, rw: RWNode): Promise<void> {
    try {
      await this.#parts.driver.undoConsume(draft.cacheID, rw.mountID);
    } catch (error) {
      this.#parts.intents.letGo(draft.cacheID);
      this.#parts.logger.error(
        { name: rw.name, id: draft.cacheID, ...errorFields(error) },
        'a failed commit cannot give the RW layer its files back; the next open tries again',
      );
      await draft.tx?.cancel().catch(() => undefined); // the log has the failure that matters
      return;
    }
    await this.#parts.drafts.discard(draft);
  }

  /** The layer is published, so the RW layer is removed, now or by recovery. Returns whether it was removed now. */
  async #dropConsumed(rw: RWNode): Promise<boolean> {
    try {
      await this.#parts.rw.remove(rw);
      return true;
    } catch (error) {
      this.#parts.rwLayers.take(rw);
      rw.owners.clear();
      this.#parts.logger.error(
        { name: rw.name, ...errorFields(error) },
        'the record of a consumed RW layer cannot be removed; the next open does it',
      );
      return false;
    }
  }

  async #publish(draft: Draft, parent: LayerNode | undefined, options: Observed<CommitOptions>): Promise<LayerNode> {
    await this.#parts.drafts.sync([draft.cacheID], options.signal);
    await this.#waitForChain(draft);
    options.signal?.throwIfAborted();
    const { node, fresh } = await this.#parts.drafts.publish(draft, parent);
    if (fresh) await this.#parts.drafts.end(draft);
    else await this.#parts.drafts.discard(draft);
    return node;
  }

  /** Waits for a registerChain that makes the same layer, as register() does. */
  async #waitForChain(draft: Draft): Promise<void> {
    if (draft.record !== undefined) await this.#parts.flights.of(draft.record.chainID);
  }

  async fill(
    draft: Draft,
    rw: RWNode,
    parent: LayerNode | undefined,
    options: Observed<CommitOptions>,
    consumes: boolean,
  ): Promise<void> {
    const apply = this.#parts.drafts.applyOptions(options, undefined);
    const chain: ChainID | undefined = parent?.chainID;
    await this.#parts.drafts.fill(draft, chain, undefined, apply, (tarSplit) =>
      this.#parts.driver.commitDiff(draft.cacheID, parent?.cacheID, rw.mountID, rw.belowID, {
        ...apply,
        ...tarSplit,
        consume: consumes,
      }),
    );
  }
}
