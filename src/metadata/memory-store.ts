/**
 * A metadata store in memory: for tests, and for stores whose layers are needed only as long as the process runs. It has
 * what `MetadataStore` requires; `adapt.ts` completes it as it does any other.
 */
import { Readable, Writable } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import type { ChainID, DiffID } from '../digest.js';
import { parseChainID, parseDiffID } from '../digest.js';
import { invalidArgument, LayerStoreError } from '../errors.js';
import { mountName } from './layout.js';
import type { Descriptor, LayerRecord, MetadataStore, MetadataTransaction, MountRecord } from './metadata-store.js';
import { corrupt } from './record-text.js';

/** What a transaction gathers; the tar-split record as plain JSON lines. */
type Draft = Partial<Omit<LayerRecord, 'chainID'>> & { tarSplit?: Buffer };
type Entry = LayerRecord & { tarSplit?: Buffer };

/** An empty metadata store in memory. */
export function createMemoryMetadataStore(): MetadataStore {
  return new MemoryMetadataStore();
}

class MemoryMetadataStore implements MetadataStore {
  readonly #layers = new Map<ChainID, Entry>();
  readonly #mounts = new Map<string, Partial<MountRecord>>();

  async startTransaction(): Promise<MetadataTransaction> {
    return new MemoryTransaction((id, draft) => this.#publish(id, draft));
  }

  #publish(id: ChainID, draft: Draft): void {
    const { diffID, cacheID, size } = draft;
    if (diffID === undefined || cacheID === undefined || size === undefined) {
      throw invalidArgument(`the record of ${id} is not complete: diff id, cache id and size are needed`);
    }
    if (this.#layers.has(id)) {
      throw new LayerStoreError('ERR_LAYER_IN_USE', `there is a record of ${id} already; remove that layer first`);
    }
    this.#layers.set(id, { ...draft, chainID: id, diffID, cacheID, size });
  }

  async getSize(id: ChainID): Promise<number> {
    return this.#layer(id).size;
  }

  async getParent(id: ChainID): Promise<ChainID | undefined> {
    return this.#layer(id).parent;
  }

  async getDiffID(id: ChainID): Promise<DiffID> {
    return this.#layer(id).diffID;
  }

  async getCacheID(id: ChainID): Promise<string> {
    return this.#layer(id).cacheID;
  }

  async getDescriptor(id: ChainID): Promise<Descriptor | undefined> {
    return structuredClone(this.#layer(id).descriptor);
  }

  async tarSplitReader(id: ChainID): Promise<Readable> {
    const { tarSplit } = this.#layer(id);
    if (tarSplit === undefined) throw corrupt(`layer ${id}`, 'its tar-split record is missing');
    return Readable.from([tarSplit], { objectMode: false });
  }

  async replaceTarSplit(id: ChainID, transaction: MetadataTransaction): Promise<void> {
    if (!(transaction instanceof MemoryTransaction)) {
      throw invalidArgument(`"${transaction.toString()}" is not a transaction of this store`);
    }
    this.#layer(id).tarSplit = transaction.takeTarSplit();
  }

  async setMountID(name: string, id: string): Promise<void> {
    this.#change(name, { id });
  }

  async setInitID(name: string, id: string): Promise<void> {
    this.#change(name, { initID: id });
  }

  async setMountParent(name: string, parent: ChainID): Promise<void> {
    this.#change(name, { parent: parseChainID(parent) });
  }

  #change(name: string, change: Partial<MountRecord>): void {
    mountName(name);
    this.#mounts.set(name, { ...this.#mounts.get(name), ...change });
  }

  async getMountID(name: string): Promise<string> {
    const { id } = this.#mount(name);
    if (id === undefined) throw corrupt(`RW layer "${name}"`, 'its mount id is missing');
    return id;
  }

  async getInitID(name: string): Promise<string | undefined> {
    return this.#mount(name).initID;
  }

  async getMountParent(name: string): Promise<ChainID | undefined> {
    return this.#mount(name).parent;
  }

  async list(): Promise<{ layers: ChainID[]; mounts: string[] }> {
    return { layers: [...this.#layers.keys()], mounts: [...this.#mounts.keys()] };
  }

  async remove(id: ChainID, cacheID?: string): Promise<void> {
    const record = this.#layers.get(id);
    if (cacheID === undefined || record?.cacheID === cacheID) this.#layers.delete(id);
  }

  async removeMount(name: string): Promise<void> {
    this.#mounts.delete(name);
  }

  #layer(id: ChainID): Entry {
    const record = this.#layers.get(parseChainID(id));
    if (record === undefined) throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `there is no layer ${id}`);
    return record;
  }

  #mount(name: string): Partial<MountRecord> {
    const record = this.#mounts.get(name);
    if (record === undefined) throw new LayerStoreError('ERR_MOUNT_DOES_NOT_EXIST', `there is no RW layer "${name}"`);
    return record;
  }
}

class MemoryTransaction implements MetadataTransaction {
  readonly #publish: (id: ChainID, draft: Draft) => void;
  readonly #draft: Draft = {};
  #over = false;
  #writing = false;

  constructor(publish: (id: ChainID, draft: Draft) => void) {
    this.#publish = publish;
  }

  async setSize(bytes: number): Promise<void> {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw invalidArgument(`a layer's size is a count of bytes, not ${bytes}`);
    }
    this.#set({ size: bytes });
  }

  async setParent(parent: ChainID): Promise<void> {
    this.#set({ parent: parseChainID(parent) });
  }

  async setDiffID(id: DiffID): Promise<void> {
    this.#set({ diffID: parseDiffID(id) });
  }

  async setCacheID(id: string): Promise<void> {
    this.#set({ cacheID: id });
  }

  async setDescriptor(descriptor: Descriptor): Promise<void> {
    this.#set({ descriptor: structuredClone(descriptor) });
  }

  async tarSplitWriter(compressInput: boolean): Promise<Writable> {
    this.#set({});
    if (this.#draft.tarSplit !== undefined || this.#writing) {
      throw invalidArgument('this record has its tar-split file already');
    }
    this.#writing = true;
    const chunks: Buffer[] = [];
    return new Writable({
      write: (chunk: Buffer, _encoding, callback) => {
        chunks.push(Buffer.from(chunk));
        callback();
      },
      final: (callback) => {
        try {
          const bytes = Buffer.concat(chunks);
          this.#draft.tarSplit = compressInput ? bytes : gunzipSync(bytes);
          this.#writing = false;
          callback();
        } catch (error) {
          callback(error as Error);
        }
      },
    });
  }

  async commit(id: ChainID): Promise<void> {
    this.#set({});
    if (this.#writing) {
      throw invalidArgument("this record's tar-split file is not written to its end");
    }
    this.#publish(parseChainID(id), this.#draft);
    this.#over = true;
  }

  takeTarSplit(): Buffer {
    this.#set({});
    const { tarSplit } = this.#draft;
    if (tarSplit === undefined) {
      throw invalidArgument('this transaction has no tar-split record to give');
    }
    delete this.#draft.tarSplit;
    return tarSplit;
  }

  async cancel(): Promise<void> {
    this.#over = true;
  }

  toString(): string {
    return 'a record in memory';
  }

  #set(values: Draft): void {
    if (this.#over) throw invalidArgument('this transaction is over: start a new one');
    Object.assign(this.#draft, values);
  }
}
