/** The store as a plain Map: what must be there after each operation, by the rules on references and nothing else. */
import type { ChainID, DiffID } from '../../src/digest.js';
import { createChainID } from '../../src/digest.js';

export interface ModelLayer {
  diffID: DiffID;
  parent: ChainID | undefined;
  diffSize: number;
  handles: number;
}

export interface ModelRWLayer {
  parent: ChainID | undefined;
  handles: number;
  /** Mounts over all handles, an adopted one included. */
  mounts: number;
}

export interface Removed {
  chainID: ChainID;
  diffID: DiffID;
  size: number;
  diffSize: number;
}

export class StoreModel {
  readonly layers = new Map<ChainID, ModelLayer>();
  readonly rwLayers = new Map<string, ModelRWLayer>();
  readonly references = new Map<string, ChainID>();

  /** One more handle on a layer, which is made if it is not there. */
  register(diffID: DiffID, diffSize: number, parent?: ChainID): ChainID {
    const id = createChainID([diffID], parent);
    if (id === undefined) throw new Error('one diff id always has a chain id');
    const layer = this.layers.get(id) ?? { diffID, parent, diffSize, handles: 0 };
    layer.handles++;
    this.layers.set(id, layer);
    return id;
  }

  /** Gives up a handle; what goes with it, top first. */
  release(id: ChainID): Removed[] {
    const layer = this.layers.get(id);
    if (layer !== undefined) layer.handles--;
    return this.removeUnused(id);
  }

  /** Removes the layer if nothing holds it, then its parents in the same way. */
  removeUnused(id: ChainID | undefined): Removed[] {
    const removed: Removed[] = [];
    for (let at = id; at !== undefined && !this.isHeld(at);) {
      const layer = this.layers.get(at);
      if (layer === undefined) break;
      removed.push({ chainID: at, diffID: layer.diffID, size: this.sizeOf(at), diffSize: layer.diffSize });
      this.layers.delete(at);
      at = layer.parent;
    }
    return removed;
  }

  isHeld(id: ChainID): boolean {
    if ((this.layers.get(id)?.handles ?? 0) > 0) return true;
    if ([...this.references.values()].includes(id)) return true;
    if ([...this.rwLayers.values()].some(({ parent }) => parent === id)) return true;
    return [...this.layers.values()].some(({ parent }) => parent === id);
  }

  sizeOf(id: ChainID): number {
    let size = 0;
    for (let at: ChainID | undefined = id; at !== undefined; at = this.layers.get(at)?.parent)
      size += this.layers.get(at)?.diffSize ?? 0;
    return size;
  }

  depthOf(id: ChainID | undefined): number {
    let depth = 0;
    for (let at = id; at !== undefined; at = this.layers.get(at)?.parent) depth++;
    return depth;
  }

  /** What gc removes: everything that nothing holds, again and again. */
  collect(): Set<ChainID> {
    const gone = new Set<ChainID>();
    for (let found = true; found;) {
      found = false;
      for (const id of [...this.layers.keys()]) {
        if (this.isHeld(id)) continue;
        this.layers.delete(id);
        gone.add(id);
        found = true;
      }
    }
    return gone;
  }

  /** The process ends and another one opens the store. `adopts`: whether this RW layer's mount outlives it. */
  reopen(adopts: (layer: ModelRWLayer) => boolean): void {
    for (const layer of this.layers.values()) layer.handles = 0;
    for (const layer of this.rwLayers.values()) {
      layer.handles = 0;
      layer.mounts = layer.mounts > 0 && adopts(layer) ? 1 : 0;
    }
  }
}
