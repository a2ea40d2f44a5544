/**
 * How layers go. Decided in one synchronous section; then the record is marked, the files are renamed away (both
 * instant), and unlinked in the background. A crash anywhere in between leaves a marked record or an intent, by which
 * recovery ends it.
 */
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import { LayerStoreError } from '../errors.js';
import type { FullMetadataStore } from '../metadata/metadata-store.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { TaskQueue } from '../util/task-queue.js';
import type { Intents } from './intents.js';
import type { LayerMap, LayerNode, Readers } from './layer-map.js';
import type { References } from './references.js';
import type { LayerMetadata } from './types.js';

interface RemovalParts {
  readonly background: TaskQueue;
  readonly driver: Driver;
  readonly intents: Intents;
  readonly layers: LayerMap;
  readonly locks: KeyedMutex;
  readonly logger: LoggerLike;
  readonly metadata: FullMetadataStore;
  readonly references: References;
}

export class Removals {
  readonly #parts: RemovalParts;
  /** Driver ids of layers whose removal this process will end. */
  readonly #removing = new Set<string>();
  /** Ends of removals that wait for whoever still reads. */
  readonly #trailing = new Set<Promise<void>>();

  constructor(parts: RemovalParts) {
    this.#parts = parts;
  }

  /** Removes `node`, and its parents in the same way, where nothing holds them. What was removed, top first. */
  async removeUnheld(node: LayerNode): Promise<LayerMetadata[]> {
    if (node.held || node.gone || this.#parts.references.holds(node.chainID)) return [];
    const external = await this.#parts.references.external();
    if (external.incomplete !== undefined) {
      this.#parts.logger.debug(
        { chainID: node.chainID, why: external.incomplete },
        'an unreferenced layer is kept for gc',
      );
      return [];
    }
    return this.eraseAll(this.takeUnheld(node, external.chains));
  }

  /** Synchronously: takes `node` and the parents that nothing else holds out of the map, top first. */
  takeUnheld(node: LayerNode, external: ReadonlySet<ChainID>): LayerNode[] {
    const taken: LayerNode[] = [];
    let next: LayerNode | undefined = node;
    while (next !== undefined && !next.gone && !next.held) {
      if (this.#parts.references.holds(next.chainID) || external.has(next.chainID)) break;
      this.#parts.layers.take(next);
      taken.push(next);
      next = next.parent;
    }
    return taken;
  }

  /**
   * Removes what `takeUnheld` took. A failure before the first record was marked puts everything back and rejects; one
   * further down leaves the rest in place, said in the log.
   */
  eraseAll(taken: readonly LayerNode[]): Promise<LayerMetadata[]> {
    // Synchronous up to here and into the loop: a publisher of the same layer sees the removal before its first await.
    let settle!: () => void;
    const over = new Promise<void>((resolve) => (settle = resolve));
    for (const node of taken) this.#parts.layers.noteErasing(node.chainID, over);
    return this.#eraseInOrder(taken).finally(settle);
  }

  async #eraseInOrder(taken: readonly LayerNode[]): Promise<LayerMetadata[]> {
    const removed: LayerMetadata[] = [];
    for (const [index, node] of taken.entries()) {
      try {
        await this.#parts.locks.run(`layer:${node.chainID}`, () => this.#eraseOne(node));
      } catch (error) {
        // Bottom first: a layer's parent is in the map before it.
        for (const rest of taken.slice(index).reverse()) this.#parts.layers.restore(rest);
        if (index === 0) throw error;
        this.#parts.logger.error(
          { chainID: node.chainID, ...errorFields(error) },
          'cannot remove an unreferenced layer; gc tries again',
        );
        break;
      }
      removed.push(node.metadata());
    }
    return removed;
  }

  /** Rejects only while the layer is still whole. */
  async #eraseOne(node: LayerNode): Promise<void> {
    const { chainID, cacheID } = node;
    this.#removing.add(cacheID);
    try {
      await this.#parts.metadata.markRemoving(chainID);
    } catch (error) {
      this.#removing.delete(cacheID);
      throw error;
    }
    const ended = this.#endErasing(node);
    // The rename is awaited, so that the layer is removed when this resolves; readers of its files are not.
    if (node.readers.count === 0) await ended;
    else this.trail(ended);
  }

  /** `close` waits for `work`, which waits for readers and never rejects. */
  trail(work: Promise<void>): void {
    this.#trailing.add(work);
    void work.then(() => this.#trailing.delete(work));
  }

  /** The marked record says what is left to do until this has ended; never rejects. */
  async #endErasing({ chainID, cacheID, readers }: LayerNode): Promise<void> {
    try {
      await readers.idle();
      void this.#parts.background.push(await this.#parts.driver.detach(cacheID));
      await this.#parts.metadata.remove(chainID, cacheID);
    } catch (error) {
      this.#parts.intents.letGo(cacheID); // where it is noted by one
      this.#parts.logger.error(
        { chainID, cacheID, ...errorFields(error) },
        'a removal is left half done; cleanup() ends it',
      );
    } finally {
      this.#removing.delete(cacheID);
    }
  }

  /**
   * Removes driver ids without a record, when they have no readers, then the intent that names them.
   * Never rejects: what cannot be removed keeps its intent, for recovery.
   */
  async discardFiles(intentID: string, ids: readonly string[], readers?: Readers): Promise<void> {
    if (readers !== undefined && readers.count > 0) await readers.idle();
    try {
      for (const id of ids) void this.#parts.background.push(await this.#parts.driver.detach(id));
      await this.#parts.intents.end(intentID);
    } catch (error) {
      this.#parts.intents.letGo(intentID);
      this.#parts.logger.error(
        { ids, ...errorFields(error) },
        'files that nothing needs cannot be removed; the next cleanup tries again',
      );
    }
  }

  /**
   * Runs `remove` of an id that nothing needs and no process works on; where a mount is in the way, an init layer's that was
   * being filled when its process died, that goes first. EBUSY of somebody who still uses it comes through.
   */
  async withoutDeadMount(id: string, remove: () => Promise<void>): Promise<void> {
    try {
      await remove();
    } catch (error) {
      if (!LayerStoreError.is(error, 'ERR_ACTIVE_MOUNT')) throw error;
      await putDead(this.#parts.driver, id);
      this.#parts.logger.info({ id }, 'the mount of an unfinished layer is taken away');
      await remove();
    }
  }

  /** Whether this process will end the removal of the driver id. */
  isRemoving(cacheID: string): boolean {
    return this.#removing.has(cacheID);
  }

  /** Resolves when nothing waits for readers any more. */
  async trailed(): Promise<void> {
    await Promise.all(this.#trailing);
  }

  /** Ends a pin. Removes the layer if it was released meanwhile and has no child. */
  async unpin(node: LayerNode | undefined): Promise<void> {
    if (node === undefined) return;
    node.pins -= 1;
    if (!node.abandoned || node.pins > 0) return;
    node.abandoned = false;
    if (node.held || node.gone) return;
    try {
      await this.removeUnheld(node);
    } catch (error) {
      this.#parts.logger.error(
        { chainID: node.chainID, ...errorFields(error) },
        'cannot remove a released layer; gc tries again',
      );
    }
  }
}

/** Where an earlier attempt found the mount busy it is the driver's already: taken over twice it would count twice. */
async function putDead(driver: Driver, id: string): Promise<void> {
  try {
    await driver.put(id);
  } catch (error) {
    if (!LayerStoreError.is(error, 'ERR_NOT_MOUNTED')) throw error;
    await driver.adopt(id);
    await driver.put(id);
  }
}
