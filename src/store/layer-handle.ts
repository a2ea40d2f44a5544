/** The objects that programs hold: handles on read-only layers, and the ones that `map()` and `parent` lend out. */
import type { Readable } from 'node:stream';
import { type ChainID, type DiffID, parseChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { LayerEntry } from '../driver/layer-entries.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { checkOptions, checkSignal } from './arguments.js';
import type { Exports } from './export.js';
import { type LayerNode, missingLayer } from './layer-map.js';
import type { Lifecycle, Operation, OperationDetails } from './lifecycle.js';
import type { Exported, ExportOptions, Layer, LayerMetadata, MountedPath } from './types.js';

/** `live` counts as a handle; `lent` never did. */
type State = 'live' | 'released' | 'lent';

class LayerHandle implements Layer {
  readonly #all: LayerHandles;
  readonly #parts: LayerHandleParts;
  readonly #node: LayerNode;
  #state: State;
  #views = 0;

  constructor(all: LayerHandles, parts: LayerHandleParts, node: LayerNode, state: State) {
    this.#all = all;
    this.#parts = parts;
    this.#node = node;
    this.#state = state;
  }

  get chainID(): ChainID {
    return this.#node.chainID;
  }

  get diffID(): DiffID {
    return this.#node.diffID;
  }

  get parent(): Layer | undefined {
    const { parent } = this.#node;
    return parent === undefined ? undefined : this.#all.lend(parent);
  }

  get descriptor(): Descriptor | undefined {
    return this.#node.descriptor;
  }

  tarStream(): Promise<Readable> {
    return this.#run('tarStream', (node) => this.#parts.exports.tarStream(node));
  }

  tarStreamFrom(ancestor?: ChainID): Promise<Readable> {
    return this.#run('tarStreamFrom', (node) =>
      this.#parts.exports.tarStreamFrom(node, ancestor === undefined ? undefined : parseChainID(ancestor)),
    );
  }

  exportTo(target: { path: string } | { fd: number }, options?: ExportOptions): Promise<Exported> {
    return this.#run('exportTo', async (node, details) => {
      const result = await this.#parts.exports.exportTo(node, target, options);
      details.bytes = result.bytes;
      return result;
    });
  }

  tarSize(): Promise<number> {
    return this.#run('tarSize', (node) => this.#parts.exports.tarSize(node));
  }

  entries(options: { signal?: AbortSignal } = {}): Promise<AsyncIterable<LayerEntry>> {
    return this.#run('entries', (node) => {
      checkOptions(options, 'options of entries', ['signal']);
      checkSignal(options.signal);
      options.signal?.throwIfAborted();
      return this.#parts.exports.entries(node, options.signal);
    });
  }

  view(): Promise<MountedPath> {
    return this.#run('view', async (node) => {
      this.#parts.lifecycle.checkWritable('view a layer');
      // Counted before the mount is made, so that no release can happen in between.
      this.#views += 1;
      try {
        return await this.#all.openView(node, () => (this.#views -= 1));
      } catch (error) {
        this.#views -= 1;
        throw error;
      }
    });
  }

  size(): Promise<number> {
    return this.#run('size', async (node) => node.size);
  }

  diffSize(): Promise<number> {
    return this.#run('size', async (node) => node.diffSize);
  }

  metadata(): Promise<Record<string, string>> {
    return this.#run('metadata', (node) => this.#parts.driver.metadata(node.cacheID));
  }

  async #run<T>(operation: Operation, work: (node: LayerNode, details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#parts.lifecycle.read(operation, async (details) => {
      details.chainID = this.#node.chainID;
      if (this.#state === 'released') throw notRetained(this.#node.chainID, 'its handle was released before');
      if (this.#node.gone) throw missingLayer(this.#node.chainID);
      const leave = this.#node.readers.enter();
      try {
        return await work(this.#node, details);
      } finally {
        leave();
      }
    });
  }

  /** The node of a live handle of this store's, which is released by this; `undo` makes it live again. */
  static take(all: LayerHandles, layer: unknown): { node: LayerNode; undo: () => void } {
    if (typeof layer !== 'object' || layer === null || !(#state in layer)) {
      throw notRetained(undefined, 'release() takes what register(), registerChain(), get() or commit() gave');
    }
    const handle: LayerHandle = layer;
    const { chainID } = handle.#node;
    if (handle.#all !== all)
      throw notRetained(chainID, 'its handle is of another store, or of this one before a reopen');
    if (handle.#state === 'lent')
      throw notRetained(chainID, 'what map() and parent give are not handles: get() gives one');
    if (handle.#state === 'released') throw notRetained(chainID, 'its handle was released before');
    if (handle.#views > 0) {
      throw new LayerStoreError(
        'ERR_ACTIVE_MOUNT',
        `cannot release layer "${chainID}": ${handle.#views} of this handle's views are open; dispose of them first`,
      );
    }
    handle.#state = 'released';
    handle.#node.handles -= 1;
    return {
      node: handle.#node,
      undo: () => {
        handle.#state = 'live';
        handle.#node.handles += 1;
      },
    };
  }
}

interface LayerHandleParts {
  readonly driver: Driver;
  readonly logger: LoggerLike;
  readonly exports: Exports;
  readonly lifecycle: Lifecycle;
}

export class LayerHandles {
  readonly #parts: LayerHandleParts;

  constructor(parts: LayerHandleParts) {
    this.#parts = parts;
  }

  /** Synchronously: a new handle on a layer. */
  create(node: LayerNode): Layer {
    node.handles += 1;
    node.abandoned = false;
    return new LayerHandle(this, this.#parts, node, 'live');
  }

  /** The object that `map()` and `parent` return; it does not keep the layer. */
  lend(node: LayerNode): Layer {
    node.borrowed ??= new LayerHandle(this, this.#parts, node, 'lent');
    return node.borrowed;
  }

  /** Ends a handle. Returns the removed layers, top first. */
  async release(layer: unknown, remove: (node: LayerNode) => Promise<LayerMetadata[]>): Promise<LayerMetadata[]> {
    const { node, undo } = LayerHandle.take(this, layer);
    if (node.handles === 0 && node.pins > 0) {
      node.abandoned = true;
      return [];
    }
    try {
      const removed = await remove(node);
      // Work that pinned it meanwhile removes it at its end.
      if (!node.gone && node.handles === 0 && node.pins > 0) node.abandoned = true;
      return removed;
    } catch (error) {
      undo();
      throw error;
    }
  }

  /** `closed` is called once, when the view was disposed of. */
  async openView(node: LayerNode, closed: () => void): Promise<MountedPath> {
    const leave = node.readers.enter();
    let path: string;
    try {
      path = await this.#parts.driver.view(node.cacheID);
    } catch (error) {
      leave();
      throw error;
    }
    let disposal: Promise<void> | undefined;
    const dispose = (): Promise<void> => {
      disposal ??= this.#parts.driver.put(node.cacheID).then(
        () => {
          this.#parts.lifecycle.ended(atClose);
          leave();
          closed();
        },
        (error: unknown) => {
          // Busy: the view stays open, and can be disposed again.
          disposal = undefined;
          throw error;
        },
      );
      return disposal;
    };
    const atClose = async (): Promise<void> => {
      try {
        await dispose();
      } catch (error) {
        this.#parts.logger.warn(
          { chainID: node.chainID, path, ...errorFields(error) },
          'a view stays mounted after close',
        );
      }
    };
    this.#parts.lifecycle.opened(atClose);
    return { path, [Symbol.asyncDispose]: dispose };
  }
}

function notRetained(chainID: ChainID | undefined, why: string): LayerStoreError {
  const what = chainID === undefined ? 'this object is not a handle on a layer' : `layer "${chainID}" is not retained`;
  return new LayerStoreError('ERR_LAYER_NOT_RETAINED', `${what}: ${why}`);
}
