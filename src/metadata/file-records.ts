/** Reads the records of a layerdb, one by one or all at once. Writes nothing. */
import type { Dirent } from 'node:fs';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ChainID, DiffID } from '../digest.js';
import type { Engine, SmallFilesRow } from '../engine/engine.js';
import { LAYER_FILES, LAYERS, MOUNT_FILES, MOUNTS, chainIDOf, isMountName, removingChainIDOf } from './layout.js';
import type { BrokenRecord, Descriptor, LayerRecord, LoadedRecords, NamedMountRecord } from './metadata-store.js';
import { defined } from '../util/defined.js';
import { irregularity } from '../util/regular-file.js';
import {
  checkChain,
  DESCRIPTOR_LIMIT,
  InvalidRecordError,
  readCacheID,
  readDescriptor,
  readDigest,
  readMountID,
  readRecordFile,
  readSize,
  SMALL_LIMIT,
} from './record-text.js';

/** Gives one file of one record, by name; `undefined` where it is not there. */
type FileOf = (name: string) => string | undefined;

/** Troubles of the machine, not of a record: reporting every layer as broken because of them would be a disaster. */
const MACHINE_TROUBLE = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EPERM', 'EINTR']);

/** The value that `read` makes of a file; a `InvalidRecordError` names the file. */
export function required<T>(files: FileOf, name: string, read: (text: string) => T): T {
  const value = optional(files, name, read);
  if (value === undefined) throw new InvalidRecordError(`"${name}" is missing`);
  return value;
}

export function optional<T>(files: FileOf, name: string, read: (text: string) => T): T | undefined {
  try {
    const text = files(name);
    return text === undefined ? undefined : read(text);
  } catch (error) {
    if (error instanceof InvalidRecordError) throw new InvalidRecordError(`"${name}" ${error.message}`);
    throw error;
  }
}

/** The files of the record at `path`, read when asked for. */
export function filesAt(path: string): FileOf {
  return (name) => readRecordFile(join(path, name), name === LAYER_FILES.descriptor ? DESCRIPTOR_LIMIT : SMALL_LIMIT);
}

/** The two files that make a layer's chain id, checked against it. */
export function readChain(id: ChainID, files: FileOf): { diffID: DiffID; parent?: ChainID } {
  const diffID = required(files, LAYER_FILES.diff, readDigest) as DiffID;
  const parent = optional(files, LAYER_FILES.parent, readDigest) as ChainID | undefined;
  checkChain(id, diffID, parent);
  return parent === undefined ? { diffID } : { diffID, parent };
}

function readLayer(chainID: ChainID, files: FileOf): LayerRecord {
  const cacheID = required(files, LAYER_FILES.cacheID, readCacheID);
  const chain = readChain(chainID, files);
  const size = required(files, LAYER_FILES.size, readSize);
  const descriptor: Descriptor | undefined = optional(files, LAYER_FILES.descriptor, readDescriptor);
  const record: LayerRecord = { chainID, cacheID, size, ...chain };
  if (descriptor !== undefined) record.descriptor = descriptor;
  return record;
}

function readMount(name: string, files: FileOf): NamedMountRecord {
  const id = required(files, MOUNT_FILES.id, readMountID);
  const initID = optional(files, MOUNT_FILES.initID, readMountID);
  const parent = optional(files, MOUNT_FILES.parent, readDigest) as ChainID | undefined;
  return { name, id, ...defined({ initID, parent }) };
}

