/** The layerdb's directory as a place to write: what is made, moved and deleted in it, and in which order it is synced. */
import type { Dirent } from 'node:fs';
import { lstat, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { BatchOp, Engine } from '../engine/engine.js';
import { LayerStoreError, systemError } from '../errors.js';
import { entriesOf } from './file-records.js';
import { LAYERS, MODES, MOUNTS, TEMPORARY } from './layout.js';

/** The part of an engine that records need. */
export type RecordEngine = Pick<Engine, 'batch' | 'readSmallFiles'>;

export class RecordDirectory {
  /** Absolute path of the layerdb. */
  readonly path: string;
  /** Whether files and directories are synced; the order of the steps is the same without. */
  readonly strict: boolean;
  readonly engine: RecordEngine;
  readonly #readOnly: boolean;
  /** Names below the directory that this process is at work on: no leftovers. */
  readonly busy = new Set<string>();

  constructor(path: string, engine: RecordEngine, strict: boolean, readOnly: boolean) {
    this.path = path;
    this.engine = engine;
    this.strict = strict;
    this.#readOnly = readOnly;
  }

  mustWrite(action: string): void {
    if (this.#readOnly)
      throw new LayerStoreError('ERR_READ_ONLY', `cannot ${action}: the store is open for reading only`);
  }

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** Makes what is missing, so that no later rename needs to sync more than the directory it goes to. */
  async prepare(): Promise<void> {
    const made: string[] = [];
    for (let path = this.path; !(await exists(path)); path = dirname(path)) made.unshift(path);
    const ops: BatchOp[] = made.map((path) => ({ op: 'mkdir', path, mode: MODES.root, existOk: true }));
    for (const name of [TEMPORARY, LAYERS, MOUNTS]) {
      const path = this.at(name);
      if (await exists(path)) continue;
      ops.push({ op: 'mkdir', path, mode: MODES.directory, existOk: true });
      made.push(path);
    }
    if (ops.length > 0) await this.batch([...ops, ...this.syncs(...made.map((path) => dirname(path)))]);
  }

  /** Runs the steps in order; what they made is taken back at the first failure. */
  async batch(ops: readonly BatchOp[]): Promise<void> {
    await this.engine.batch(ops);
  }

  /** The steps that sync these, each once; none in a relaxed store. */
  syncs(...paths: string[]): BatchOp[] {
    return this.strict ? [...new Set(paths)].map((path) => ({ op: 'fsync', path })) : [];
  }

  /** Runs `work` on a new path below `tmp/` and leaves nothing there. */
  async busyWith(name: string, work: (path: string) => Promise<void>): Promise<void> {
    const path = this.at(name);
    this.busy.add(name);
    try {
      await work(path);
    } finally {
      // Only the outcome of the work counts: a leftover below tmp/ is no record; the next cleanup or open removes it.
      await removeAll(path).catch(() => undefined);
      this.busy.delete(name);
    }
  }

  /** Takes `from` out of sight as `path` first (where given), then deletes it: a crash leaves a whole record or a leftover. */
  async delete(from: string | undefined, path: string, files: readonly string[]): Promise<void> {
    if (from !== undefined) await this.batch([{ op: 'rename', path: from, dest: path }, ...this.syncs(dirname(from))]);
    // One call removes the known files; the rest of the directory is removed too, as by Docker's RemoveAll.
    const known: BatchOp[] = files.map((file) => ({ op: 'unlink', path: join(path, file), missingOk: true }));
    try {
      await this.batch([...known, { op: 'rmdir', path, missingOk: true }]);
    } catch {
      try {
        await removeAll(path);
      } catch (error) {
        // No reader sees it any more, so the removal succeeded; the next cleanup or open removes the leftover.
        if (from === undefined) throw error;
      }
    }
  }

  entries(name: string): Dirent[] {
    try {
      return entriesOf(this.at(name));
    } catch (error) {
      throw systemError(error, 'list the layer records');
    }
  }
}

/** Whether there is anything at `path`, a dangling link included. */
export async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw systemError(error, 'look at the layer records');
  }
}

export async function removeAll(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    throw systemError(error, 'remove a record');
  }
}
