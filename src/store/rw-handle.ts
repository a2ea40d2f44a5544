/**
 * Handles on RW layers, and their mounts, counted over all handles: the first makes the kernel's mount, the last takes it
 * away. Mounting runs under the name's lock, so that mounts at once make one.
 */
import type { Readable } from 'node:stream';
import type { Driver } from '../driver/driver.js';
import type { Change, TarSource } from '../engine/engine.js';
import { digestMismatch, invalidArgument, LayerStoreError } from '../errors.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { checkBoolean, checkMountLabel, checkOptions, checkRegisterOptions, checkSource } from './arguments.js';
import type { Drafts } from './draft.js';
import type { Exports } from './export.js';
import type { LayerHandles } from './layer-handle.js';
import type { RWNode } from './layer-map.js';
import type { Lifecycle, Operation, OperationDetails } from './lifecycle.js';
import { usingSources } from './source.js';
import type { Layer, MountedPath, RegisterOptions, RWLayer } from './types.js';

class RWHandle implements RWLayer {
  readonly #all: RWHandles;
  readonly #parts: RWHandleParts;
  readonly #node: RWNode;

  constructor(all: RWHandles, parts: RWHandleParts, node: RWNode) {
    this.#all = all;
    this.#parts = parts;
    this.#node = node;
    node.owners.set(this, 0);
  }

  get name(): string {
    return this.#node.name;
  }

  get parent(): Layer | undefined {
    const { parent } = this.#node;
    return parent === undefined ? undefined : this.#parts.handles.lend(parent);
  }

  get mountCount(): number {
    return this.#node.mountCount;
  }

  mount(mountLabel?: string): Promise<string> {
    return this.#write('mount', (node) => this.#all.mount(node, this, checkMountLabel(mountLabel)));
  }

