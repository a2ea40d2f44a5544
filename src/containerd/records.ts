/**
 * The records of snapshots: one file of lines, each a change, that is read whole at open and appended to.
 *
 * A line is 16 hexadecimal digits, a space, JSON and a newline; the digits are the beginning of the SHA-256 of the JSON. The
 * first line says the format and the prefix of tree ids; every other one names a snapshot that goes (`gone`), one that is
 * as described from here on (`snapshot`), or both: a commit is one line, so it happened or it did not.
 *
 * A change counts when its line is on disk (in a relaxed store: written). Lines of calls that come together are written
 * and synced together. An append that fails is cut off again; where that fails too, or a sync failed, the file is written
 * anew from memory before the next line. When most lines speak of what is gone, the file is written anew, too: a temporary
 * file, then one rename.
 *
 * A last line without a newline, or whose digits do not fit, is an append that a crash interrupted: nobody heard of it,
 * and it is cut off. Such a line in the middle is damage. The others still count; the file as it was is kept in quarantine.
 */
import { createHash } from 'node:crypto';
import { copyFile, type FileHandle, open, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ChainID, DiffID, Digest } from '../digest.js';
import { LayerStoreError, systemError } from '../errors.js';
import { syncDirectory, writeFileAtomic } from '../util/atomic-file.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { formatValue, quote } from '../util/quote.js';
import { randomID } from '../util/random-id.js';
import { NotRegularError, readRegularFile } from '../util/regular-file.js';

export type SnapshotKind = 'view' | 'active' | 'committed';

/** What containerd is told of the space that a snapshot takes. Bytes on disk. */
export interface SnapshotUsage {
  size: number;
  inodes: number;
}

/** What was unpacked into a snapshot's tree, while that is nothing but the one tar. */
export interface AppliedTar {
  diffID: DiffID;
  tarSize: number;
  /** As a layer record counts. */
  size: number;
  entries: number;
  blob: { mediaType: string; digest: Digest; size: number };
}

/** One snapshot. Plain JSON; members that do not apply are absent. */
export interface SnapshotRecord {
  name: string;
  kind: SnapshotKind;
  /** Name of the committed snapshot below; empty where there is none. */
  parent: string;
  /** Nanoseconds since 1970, decimal. */
  created: string;
  updated: string;
  labels: Record<string, string>;
  /** The driver's id of its own tree; a view on a parent has none, and one that is a layer has the layer's. */
  tree?: string;
  /** The layer of the store that it is. */
  layer?: ChainID;
  /** Of a committed one. */
  usage?: SnapshotUsage;
  /** Of an active one, or of a committed one that is about to become a layer. */
  applied?: AppliedTar;
}

interface Change {
  gone?: string;
  snapshot?: SnapshotRecord;
}

const FORMAT = 'layerstore snapshots';
const VERSION = 1;
const DIGITS = 16;
/** Half a gigabyte: a million snapshots. */
const MAX_BYTES = 512 * 1024 * 1024;
/** Lines that may speak of what is gone before the file is written anew, beside as many as there are snapshots. */
const SLACK = 4096;
const MODE = 0o600;

/** A call that waits for its line to be on disk. */
interface Waiting {
  change: Change;
  resolve: () => void;
  reject: (error: unknown) => void;
}

export interface RecordsOptions {
  directory: string;
  quarantine: string;
  durability: 'strict' | 'relaxed';
  logger: LoggerLike;
}

/** What {@link readRecords} found. */
export interface ReadRecords {
  prefix: string;
  snapshots: Map<string, SnapshotRecord>;
  /** Lines in the middle of the file that cannot be read. */
  damaged: number;
}

export function recordsPath(directory: string): string {
  return join(directory, 'snapshots');
}

/** For somebody beside the writer: what is there now; `undefined` where there are no records. */
export async function readRecords(directory: string): Promise<ReadRecords | undefined> {
  return load(recordsPath(directory));
}

/** The writer. One process has it; the store's lock sees to that. */
export class SnapshotRecords {
  /** What ids of trees begin with that snapshots here own: 16 hexadecimal digits, random. */
  readonly prefix: string;
  /** Every snapshot whose line is on disk. */
  readonly snapshots: ReadonlyMap<string, SnapshotRecord>;
  /**
   * Lines could not be read, now or at an earlier open: a tree that no record names may be a snapshot's all the same. So it
   * is as long as the file that was set aside is in quarantine.
   */
  readonly damaged: boolean;

