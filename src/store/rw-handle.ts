/** Handles on writable layers. */
import type { Readable } from 'node:stream';
import type { Change, TarSource } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import {
  checkBoolean,
  checkMountLabel,
  checkOptions,
  checkRegisterOptions,
  checkSource,
  invalid,
} from './arguments.js';
import type { StoreContext } from './context.js';
import type { Operation, OperationDetails } from './diagnostics.js';
import { applyOptions } from './draft.js';
import { guard } from './export.js';
import { lend } from './layer-handle.js';
import type { RWNode } from './rw-map.js';
import { mountRW, releasedRW, unmountRW } from './rw-mounts.js';
import { usingSources } from './source.js';
import type { Layer, MountedPath, RegisterOptions, RWLayer } from './types.js';

class RWHandle implements RWLayer {
  readonly #ctx: StoreContext;
  readonly #node: RWNode;

  constructor(ctx: StoreContext, node: RWNode) {
    this.#ctx = ctx;
    this.#node = node;
    node.owners.set(this, 0);
  }

  get name(): string {
    return this.#node.name;
  }

  get parent(): Layer | undefined {
    const { parent } = this.#node;
    return parent === undefined ? undefined : lend(this.#ctx, parent);
  }

  get mountCount(): number {
    return this.#node.mountCount;
  }

  mount(mountLabel?: string): Promise<string> {
    return this.#write('mount', (node) => mountRW(this.#ctx, node, this, checkMountLabel(mountLabel)));
  }

  unmount(): Promise<void> {
    return this.#write('unmount', (node) => unmountRW(this.#ctx, node, this));
  }

  async mounted(mountLabel?: string): Promise<MountedPath> {
    const path = await this.mount(mountLabel);
    let disposal: Promise<void> | undefined;
    const dispose = (): Promise<void> => {
      disposal ??= this.unmount().catch((error: unknown) => {
        disposal = undefined; // busy: disposing again tries again
        throw error;
      });
      return disposal;
    };
    return { path, [Symbol.asyncDispose]: dispose };
  }

  async tarStream(options?: { sparse?: boolean }): Promise<Readable> {
    checkOptions(options, 'options of tarStream', ['sparse']);
    checkBoolean(options?.sparse, '"sparse"');
    return this.#read('tarStream', (node) =>
      guard(this.#ctx, node.readers, () =>
        options?.sparse === true
          ? this.#ctx.driver.diff(node.mountID, node.belowID, { sparse: true })
          : this.#ctx.driver.diff(node.mountID, node.belowID),
      ),
    );
  }

  size(): Promise<number> {
    return this.#read('size', (node) => this.#ctx.driver.diffSize(node.mountID, node.belowID));
  }

  changes(): Promise<Change[]> {
    return this.#read('changes', (node) => this.#ctx.driver.changes(node.mountID, node.belowID));
  }

  async applyDiff(tar: TarSource, options?: RegisterOptions): Promise<number> {
    return usingSources([tar], async () => {
      const given = checkRegisterOptions(options, 'applyDiff');
      if (given.verifyExisting !== undefined)
        throw invalid('"verifyExisting" is for read-only layers, not for applyDiff');
      const source = checkSource(tar);
      return this.#write('applyDiff', async (node, details) => {
        given.signal?.throwIfAborted();
        const apply = applyOptions(this.#ctx, given, undefined);
        const result = await this.#ctx.driver.applyDiff(node.mountID, node.belowID, source, apply);
        if (given.diffID !== undefined && result.diffID !== given.diffID) {
          throw new LayerStoreError(
            'ERR_DIGEST_MISMATCH',
            `the tar's diff id is "${result.diffID}", not "${given.diffID}"`,
          );
        }
        details.bytes = result.size;
        return result.size;
      });
    });
  }

  metadata(): Promise<Record<string, string>> {
    return this.#read('metadata', (node) => this.#ctx.driver.metadata(node.mountID));
  }

  async #read<T>(operation: Operation, work: (node: RWNode, details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#ctx.lifecycle.read(operation, async (details) => {
      details.name = this.#node.name;
      if (!this.#node.owners.has(this)) throw releasedRW(this.#node.name);
      const leave = this.#node.readers.enter();
      try {
        return await work(this.#node, details);
      } finally {
        leave();
      }
    });
  }

  async #write<T>(operation: Operation, work: (node: RWNode, details: OperationDetails) => Promise<T>): Promise<T> {
    this.#ctx.lifecycle.check(operation);
    this.#ctx.lifecycle.checkWritable(operation);
    return this.#read(operation, work);
  }

  /** The node of a live handle of this store's. */
  static nodeOf(ctx: StoreContext, layer: unknown): RWNode {
    if (typeof layer !== 'object' || layer === null || !(#node in layer)) {
      throw new LayerStoreError(
        'ERR_LAYER_NOT_RETAINED',
        'this object is no handle on an RW layer: pass what createRWLayer() or getRWLayer() gave',
      );
    }
    const handle: RWHandle = layer;
    if (handle.#ctx !== ctx) {
      throw new LayerStoreError(
        'ERR_LAYER_NOT_RETAINED',
        `this handle on RW layer "${handle.name}" is of another store, or of this one before a reopen`,
      );
    }
    if (!handle.#node.owners.has(handle)) throw releasedRW(handle.name);
    return handle.#node;
  }
}

/** Synchronously: a new handle on an RW layer. */
export function createRWHandle(ctx: StoreContext, node: RWNode): RWLayer {
  return new RWHandle(ctx, node);
}

/** The RW layer of a live handle; ERR_LAYER_NOT_RETAINED for anything else. */
export function rwNodeOf(ctx: StoreContext, layer: unknown): RWNode {
  return RWHandle.nodeOf(ctx, layer);
}
