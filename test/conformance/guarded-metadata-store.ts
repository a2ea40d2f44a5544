/**
 * A metadata store as a program outside of this package would bring one: it hands everything on to another store, one
 * call at a time, and offers only the methods that MetadataStore requires.
 */
import type { Readable } from 'node:stream';
import type { ChainID, Descriptor, DiffID, MetadataStore, MetadataTransaction } from 'layerstore';

export class GuardedMetadataStore implements MetadataStore {
  readonly #inner: MetadataStore;
  #last: Promise<unknown> = Promise.resolve();

  constructor(inner: MetadataStore) {
    this.#inner = inner;
  }

  #next<T>(call: (inner: MetadataStore) => Promise<T>): Promise<T> {
    const result = this.#last.then(() => call(this.#inner));
    // Whoever made a call that fails hears of it; the next call waits only for its end.
    this.#last = result.catch(() => undefined);
    return result;
  }

  startTransaction(): Promise<MetadataTransaction> {
    return this.#next((inner) => inner.startTransaction());
  }

  getSize(id: ChainID): Promise<number> {
    return this.#next((inner) => inner.getSize(id));
  }

  getParent(id: ChainID): Promise<ChainID | undefined> {
    return this.#next((inner) => inner.getParent(id));
  }

  getDiffID(id: ChainID): Promise<DiffID> {
    return this.#next((inner) => inner.getDiffID(id));
  }

  getCacheID(id: ChainID): Promise<string> {
    return this.#next((inner) => inner.getCacheID(id));
  }

  getDescriptor(id: ChainID): Promise<Descriptor | undefined> {
    return this.#next((inner) => inner.getDescriptor(id));
  }

  tarSplitReader(id: ChainID): Promise<Readable> {
    return this.#next((inner) => inner.tarSplitReader(id));
  }

  setMountID(name: string, id: string): Promise<void> {
    return this.#next((inner) => inner.setMountID(name, id));
  }

  setInitID(name: string, id: string): Promise<void> {
    return this.#next((inner) => inner.setInitID(name, id));
  }

  setMountParent(name: string, parent: ChainID): Promise<void> {
    return this.#next((inner) => inner.setMountParent(name, parent));
  }

  getMountID(name: string): Promise<string> {
    return this.#next((inner) => inner.getMountID(name));
  }

  getInitID(name: string): Promise<string | undefined> {
    return this.#next((inner) => inner.getInitID(name));
  }

  getMountParent(name: string): Promise<ChainID | undefined> {
    return this.#next((inner) => inner.getMountParent(name));
  }

  list(): Promise<{ layers: ChainID[]; mounts: string[] }> {
    return this.#next((inner) => inner.list());
  }

  remove(id: ChainID): Promise<void> {
    return this.#next((inner) => inner.remove(id));
  }

  removeMount(name: string): Promise<void> {
    return this.#next((inner) => inner.removeMount(name));
  }
}
