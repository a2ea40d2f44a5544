/** The records of RW layers: `mounts/<name>/{mount-id,init-id,parent}`, always written whole and renamed. */
import { lstatSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ChainID } from '../digest.js';
import { parseChainID } from '../digest.js';
import type { BatchOp, StepsAround } from '../engine/engine.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { formatValue } from '../util/quote.js';
import { randomID } from '../util/random-id.js';
import { filesAt, optional, required } from './file-records.js';
import { MODES, MOUNT_FILES, mountName, temporaryName } from './layout.js';
import type { MountRecord } from './metadata-store.js';
import type { RecordDirectory } from './record-directory.js';
import { exists, removeAll } from './record-directory.js';
import { corrupt, InvalidRecordError, readDigest, readMountID } from './record-text.js';

/**
 * A record is made in, and removed from, a directory of pending ones, under the id of its RW layer. While it lies there it
 * is the intent of what is made or removed: renaming it into place ends that intent, and renaming it back begins one.
 * Neither needs another write.
 */
export class FileMounts {
  readonly #place: RecordDirectory;
  readonly #pending: string;

  /** `pending`: absolute path, from and to which records can be renamed. */
  constructor(place: RecordDirectory, pending: string) {
    this.#place = place;
    this.#pending = pending;
  }

  async create(name: string, record: MountRecord, make: (around: StepsAround) => Promise<void>): Promise<void> {
    const place = this.#place;
    place.mustWrite('write the record of an RW layer');
    const final = place.at(mountName(name));
    const path = this.#pendingPath(record.id);
    // A record that the store does not know may have the name: it is exchanged with the new one and removed.
    const taken = isThere(final);
    const publish: BatchOp = taken
      ? { op: 'exchange', path, dest: final }
      : { op: 'rename', path, dest: final, noReplace: true };
    await make({
      before: this.#makePending(path),
      after: [...this.#writes(path, record), publish, ...place.syncs(dirname(final))],
    });
    if (taken) await removeAll(path);
  }

  async delete(name: string, id: string, remove: (around: StepsAround) => Promise<void>): Promise<void> {
    const place = this.#place;
    place.mustWrite('remove an RW layer');
    const from = place.at(mountName(name));
    const path = this.#pendingPath(id);
    const there = isThere(from);
    // The record is missing; an empty one is an intent as well. A later failure does not remove it.
    if (!there) await place.batch(this.#makePending(path));
    const files = Object.values(MOUNT_FILES).map((file) => join(path, file));
    await remove({
      // The new name is synced first: there is no moment when a power cut takes both.
      before: there ? [{ op: 'rename', path: from, dest: path }, ...place.syncs(dirname(path), dirname(from))] : [],
      after: [
        ...files.map((file): BatchOp => ({ op: 'unlink', path: file, missingOk: true })),
        { op: 'rmdir', path, missingOk: true },
      ],
    });
  }

  /** Tries it with an empty directory; a crash meanwhile leaves that, as an intent or below `tmp/`, for recovery. */
  async canMovePending(): Promise<boolean> {
    const path = this.#place.at(temporaryName('mount'));
    const dest = this.#pendingPath(randomID());
    try {
      await this.#place.batch([
        { op: 'mkdir', path, mode: MODES.directory },
        { op: 'rename', path, dest, noReplace: true },
        { op: 'rmdir', path: dest },
      ]);
      return true;
    } catch (error) {
      if (LayerStoreError.is(error) && error.errnoName === 'EXDEV') return false;
      throw error;
    }
  }

  #pendingPath(id: string): string {
    return join(this.#pending, checkedID(id));
  }

  #makePending(path: string): BatchOp[] {
    return [{ op: 'mkdir', path, mode: MODES.directory }, ...this.#place.syncs(dirname(path))];
  }

