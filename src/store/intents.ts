/**
 * What is about to be made or removed, written down before it is begun: after a crash a driver directory that no record
 * names is ours to remove only if an intent names it. The file's name is the driver's id, so that an intent whose
 * content a power cut took still says the one thing that matters. A directory of such a name is the record of an RW layer
 * that is being made or removed.
 */
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { BatchOp, Engine } from '../engine/engine.js';
import { makeDirectory } from '../util/make-directory.js';
import { readRegularFile } from '../util/regular-file.js';

export interface Intent {
  /**
   * `layer`: made, to be published as a layer's record. `rw`: the same for an RW layer. `remove`: its record goes, its
   * files after it. `consume`: an RW layer's files become the layer. `repair`: fresh contents, to be exchanged.
   */
  kind: 'layer' | 'rw' | 'remove' | 'consume' | 'repair';
  /** More ids that share its fate. */
  with?: readonly string[];
  /** The RW layer concerned. */
  name?: string;
  /** `consume`: the driver's id of the RW layer. */
  rwID?: string;
}

export interface StoredIntent extends Partial<Intent> {
  id: string;
}

/** See {@link Intents.pendingRecordDir}. */
export interface PendingRecordDir {
  readonly path: string;
  settle(): void;
}

/** What a record's directory has among others of its kind. */
const RECORD_MODE = 0o755;

/** An intent names a few ids. */
const MAX_BYTES = 64 * 1024;

const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** Whether a text can be a driver's id, and so part of a path. */
export function isDriverID(text: unknown): text is string {
  return typeof text === 'string' && ID.test(text);
}

export class Intents {
  readonly directory: string;
  readonly #engine: Engine;
  readonly #live = new Set<string>();
  /** Whether a record can be renamed from and to here: false once one could not, being on another file system. */
  holdsRecords = true;

  constructor(directory: string, engine: Engine) {
    this.directory = directory;
    this.#engine = engine;
  }

  async prepare(): Promise<void> {
    await makeDirectory(this.directory, 0o700);
  }

  /** Whether work of this process holds the intent of `id`. */
  isLive(id: string): boolean {
    return this.#live.has(id);
  }

  /**
   * The directory in which the record of the RW layer `id` is made, and to which it is moved when the RW layer is removed.
   * While the record is here it doubles as the intent. Renaming it into place ends the intent; renaming it back begins one.
   * Neither needs another write. The caller calls `settle` when its batch is over: a batch that failed has removed the
   * directory, or left it to recovery.
   */
  pendingRecordDir(id: string): PendingRecordDir {
    this.#live.add(id);
    return { path: join(this.directory, id), settle: () => this.#live.delete(id) };
  }

  /** The steps that make the empty directory, before anything else. */
  makePendingRecordDir({ path }: PendingRecordDir, options: { sync: boolean }): BatchOp[] {
    const make: BatchOp = { op: 'mkdir', path, mode: RECORD_MODE };
    return options.sync ? [make, { op: 'fsync', path: this.directory }] : [make];
  }

  #begin(id: string, intent: Intent, sync: boolean): BatchOp[] {
    const write: BatchOp = {
      op: 'write',
      path: join(this.directory, id),
      mode: 0o600,
      data: JSON.stringify(intent),
      sync,
    };
    return sync ? [write, { op: 'fsync', path: this.directory }] : [write];
  }

  /**
   * `sync` makes it durable before anything that it speaks of is made. A journal's order alone is not enough: btrfs logs
   * the names of a directory that is fsynced for another layer's sake, and not those of the intents' directory.
   */
  async begin(id: string, intent: Intent, options: { sync?: boolean } = {}): Promise<void> {
    this.#live.add(id);
    try {
      await this.#engine.batch(this.#begin(id, intent, options.sync === true));
    } catch (error) {
      if (await this.#isRecord(id)) return; // work that failed in the middle had begun it
      this.#live.delete(id);
      throw error;
    }
  }

  async end(id: string): Promise<void> {
    const path = join(this.directory, id);
    try {
      await this.#engine.batch([{ op: 'unlink', path, missingOk: true }]);
    } catch (error) {
      if (!(await this.#isRecord(id))) throw error;
      await this.#engine.removeTree(path);
    }
    this.#live.delete(id);
  }

  /** The work of this process is over without its end: recovery's now. */
  abandon(id: string): void {
    this.#live.delete(id);
  }

  /** What earlier processes left, and where: content that cannot be read is left out, the id counts. */
  async stored(): Promise<StoredIntent[]> {
    const found: StoredIntent[] = [];
    for (const name of await readdir(this.directory)) {
      if (isDriverID(name) && !this.#live.has(name)) found.push({ id: name, ...(await this.#read(name)) });
    }
    return found;
  }

  /** How many there are, of this process and of earlier ones. */
  async count(): Promise<number> {
    return (await readdir(this.directory)).filter(isDriverID).length;
  }

  async bytesOf(id: string): Promise<number> {
    return (await lstat(join(this.directory, id)).catch(() => undefined))?.size ?? 0; // gone meanwhile: nothing to free
  }

  async #isRecord(id: string): Promise<boolean> {
    return (await lstat(join(this.directory, id)).catch(() => undefined))?.isDirectory() === true; // gone: neither
  }

  async #read(name: string): Promise<Partial<Intent>> {
    let value: unknown;
    try {
      // A record, whole or in parts, stands for its own id alone.
      if (await this.#isRecord(name)) return { kind: 'rw' };
      value = JSON.parse((await readRegularFile(join(this.directory, name), MAX_BYTES))?.toString('utf8') ?? '');
    } catch {
      return {}; // empty or torn by a power cut, or no file at all; the name alone decides then
    }
    if (typeof value !== 'object' || value === null) return {};
    const { kind, with: more, name: rwName, rwID } = value as Record<string, unknown>;
    return {
      ...(typeof kind === 'string' ? { kind: kind as Intent['kind'] } : {}),
      ...(Array.isArray(more) ? { with: more.filter(isDriverID) } : {}),
      ...(typeof rwName === 'string' ? { name: rwName } : {}),
      ...(isDriverID(rwID) ? { rwID } : {}),
    };
  }
}
