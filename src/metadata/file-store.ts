/**
 * The metadata store in Docker's layerdb format (docs/on-disk-format.md): a directory a record, a file a field.
 * Source of the format: moby, `layer/filestore.go`.
 */
import { lstat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import type { ChainID, DiffID } from '../digest.js';
import type { StepsAround } from '../engine/engine.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { FileMounts } from './file-mounts.js';
import { filesAt, loadRecords, optional, readChain, required } from './file-records.js';
import { FileTransaction } from './file-transaction.js';
import { readGzipFile } from './gunzip-reader.js';
import {
  LAYER_FILES,
  LAYERS,
  MOUNTS,
  TEMPORARY,
  chainIDOf,
  isMountName,
  layerName,
  removingChainIDOf,
  removingName,
  temporaryName,
} from './layout.js';
import type {
  BrokenRecord,
  Descriptor,
  FullMetadataStore,
  LoadedRecords,
  MetadataStore,
  MetadataTransaction,
  MountRecord,
} from './metadata-store.js';
import { RecordDirectory, exists, removeAll } from './record-directory.js';
import type { RecordEngine } from './record-directory.js';
import { corrupt, InvalidRecordError, readCacheID, readDescriptor, readSize } from './record-text.js';

export interface FileMetadataStoreOptions {
  /** Absolute path of the layerdb; made if missing (0700), except with `readOnly`, where a missing one is an empty one. */
  directory: string;
  /**
   * Absolute path of a directory of the caller's, which a writer has made: there the records of RW layers lie that are being
   * made or removed, each under the driver's id. One that is found there after a crash is the intent of that work.
   */
  pendingMounts: string;
  engine: RecordEngine;
  /** `strict`: what a method resolved survives a power cut. `relaxed` skips the syncs, never the order. */
  durability: 'strict' | 'relaxed';
  /** Everything that would write is ERR_READ_ONLY. */
  readOnly: boolean;
  logger: { debug(fields: object, message: string): void };
}

/** Opens, or makes, a layerdb. */
export async function openFileMetadataStore(options: FileMetadataStoreOptions): Promise<FileMetadataStore> {
  const { directory, engine, durability, readOnly } = options;
  const place = new RecordDirectory(directory, engine, durability === 'strict', readOnly);
  if (!readOnly) await place.prepare();
  return new FileMetadataStore(place, options);
}

export class FileMetadataStore implements MetadataStore, FullMetadataStore {
  readonly #place: RecordDirectory;
  readonly #mounts: FileMounts;
  readonly #logger: FileMetadataStoreOptions['logger'];

  /** See {@link openFileMetadataStore}. */
  constructor(place: RecordDirectory, { pendingMounts, logger }: FileMetadataStoreOptions) {
    this.#place = place;
    this.#mounts = new FileMounts(place, pendingMounts);
    this.#logger = logger;
  }

  async startTransaction(): Promise<FileTransaction> {
    this.#place.mustWrite('start a record');
    return new FileTransaction(this.#place);
  }

  async getSize(id: ChainID): Promise<number> {
    return this.#layer(id, (path) => required(filesAt(path), LAYER_FILES.size, readSize));
  }

  async getParent(id: ChainID): Promise<ChainID | undefined> {
    return this.#layer(id, (path) => readChain(id, filesAt(path)).parent);
  }

  async getDiffID(id: ChainID): Promise<DiffID> {
    return this.#layer(id, (path) => readChain(id, filesAt(path)).diffID);
  }

  async getCacheID(id: ChainID): Promise<string> {
    return this.#layer(id, (path) => required(filesAt(path), LAYER_FILES.cacheID, readCacheID));
  }

  async getDescriptor(id: ChainID): Promise<Descriptor | undefined> {
    const read = (path: string) => ({ value: optional(filesAt(path), LAYER_FILES.descriptor, readDescriptor) });
    const { value } = await this.#layer(id, read);
    if (value === undefined) await this.#layerMustExist(id);
    return value;
  }

  async tarSplitReader(id: ChainID): Promise<Readable> {
    const path = await this.tarSplitPath(id);
    return readGzipFile(path, `layer ${id}`);
  }

  async tarSplitPath(id: ChainID): Promise<string> {
    const path = this.#place.at(layerName(id), LAYER_FILES.tarSplit);
    let flaw = 'is missing';
    try {
      const stat = await lstat(path);
      // Never through a link: readers open the file by this path.
      if (stat.isFile() && stat.size > 0) return path;
      flaw = stat.isFile() ? 'is empty' : 'is not a regular file';
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw systemError(error, `read the record of ${id}`);
      await this.#layerMustExist(id);
    }
    throw corrupt(`layer ${id}`, `"${LAYER_FILES.tarSplit}" ${flaw}`, path);
  }

  async tarSplit(id: ChainID): Promise<{ path: string }> {
    return { path: await this.tarSplitPath(id) };
  }

  async replaceTarSplit(id: ChainID, transaction: Pick<MetadataTransaction, 'toString'>): Promise<void> {
    this.#place.mustWrite('repair a layer');
    if (!(transaction instanceof FileTransaction)) {
      throw invalidArgument(`"${transaction.toString()}" is not a transaction of this store`);
    }
    await this.#layerMustExist(id);
    await transaction.giveTarSplit(id);
  }

  setMount(name: string, record: MountRecord): Promise<void> {
    return this.#mounts.set(name, record);
  }

  createMount(name: string, record: MountRecord, make: (around: StepsAround) => Promise<void>): Promise<void> {
    return this.#mounts.create(name, record, make);
  }

  setMountID(name: string, id: string): Promise<void> {
    return this.#mounts.setID(name, id);
  }

  setInitID(name: string, id: string): Promise<void> {
    return this.#mounts.setInitID(name, id);
  }

  setMountParent(name: string, parent: ChainID): Promise<void> {
    return this.#mounts.setParent(name, parent);
  }

  getMountID(name: string): Promise<string> {
    return this.#mounts.getID(name);
  }

  getInitID(name: string): Promise<string | undefined> {
    return this.#mounts.getInitID(name);
  }

  getMountParent(name: string): Promise<ChainID | undefined> {
    return this.#mounts.getParent(name);
  }

  removeMount(name: string): Promise<void> {
    return this.#mounts.remove(name);
  }

  deleteMount(name: string, { id }: MountRecord, remove: (around: StepsAround) => Promise<void>): Promise<void> {
    return this.#mounts.delete(name, id, remove);
  }

  /**
   * Whether records can be renamed to `pendingMounts` and back, which `createMount` and `deleteMount` need. Not where that
   * is another file system, subvolume or quota project; `adaptMetadataStore` makes a store that does without.
   */
  canMovePending(): Promise<boolean> {
    return this.#mounts.canMovePending();
  }

  async list(): Promise<{ layers: ChainID[]; mounts: string[] }> {
    const layers: ChainID[] = [];
    for (const entry of this.#place.entries(LAYERS)) {
      const id = entry.isDirectory() ? chainIDOf(entry.name) : undefined;
      if (id !== undefined) layers.push(id);
      else this.#logger.debug({ entry: entry.name }, 'an entry of the layer records is not a layer');
    }
    const mounts = this.#place.entries(MOUNTS).filter((entry) => entry.isDirectory() && isMountName(entry.name));
    return { layers, mounts: mounts.map(({ name }) => name) };
  }

  async loadAll(): Promise<LoadedRecords> {
    try {
      return await loadRecords(this.#place.path, this.#place.engine);
    } catch (error) {
      throw systemError(error, 'read the layer records');
    }
  }

  async markRemoving(id: ChainID): Promise<void> {
    this.#place.mustWrite('remove a layer');
    const name = layerName(id);
    await this.#layerMustExist(id);
    const path = this.#place.at(name);
    const rename = { op: 'rename', path, dest: this.#place.at(removingName(id)) } as const;
    await this.#place.batch([rename, ...this.#place.syncs(dirname(path))]);
  }

  async listRemoving(): Promise<{ chainID: ChainID; cacheID: string }[]> {
    return this.#removing().flatMap(({ chainID, cacheID }) => (cacheID === undefined ? [] : [{ chainID, cacheID }]));
  }

  async remove(id: ChainID, cacheID?: string): Promise<void> {
    this.#place.mustWrite('remove a layer');
    const path = this.#place.at(layerName(id));
    const marked = this.#removing().filter((each) => each.chainID === id);
    if (marked.length === 0 && (await exists(path))) {
      if (cacheID !== undefined && cacheID !== (await this.getCacheID(id))) return;
      await this.#place.delete(path, this.#place.at(removingName(id)), Object.values(LAYER_FILES));
    }
    for (const each of marked) {
      if (cacheID !== undefined && each.cacheID !== cacheID) continue;
      await this.#place.delete(undefined, each.path, Object.values(LAYER_FILES));
    }
  }

  async listBroken(): Promise<BrokenRecord[]> {
    const { broken } = await this.loadAll();
    return [...broken, ...(await this.listTemporary())];
  }

  async listTemporary(): Promise<BrokenRecord[]> {
    const broken: BrokenRecord[] = [];
    for (const { name } of this.#place.entries(TEMPORARY)) {
      const what = `${TEMPORARY}/${name}`;
      if (this.#place.busy.has(what)) continue;
      const ours = /^(write-set|mount|removed)-/.test(name);
      const why = ours ? 'nobody works on it any more' : 'it stood in the way of a record, or is none of ours';
      broken.push({ kind: ours ? 'temporary' : 'layer', what, why, path: this.#place.at(what) });
    }
    return broken;
  }

  async quarantine(broken: BrokenRecord, directory: string): Promise<string> {
    this.#place.mustWrite('set a record aside');
    const path = this.#pathOf(broken);
    const dest = join(directory, `${basename(path)}.${basename(temporaryName('bad'))}`);
    await this.#place.batch([{ op: 'rename', path, dest }, ...this.#place.syncs(directory, dirname(path))]);
    return dest;
  }

  async discard(broken: BrokenRecord): Promise<void> {
    this.#place.mustWrite('delete a leftover');
    await removeAll(this.#pathOf(broken));
  }

  /** Only an entry right below one of the three directories, whatever a caller made up. */
  #pathOf({ what }: BrokenRecord): string {
    const [directory = '', name = '', ...rest] = what.split('/');
    if (![LAYERS, MOUNTS, TEMPORARY].includes(directory) || ['', '.', '..'].includes(name) || rest.length > 0) {
      throw invalidArgument(`"${what}" is not an entry of the layer records`);
    }
    return this.#place.at(directory, name);
  }

  #removing(): { chainID: ChainID; cacheID: string | undefined; path: string }[] {
    return this.#place.entries(LAYERS).flatMap((entry) => {
      const chainID = entry.isDirectory() ? removingChainIDOf(entry.name) : undefined;
      if (chainID === undefined) return [];
      const path = this.#place.at(LAYERS, entry.name);
      return [{ chainID, cacheID: cacheIDAt(path), path }];
    });
  }

  async #layer<T>(id: ChainID, read: (path: string) => T): Promise<T> {
    const path = this.#place.at(layerName(id));
    try {
      return read(path);
    } catch (error) {
      if (!(error instanceof InvalidRecordError)) throw systemError(error, `read the record of layer ${id}`);
      await this.#layerMustExist(id);
      throw corrupt(`layer ${id}`, error.message, path);
    }
  }

  async #layerMustExist(id: ChainID): Promise<void> {
    if (await exists(this.#place.at(layerName(id)))) return;
    throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `there is no layer ${id}`);
  }
}

function cacheIDAt(path: string): string | undefined {
  try {
    return required(filesAt(path), LAYER_FILES.cacheID, readCacheID);
  } catch {
    return undefined; // what cannot be read names nothing; loadAll reports it
  }
}