  async set(name: string, record: MountRecord): Promise<void> {
    const place = this.#place;
    place.mustWrite('write the record of an RW layer');
    const final = place.at(mountName(name));
    await place.busyWith(temporaryName('mount'), async (path) => {
      const ops: BatchOp[] = [{ op: 'mkdir', path, mode: MODES.directory }, ...this.#writes(path, record)];
      // An older record is exchanged with the new one and then removed, so that there is always one.
      const publish: BatchOp = { op: (await exists(final)) ? 'exchange' : 'rename', path, dest: final };
      await place.batch([...ops, publish, ...place.syncs(dirname(final))]);
    });
  }

  #writes(path: string, { id, initID, parent }: MountRecord): BatchOp[] {
    const place = this.#place;
    const files: [string, string][] = [[MOUNT_FILES.id, checkedID(id)]];
    if (initID !== undefined) files.push([MOUNT_FILES.initID, checkedID(initID)]);
    if (parent !== undefined) files.push([MOUNT_FILES.parent, parseChainID(parent)]);
    const ops = files.map(([file, data]): BatchOp => ({
      op: 'write',
      path: join(path, file),
      mode: MODES.file,
      data,
      sync: place.strict,
    }));
    return [...ops, ...place.syncs(path)];
  }

  async setID(name: string, id: string): Promise<void> {
    await this.#setFile(name, MOUNT_FILES.id, checkedID(id));
  }

  async setInitID(name: string, id: string): Promise<void> {
    await this.#setFile(name, MOUNT_FILES.initID, checkedID(id));
  }

  async setParent(name: string, parent: ChainID): Promise<void> {
    await this.#setFile(name, MOUNT_FILES.parent, parseChainID(parent));
  }

  /** One file, replaced by a rename; for callers that know no `set`. */
  async #setFile(name: string, file: string, data: string): Promise<void> {
    const place = this.#place;
    place.mustWrite('write the record of an RW layer');
    const directory = place.at(mountName(name));
    const fresh = !(await exists(directory));
    await place.busyWith(temporaryName('mount'), async (path) => {
      const ops: BatchOp[] = [{ op: 'write', path, mode: MODES.file, data, sync: place.strict }];
      if (fresh) ops.push({ op: 'mkdir', path: directory, mode: MODES.directory });
      ops.push({ op: 'rename', path, dest: join(directory, file) });
      await place.batch([...ops, ...place.syncs(directory, ...(fresh ? [dirname(directory)] : []))]);
    });
  }

  async getID(name: string): Promise<string> {
    return this.#read(name, (path) => required(filesAt(path), MOUNT_FILES.id, readMountID));
  }

  async getInitID(name: string): Promise<string | undefined> {
    return this.#read(name, (path) => optional(filesAt(path), MOUNT_FILES.initID, readMountID));
  }

  async getParent(name: string): Promise<ChainID | undefined> {
    return this.#read(name, (path) => optional(filesAt(path), MOUNT_FILES.parent, readDigest) as ChainID | undefined);
  }

  async remove(name: string): Promise<void> {
    this.#place.mustWrite('remove an RW layer');
    const path = this.#place.at(mountName(name));
    if (!(await exists(path))) return;
    await this.#place.busyWith(temporaryName('removed'), (moved) =>
      this.#place.delete(path, moved, Object.values(MOUNT_FILES)),
    );
  }

  async #read<T>(name: string, read: (path: string) => T): Promise<T> {
    const path = this.#place.at(mountName(name));
    try {
      const value = read(path);
      if (value !== undefined || (await exists(path))) return value;
    } catch (error) {
      if (!(error instanceof InvalidRecordError)) throw systemError(error, `read the record of RW layer "${name}"`);
      if (await exists(path)) throw corrupt(`RW layer "${name}"`, error.message, path);
    }
    throw new LayerStoreError('ERR_MOUNT_DOES_NOT_EXIST', `there is no RW layer "${name}"`);
  }
}

function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    throw systemError(error, 'look at the record of an RW layer');
  }
}

function checkedID(id: string): string {
  try {
    if (readMountID(id) === id) return id;
  } catch {
    // the same answer for every flaw
  }
  throw invalidArgument(`${formatValue(id)} is not a mount id: 64 hex digits, "-init" after them for an init layer`);
}
