/**
 * The layers and RW layers of the store, as trees in memory. The maps change only in synchronous sections, so a check holds
 * until the next `await`.
 */
import type { ChainID, DiffID } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor, LayerRecord } from '../metadata/metadata-store.js';
import type { Layer, LayerMetadata, RWLayerInfo } from './types.js';
import { defined } from '../util/defined.js';

/** Counts the readers of a layer's files; the files are removed only when there are none. */
export class Readers {
  #count = 0;
  /** Made on the first wait, since there is one for each layer. */
  #idle: (() => void)[] | undefined;

  get count(): number {
    return this.#count;
  }

  /** Begins a reading; returns the function that ends it, which may be called twice. */
  enter(): () => void {
    this.#count += 1;
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.#count -= 1;
      if (this.#count > 0 || this.#idle === undefined) return;
      for (const resolve of this.#idle.splice(0)) resolve();
    };
  }

  async idle(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => (this.#idle ??= []).push(resolve));
  }
}

/** One layer. What keeps it: handles, children, RW layers, named references, and `pins` of work under way. */
export class LayerNode {
  readonly chainID: ChainID;
  readonly diffID: DiffID;
  readonly cacheID: string;
  /** Bytes of this layer alone. */
  readonly diffSize: number;
  /** This layer and every parent, bytes. */
  readonly size: number;
  readonly parent: LayerNode | undefined;
  readonly descriptor: Descriptor | undefined;
  /** A layer without parent has depth 1. */
  readonly depth: number;
  /** Made on the first reading: most layers of a large store are never read. */
  #readers: Readers | undefined;
  handles = 0;
  children = 0;
  rwLayers = 0;
  pins = 0;
  /** Its last handle was released while a pin held it: the end of the pin removes it, unless it has a child by then. */
  abandoned = false;
  /** Taken out of the map. */
  gone = false;
  /** The object that `map()` and `parent` give: no handle. */
  borrowed: Layer | undefined;

  constructor(record: LayerRecord, parent: LayerNode | undefined) {
    this.chainID = record.chainID;
    this.diffID = record.diffID;
    this.cacheID = record.cacheID;
    this.diffSize = record.size;
    this.size = record.size + (parent?.size ?? 0);
    this.parent = parent;
    this.descriptor = record.descriptor;
    this.depth = (parent?.depth ?? 0) + 1;
  }

  get readers(): Readers {
    return (this.#readers ??= new Readers());
  }

  get held(): boolean {
    return this.handles + this.children + this.rwLayers + this.pins > 0;
  }

  metadata(): LayerMetadata {
    return { chainID: this.chainID, diffID: this.diffID, size: this.size, diffSize: this.diffSize };
  }
}

export class LayerMap implements Iterable<LayerNode> {
  readonly #maxDepth: number;
  readonly #nodes = new Map<ChainID, LayerNode>();
  /** Removals whose record may still be on disk; publishing the same layer waits for them. */
  readonly #erasing = new Map<ChainID, Promise<void>>();

  constructor(maxDepth: number) {
    this.#maxDepth = maxDepth;
  }

  get count(): number {
    return this.#nodes.size;
  }

  [Symbol.iterator](): Iterator<LayerNode> {
    return this.#nodes.values();
  }

  find(chainID: ChainID): LayerNode | undefined {
    return this.#nodes.get(chainID);
  }

  require(chainID: ChainID): LayerNode {
    const node = this.#nodes.get(chainID);
    if (node !== undefined) return node;
    throw missingLayer(chainID);
  }

  /** A pin on the parent; ERR_LAYER_DOES_NOT_EXIST, ERR_MAX_DEPTH_EXCEEDED where `count` more layers do not fit on it. */
  pinParent(parent: ChainID | undefined, count: number): LayerNode | undefined {
    const node = parent === undefined ? undefined : this.require(parent);
    const depth = (node?.depth ?? 0) + count;
    if (depth > this.#maxDepth) {
      throw new LayerStoreError(
        'ERR_MAX_DEPTH_EXCEEDED',
        `a chain of ${depth} layers is too deep: the limit is ${this.#maxDepth}; squash the image or raise "maxDepth"`,
      );
    }
    if (node !== undefined) node.pins += 1;
    return node;
  }

  /** Synchronously: adds a layer whose parent is `parent`. */
  add(record: LayerRecord, parent: LayerNode | undefined): LayerNode {
    const node = new LayerNode(record, parent);
    this.#nodes.set(node.chainID, node);
    if (parent !== undefined) parent.children += 1;
    return node;
  }

  /** Synchronously: takes a layer out that nothing holds. */
  take(node: LayerNode): void {
    this.#nodes.delete(node.chainID);
    node.gone = true;
    if (node.parent !== undefined) node.parent.children -= 1;
  }

  /** Puts back what `take` took: its removal failed before it began. */
  restore(node: LayerNode): void {
    this.#nodes.set(node.chainID, node);
    node.gone = false;
    if (node.parent !== undefined) node.parent.children += 1;
  }

  erasing(chainID: ChainID): Promise<void> | undefined {
    return this.#erasing.get(chainID);
  }

  /** Notes a removal under way; `over` never rejects. */
  noteErasing(chainID: ChainID, over: Promise<void>): void {
    this.#erasing.set(chainID, over);
    void over.then(() => {
      if (this.#erasing.get(chainID) === over) this.#erasing.delete(chainID);
    });
  }
}

export function missingLayer(chainID: ChainID): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_DOES_NOT_EXIST',
    `there is no layer "${chainID}" in this store: map() lists the ones that are`,
  );
}

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
  /** Mounts over all handles, and adopted ones, which were found at open. */
  mountCount = 0;
  unowned = 0;
  path: string | undefined;
  /** Label of the mount; `null` if an earlier process made the mount: its label is not known. */
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
      ...defined({ initID: this.initID, parent }),
      mountCount: this.mountCount,
      ...defined({ path: this.path }),
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

/** Every driver id that a record names. */
export function recordedIDs(layers: LayerMap, rwLayers: RWMap): Set<string> {
  const ids = new Set<string>();
  for (const layer of layers) ids.add(layer.cacheID);
  for (const rw of rwLayers) {
    ids.add(rw.mountID);
    if (rw.initID !== undefined) ids.add(rw.initID);
  }
  return ids;
}