  readonly #path: string;
  readonly #sync: boolean;
  readonly #logger: LoggerLike;
  readonly #entries: Map<string, SnapshotRecord>;
  #file: FileHandle | undefined;
  #bytes = 0;
  #lines = 0;
  /** The file may hold what is in no map: it is written anew before the next line. */
  #dirty: boolean;
  #waiting: Waiting[] = [];
  #running: Promise<void> | undefined;
  #closed = false;

  private constructor(options: RecordsOptions, found: Loaded | undefined, damaged: boolean) {
    this.#path = recordsPath(options.directory);
    this.#sync = options.durability === 'strict';
    this.#logger = options.logger;
    this.prefix = found?.prefix ?? randomID(8);
    this.#entries = found?.snapshots ?? new Map<string, SnapshotRecord>();
    this.snapshots = this.#entries;
    this.damaged = damaged;
    this.#bytes = found?.bytes ?? 0;
    this.#lines = found?.lines ?? 0;
    this.#dirty = found === undefined || found.torn || found.damaged > 0;
  }

  /** ERR_LAYER_CORRUPT: the file is none of ours, or of a later version; it is left as it is. */
  static async open(options: RecordsOptions): Promise<SnapshotRecords> {
    await makeDirectory(options.directory, 0o700);
    const path = recordsPath(options.directory);
    const found = await load(path);
    if (found !== undefined && found.damaged > 0) {
      await makeDirectory(options.quarantine, 0o700);
      const aside = join(options.quarantine, `${basename(path)}.${randomID(4)}`);
      await copyFile(path, aside);
      options.logger.warn(
        { lines: found.damaged, aside },
        'records of snapshots are damaged; the file as it was is kept',
      );
    }
    const aside = (await namesIn(options.quarantine)).filter((name) => name.startsWith(`${basename(path)}.`));
    if (aside.length > 0) {
      options.logger.warn(
        { directory: options.quarantine, aside },
        'records of snapshots were lost: trees and references that no record names stay until the files in quarantine are deleted',
      );
    }
    const records = new SnapshotRecords(options, found, aside.length > 0);
    if (records.#dirty || records.#wasteful()) await records.#rewrite();
    return records;
  }

  /** Resolves when the change is on disk, or in a relaxed store written. */
  append(change: { gone?: string; snapshot?: SnapshotRecord }): Promise<void> {
    if (this.#closed) return Promise.reject(new LayerStoreError('ERR_STORE_CLOSED', 'the snapshots are closed'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ change, resolve, reject });
      this.#running ??= this.#run();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    // Calls of the same turn share the first write.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0);
      try {
        await this.#write(batch);
        for (const { resolve } of batch) resolve();
      } catch (error) {
        const failure = systemError(error, 'write the records of snapshots', 'check space and rights there');
        for (const { reject } of batch) reject(failure);
      }
    }
    this.#running = undefined;
  }

  async #write(batch: readonly Waiting[]): Promise<void> {
    if (this.#dirty) await this.#rewrite();
    this.#file ??= await open(this.#path, 'r+');
    const data = Buffer.from(batch.map(({ change }) => line(change)).join(''));
    try {
      await writeAll(this.#file, data, this.#bytes);
      if (this.#sync) await this.#file.datasync();
    } catch (error) {
      // After a failed sync nobody knows what is on disk; the file as it should be is in memory.
      this.#dirty = true;
      await this.#file.truncate(this.#bytes).catch(() => undefined); // the rewrite does that, too
      throw error;
    }
    this.#bytes += data.length;
    this.#lines += batch.length;
    for (const { change } of batch) applyChange(this.#entries, change);
    if (!this.#wasteful()) return;
    try {
      await this.#rewrite();
    } catch (error) {
      // The lines are there; only the file stays longer than it need be.
      this.#logger.warn(errorFields(error), 'the records of snapshots cannot be written anew');
    }
  }

  #wasteful(): boolean {
    return this.#lines > 2 * this.#entries.size + SLACK;
  }

  async #rewrite(): Promise<void> {
    const lines = [line({ format: FORMAT, version: VERSION, prefix: this.prefix })];
    for (const snapshot of this.#entries.values()) lines.push(line({ snapshot }));
    const data = Buffer.from(lines.join(''));
    try {
      await writeFileAtomic(this.#path, data, { mode: MODE, sync: this.#sync });
    } catch (error) {
      // Both the old and the new file say the same, unless the old one has what failed: then it is tried again first.
      await this.#file?.close().catch(() => undefined); // nothing was written to it that the next rewrite does not write
      this.#file = undefined;
      this.#dirty = true;
      throw error;
    }
    if (this.#file === undefined && this.#sync) await syncDirectory(dirname(dirname(this.#path)));
    await this.#file?.close();
    this.#file = undefined;
    this.#bytes = data.length;
    this.#lines = lines.length;
    this.#dirty = false;
  }
}

interface Loaded extends ReadRecords {
  bytes: number;
  lines: number;
  /** The last line is not whole. */
  torn: boolean;
}

async function load(path: string): Promise<Loaded | undefined> {
  let data: Buffer | undefined;
  try {
    data = await readRegularFile(path, MAX_BYTES);
  } catch (error) {
    if (error instanceof NotRegularError) throw unusable(path, error.message);
    throw systemError(error, 'read the records of snapshots');
  }
  if (data === undefined) return undefined;
  const text = data.toString('utf8');
  const lines = text.split('\n');
  const torn = lines.pop() !== '';
  const [first = '', ...rest] = lines;
  const header = parse(first) as { format?: unknown; version?: unknown; prefix?: unknown } | undefined;
  // The file comes to be by a rename, so its first line is whole.
  if (header?.format !== FORMAT || typeof header.prefix !== 'string' || !/^[0-9a-f]{16}$/.test(header.prefix)) {
    throw unusable(path, 'its first line is none of ours');
  }
  if (header.version !== VERSION) {
    throw unusable(path, `it has version ${formatValue(header.version)}, and this package reads ${VERSION}`);
  }
  const snapshots = new Map<string, SnapshotRecord>();
  let damaged = 0;
  let lastDamaged = false;
  for (const each of rest) {
    const change = asChange(parse(each));
    lastDamaged = change === undefined;
    if (change === undefined) damaged += 1;
    else applyChange(snapshots, change);
  }
  // A power cut can also leave the end of the last line, its newline included, without the beginning.
  const interrupted = lastDamaged && !torn;
  return {
    prefix: header.prefix,
    snapshots,
    damaged: interrupted ? damaged - 1 : damaged,
    bytes: data.length,
    lines: lines.length,
    torn: torn || interrupted,
  };
}

function unusable(path: string, why: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `cannot use the records of snapshots ${quote(path)}: ${why}; move it away to begin without snapshots`,
    { path },
  );
}

function line(value: object): string {
  const json = JSON.stringify(value);
  return `${checksum(json)} ${json}\n`;
}

function checksum(json: string): string {
  return createHash('sha256').update(json).digest('hex').slice(0, DIGITS);
}

function parse(text: string): unknown {
  const json = text.slice(DIGITS + 1);
  if (text[DIGITS] !== ' ' || checksum(json) !== text.slice(0, DIGITS)) return undefined;
  try {
    return JSON.parse(json);
  } catch {
    return undefined; // the digits fit, so somebody wrote it so
  }
}

/** What fits its checksum was written by this package, so the shape alone is looked at. */
function asChange(value: unknown): Change | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { gone, snapshot } = value as { gone?: unknown; snapshot?: unknown };
  if (gone !== undefined && typeof gone !== 'string') return undefined;
  if (snapshot === undefined) return gone === undefined ? undefined : { gone };
  if (typeof snapshot !== 'object' || snapshot === null) return undefined;
  const { name, kind, parent, labels } = snapshot as Record<string, unknown>;
  if (typeof name !== 'string' || typeof parent !== 'string' || typeof labels !== 'object') return undefined;
  if (kind !== 'view' && kind !== 'active' && kind !== 'committed') return undefined;
  return value;
}

function applyChange(snapshots: Map<string, SnapshotRecord>, { gone, snapshot }: Change): void {
  if (gone !== undefined) snapshots.delete(gone);
  if (snapshot !== undefined) snapshots.set(snapshot.name, snapshot);
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw systemError(error, 'look for records that were set aside');
  }
}

async function writeAll(file: FileHandle, data: Buffer, position: number): Promise<void> {
  for (let done = 0; done < data.length;) {
    const { bytesWritten } = await file.write(data, done, data.length - done, position + done);
    done += bytesWritten;
  }
}
