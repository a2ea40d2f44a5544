/** The writable layers that are there, with their mounts. Changes only in synchronous sections, as the layer map does. */
import type { ChainID } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import { Readers, type LayerNode } from './layer-map.js';
import type { RWLayerInfo } from './types.js';

export interface RWRecord {
  name: string;
  mountID: string;
  initID: string | undefined;
}

/** One writable layer. `owners` are its handles with the mounts that each has open. */
export class RWNode {
  readonly name: string;
  readonly mountID: string;
  readonly initID: string | undefined;
  readonly parent: LayerNode | undefined;
  readonly owners = new Map<object, number>();
  readonly readers = new Readers();
  /** Mounts over all handles, and those of nobody: found at open. */
  mountCount = 0;
  unowned = 0;
  path: string | undefined;
  /** Label of the mount; `null` where an earlier process made it and nobody knows. */
  label: string | undefined | null;
  /** Label given at creation: what `mount()` without one uses. Known to this process alone. */
  defaultLabel: string | undefined;
  gone = false;

  constructor(record: RWRecord, parent: LayerNode | undefined) {
    this.name = record.name;
    this.mountID = record.mountID;
    this.initID = record.initID;
    this.parent = parent;
  }

  /** The driver's id of what lies directly below. */
  get belowID(): string | undefined {
    return this.initID ?? this.parent?.cacheID;
  }

  info(): RWLayerInfo {
    const parent: ChainID | undefined = this.parent?.chainID;
    return {
      name: this.name,
      mountID: this.mountID,
      ...(this.initID === undefined ? {} : { initID: this.initID }),
      ...(parent === undefined ? {} : { parent }),
      mountCount: this.mountCount,
      ...(this.path === undefined ? {} : { path: this.path }),
    };
  }
}

export class RWMap implements Iterable<RWNode> {
  readonly #nodes = new Map<string, RWNode>();

  get count(): number {
    return this.#nodes.size;
  }

  [Symbol.iterator](): Iterator<RWNode> {
    return this.#nodes.values();
  }

  find(name: string): RWNode | undefined {
    return this.#nodes.get(name);
  }

  require(name: string): RWNode {
    const node = this.#nodes.get(name);
    if (node !== undefined) return node;
    throw new LayerStoreError(
      'ERR_MOUNT_DOES_NOT_EXIST',
      `there is no RW layer named "${name}" in this store: mounts() lists the ones that are`,
    );
  }

  /** Synchronously: adds an RW layer, which keeps its parent. */
  add(record: RWRecord, parent: LayerNode | undefined): RWNode {
    const node = new RWNode(record, parent);
    this.#nodes.set(node.name, node);
    if (parent !== undefined) parent.rwLayers += 1;
    return node;
  }

  /** Synchronously: takes one out; its parent is no longer kept by it. */
  take(node: RWNode): void {
    this.#nodes.delete(node.name);
    node.gone = true;
    if (node.parent !== undefined) node.parent.rwLayers -= 1;
  }
}