/** Entries of a directory; none where it does not exist. */
export function entriesOf(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

type Source = ReadonlyMap<string, SmallFilesRow['files']>;
type Reader = Pick<Engine, 'readSmallFiles'>;

const LAYER_NAMES = [
  LAYER_FILES.cacheID,
  LAYER_FILES.diff,
  LAYER_FILES.size,
  LAYER_FILES.parent,
  LAYER_FILES.descriptor,
];
const MOUNT_NAMES = [MOUNT_FILES.id, MOUNT_FILES.initID, MOUNT_FILES.parent];

/** Every record below `directory`. */
export async function loadRecords(directory: string, engine: Reader): Promise<LoadedRecords> {
  const loaded: LoadedRecords = { layers: [], mounts: [], removing: [], broken: [] };
  const layers = join(directory, LAYERS);
  const layerEntries = entriesOf(layers);
  const layerSource = await bulk(engine, layers, layerEntries, LAYER_NAMES);
  for (const entry of layerEntries) loadLayer(loaded, layers, entry, layerSource);
  const mounts = join(directory, MOUNTS);
  const mountEntries = entriesOf(mounts);
  const mountSource = await bulk(engine, mounts, mountEntries, MOUNT_NAMES);
  for (const entry of mountEntries) loadMount(loaded, mounts, entry, mountSource);
  return loaded;
}

async function bulk(engine: Reader, path: string, entries: Dirent[], names: string[]): Promise<Source> {
  if (entries.length === 0) return new Map(); // there may be no such directory
  const rows = await engine.readSmallFiles(path, names, SMALL_LIMIT + 1);
  return new Map(rows.map(({ directory, files }) => [directory, files]));
}

function loadLayer(loaded: LoadedRecords, base: string, entry: Dirent, source: Source): void {
  const { name } = entry;
  const isDirectory = entry.isDirectory();
  const path = `${base}/${name}`;
  const files = filesOf(path, source.get(name), LAYER_NAMES);
  const chainID = chainIDOf(name);
  if (chainID !== undefined && isDirectory) {
    const record = attempt(files, () => readLayer(chainID, files));
    if (record === undefined) return;
    if (!('why' in record)) {
      loaded.layers.push(record);
      return;
    }
    const named = namedDirectory(files, LAYER_FILES.cacheID, readCacheID);
    loaded.broken.push({ kind: 'layer', what: `${LAYERS}/${name}`, path, chainID, ...record, ...named });
    return;
  }
  const what = `${LAYERS}/${name}`;
  const removing = removingChainIDOf(name);
  if (removing !== undefined && isDirectory) {
    const cacheID = attempt(files, () => required(files, LAYER_FILES.cacheID, readCacheID));
    if (typeof cacheID === 'string') loaded.removing.push({ chainID: removing, cacheID });
    else if (cacheID !== undefined)
      loaded.broken.push({ kind: 'removing', what, why: cacheID.why, path, chainID: removing });
    return;
  }
  const why = chainID === undefined ? 'its name is not a digest' : 'it is not a directory';
  loaded.broken.push({ kind: 'layer', what, why, path, ...defined({ chainID }) });
}

function loadMount(loaded: LoadedRecords, base: string, entry: Dirent, source: Source): void {
  const path = join(base, entry.name);
  const name = entry.name;
  const known: BrokenRecord = { kind: 'mount', what: `${MOUNTS}/${name}`, why: '', path, name };
  if (!entry.isDirectory()) {
    loaded.broken.push({ ...known, why: 'it is not a directory' });
  } else if (!isMountName(name)) {
    loaded.broken.push({ ...known, why: 'its name is none that an RW layer can have' });
  } else {
    const files = filesOf(path, source.get(name), MOUNT_NAMES);
    const record = attempt(files, () => readMount(name, files));
    if (record === undefined) return;
    if ('why' in record)
      loaded.broken.push({ ...known, ...record, ...namedDirectory(files, MOUNT_FILES.id, readMountID) });
    else loaded.mounts.push(record);
  }
}

/** The driver id that a broken record still names: its files may be the only copy of a user's work. */
function namedDirectory(files: FilesOfRecord, file: string, read: (text: string) => string): { cacheID?: string } {
  const cacheID = attempt(files, () => required(files, file, read));
  return typeof cacheID === 'string' ? { cacheID } : {};
}

/** The result; or what is wrong; or nothing, where the record was removed meanwhile (a reader beside a writer sees that). */
function attempt<T>(files: FilesOfRecord, read: () => T): T | { why: string } | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof InvalidRecordError) return files.gone() ? undefined : { why: error.message };
    const code = (error as NodeJS.ErrnoException).code;
    if (code === undefined || MACHINE_TROUBLE.has(code)) throw error;
    return { why: `cannot be read: ${code}` };
  }
}

interface FilesOfRecord extends FileOf {
  /** Whether the directory itself is not there (any more). */
  gone(): boolean;
}

/** From what the engine read in bulk; from the files themselves where a directory is new since, or has an odd name. */
function filesOf(path: string, row: SmallFilesRow['files'] | undefined, names: string[]): FilesOfRecord {
  const direct: FileOf = (name) => filesAt(path)(name);
  const read: FileOf = (name) => {
    const file = row?.[names.indexOf(name)];
    if (row === undefined) return direct(name);
    if (file === undefined || (typeof file === 'string' && file.length <= SMALL_LIMIT)) return file;
    // Long or strange: once more, by the careful reader, which says what it is.
    return direct(name);
  };
  return Object.assign(read, { gone: () => isGone(path) });
}

function isGone(path: string): boolean {
  try {
    readdirSync(path);
    return false;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return code === 'ENOENT' || (code !== undefined && irregularity(code) === undefined && code !== 'EACCES');
  }
}
