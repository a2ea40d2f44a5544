/**
 * The read-only layers that are there, as a tree in memory. Changes only in synchronous sections, so that what one
 * sees before an `await`-free block is still true in it.
 */
import type { ChainID, DiffID } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor, LayerRecord } from '../metadata/metadata-store.js';
import type { Layer, LayerMetadata } from './types.js';

/** Counts who reads a thing's files now; its files go only when nobody does. */
export class Readers {
  #count = 0;
  /** Made when somebody waits: there is one of this for each layer. */
  #idle: (() => void)[] | undefined;

  get count(): number {
    return this.#count;
  }

  /** Gives what ends this reading; calling it twice is once. */
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
  /** Made when somebody reads: most of the layers of a large store never are. */
  #readers: Readers | undefined;
  handles = 0;
  children = 0;
  rwLayers = 0;
  pins = 0;
  /** Its last handle was released while work held it: it goes with that work, unless that gave it a child. */
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
  readonly #nodes = new Map<ChainID, LayerNode>();
  /** Removals whose record may still be on disk: who publishes the same layer waits for them. */
  readonly #erasing = new Map<ChainID, Promise<void>>();

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