  unmount(): Promise<void> {
    return this.#write('unmount', (node) => this.#all.unmount(node, this));
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
      this.#parts.exports.guard(node.readers, () =>
        options?.sparse === true
          ? this.#parts.driver.diff(node.mountID, node.belowID, { sparse: true })
          : this.#parts.driver.diff(node.mountID, node.belowID),
      ),
    );
  }

  size(): Promise<number> {
    return this.#read('size', (node) => this.#parts.driver.diffSize(node.mountID, node.belowID));
  }

  changes(): Promise<Change[]> {
    return this.#read('changes', (node) => this.#parts.driver.changes(node.mountID, node.belowID));
  }

  async applyDiff(tar: TarSource, options?: RegisterOptions): Promise<number> {
    return usingSources([tar], async () => {
      const given = checkRegisterOptions(options, 'applyDiff');
      if (given.verifyExisting !== undefined)
        throw invalidArgument('"verifyExisting" is for read-only layers, not for applyDiff');
      const source = checkSource(tar);
      return this.#write('applyDiff', async (node, details) => {
        given.signal?.throwIfAborted();
        const apply = this.#parts.drafts.applyOptions(given, undefined);
        const result = await this.#parts.driver.applyDiff(node.mountID, node.belowID, source, apply);
        if (given.diffID !== undefined && result.diffID !== given.diffID) {
          throw digestMismatch('the diff id of the tar', result.diffID, given.diffID);
        }
        this.#parts.drafts.tellIgnored(details, node.name, result);
        details.bytes = result.size;
        return result.size;
      });
    });
  }

  metadata(): Promise<Record<string, string>> {
    return this.#read('metadata', (node) => this.#parts.driver.metadata(node.mountID));
  }

  async #read<T>(operation: Operation, work: (node: RWNode, details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#parts.lifecycle.read(operation, async (details) => {
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
    this.#parts.lifecycle.check(operation);
    this.#parts.lifecycle.checkWritable(operation);
    return this.#read(operation, work);
  }

  /** The node of a live handle of this store's. */
  static nodeOf(all: RWHandles, layer: unknown): RWNode {
    if (typeof layer !== 'object' || layer === null || !(#node in layer)) {
      throw new LayerStoreError(
        'ERR_LAYER_NOT_RETAINED',
        'this object is not a handle on an RW layer: pass what createRWLayer() or getRWLayer() gave',
      );
    }
    const handle: RWHandle = layer;
    if (handle.#all !== all) {
      throw new LayerStoreError(
        'ERR_LAYER_NOT_RETAINED',
        `this handle on RW layer "${handle.name}" is of another store, or of this one before a reopen`,
      );
    }
    if (!handle.#node.owners.has(handle)) throw releasedRW(handle.name);
    return handle.#node;
  }
}

interface RWHandleParts {
  readonly drafts: Drafts;
  readonly driver: Driver;
  readonly exports: Exports;
  readonly handles: LayerHandles;
  readonly lifecycle: Lifecycle;
  readonly locks: KeyedMutex;
  readonly logger: LoggerLike;
}

export class RWHandles {
  readonly #parts: RWHandleParts;

  constructor(parts: RWHandleParts) {
    this.#parts = parts;
  }

  /** Synchronously: a new handle on an RW layer. */
  create(node: RWNode): RWLayer {
    return new RWHandle(this, this.#parts, node);
  }

  /** The RW layer of a live handle; ERR_LAYER_NOT_RETAINED for anything else. */
  nodeOf(layer: unknown): RWNode {
    return RWHandle.nodeOf(this, layer);
  }

  mount(node: RWNode, owner: object, label: string | undefined): Promise<string> {
    return this.#parts.locks.run(`rw:${node.name}`, async () => {
      // The handle may have been released while this waited for its turn.
      if (!node.owners.has(owner)) throw releasedRW(node.name);
      const wanted = label ?? node.defaultLabel;
      let path = node.path;
      if (node.mountCount > 0 && path !== undefined) {
        if (label !== undefined && node.label !== null && node.label !== label) {
          throw invalidArgument(
            `RW layer "${node.name}" is mounted ${node.label === undefined ? 'without a label' : `with the label "${node.label}"`}: ` +
              `unmount it before it is mounted with "${label}"`,
          );
        }
        if (await this.#vanished(node)) path = undefined;
      }
      if (path === undefined) {
        path = await this.#parts.driver.get(node.mountID, wanted);
        node.label = wanted;
        node.path = path;
      }
      node.mountCount += 1;
      node.owners.set(owner, (node.owners.get(owner) ?? 0) + 1);
      return path;
    });
  }

  unmount(node: RWNode, owner: object): Promise<void> {
    return this.#parts.locks.run(`rw:${node.name}`, async () => {
      if (!node.owners.has(owner)) throw releasedRW(node.name);
      if (node.mountCount === 0) {
        throw new LayerStoreError(
          'ERR_NOT_MOUNTED',
          `RW layer "${node.name}" is not mounted: each mount() takes one unmount()`,
        );
      }
      if (node.mountCount === 1) {
        // A failed unmount, because a process uses the mount, keeps the count.
        await this.#putLast(node);
        node.path = undefined;
        node.label = undefined;
      }
      node.mountCount -= 1;
      disown(node, owner);
    });
  }

  async #putLast(node: RWNode): Promise<void> {
    try {
      await this.#parts.driver.put(node.mountID);
    } catch (error) {
      if (!(await this.#isMissing(node))) throw error;
      this.#parts.logger.warn(
        { name: node.name, path: node.path, ...errorFields(error) },
        'a mount had vanished before its unmount',
      );
    }
  }

  /** Whether a counted mount is missing in the mount table; then the driver's count is taken back. */
  async #vanished(node: RWNode): Promise<boolean> {
    if (!(await this.#isMissing(node))) return false;
    this.#parts.logger.warn(
      { name: node.name, path: node.path },
      'a mount has vanished behind the store and is made again',
    );
    try {
      await this.#parts.driver.put(node.mountID);
    } catch (error) {
      // There is nothing to unmount any more, which is what this is about.
      this.#parts.logger.debug({ name: node.name, ...errorFields(error) }, 'the driver could not put a vanished mount');
    }
    return true;
  }

  /** Whether the kernel has no mount where the driver made one. Without a parent there is none. */
  async #isMissing(node: RWNode): Promise<boolean> {
    return node.belowID !== undefined && this.#parts.driver.mountVanished(node.mountID);
  }

  /** Whether the layer is in the mount table although its count is 0. */
  async isInMountTable(node: RWNode): Promise<boolean> {
    const live = await this.#parts.driver.liveMounts();
    return live.some((mount) => mount.id === node.mountID || mount.id === node.initID);
  }
}

/** The mount that an unmount ends: one of the caller's, else an adopted one, else any. */
function disown(node: RWNode, owner: object): void {
  const own = node.owners.get(owner) ?? 0;
  if (own > 0) {
    node.owners.set(owner, own - 1);
  } else if (node.unowned > 0) {
    node.unowned -= 1;
  } else {
    for (const [other, count] of node.owners) {
      if (count === 0) continue;
      node.owners.set(other, count - 1);
      break;
    }
  }
}

export function releasedRW(name: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_NOT_RETAINED',
    `this handle on RW layer "${name}" was released before: getRWLayer() gives a new one while the layer is there`,
  );
}
