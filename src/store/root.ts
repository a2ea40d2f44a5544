/**
 * The data root: made with tight modes, and refused where others could change what is in it; locked for one writer; of a
 * format version that this code knows. Where the store's own state lies in it.
 */
import { constants } from 'node:fs';
import { chmod, mkdir, open, readdir, readFile, rename, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Engine, FileLock } from '../engine/engine.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { writeFileAtomic } from '../util/atomic-file.js';
import type { LoggerLike } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { randomID } from '../util/random-id.js';
import { NotRegularError, readRegularFile } from '../util/regular-file.js';

const ROOT_MODE = 0o710;
const OTHERS_WRITE = 0o022;
/** What lies below a root and must be as tight as itself. */
const INSIDE = ['layerstore', 'image', 'overlay2', 'vfs'];

/** Paths below `<root>/layerstore/`, the only paths that the store itself knows. */
export interface OwnPaths {
  readonly directory: string;
  readonly lock: string;
  readonly version: string;
  readonly intents: string;
  readonly references: string;
  readonly quarantine: string;
}

export function ownPaths(root: string): OwnPaths {
  const directory = join(root, 'layerstore');
  return {
    directory,
    lock: join(directory, 'lock'),
    version: join(directory, 'version'),
    intents: join(directory, 'intents'),
    references: join(directory, 'references.json'),
    quarantine: join(directory, 'quarantine'),
  };
}

export interface RootOptions {
  readOnly: boolean;
  allowWritableRoot: boolean;
}

export async function prepareRoot(root: string, options: RootOptions): Promise<void> {
  try {
    if (!options.readOnly) await makeRoot(root);
    const found = await stat(root);
    if (!found.isDirectory()) throw notADirectory(root);
  } catch (error) {
    if (LayerStoreError.is(error)) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOTDIR' || code === 'EEXIST') throw notADirectory(root, error);
    throw systemError(error, 'open the data root', 'give a directory that this user may write to, or make it first');
  }
  if (!options.allowWritableRoot) await checkAccess(root);
}

async function makeRoot(root: string): Promise<void> {
  await mkdir(dirname(root), { recursive: true });
  try {
    await mkdir(root, { mode: ROOT_MODE });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return; // there already, with its owner's modes
    throw error;
  }
  await chmod(root, ROOT_MODE); // whatever the umask took
}

function notADirectory(root: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError('ERR_SYSTEM', `cannot open the data root "${root}": ENOTDIR; give a directory`, {
    errno: -20,
    errnoName: 'ENOTDIR',
    syscall: 'mkdir',
    path: root,
    cause,
  });
}

/** A user who can write to the root can replace any file of any layer, so owner and mode must not allow it. */
async function checkAccess(root: string): Promise<void> {
  const self = process.geteuid?.() ?? 0;
  for (const path of [root, ...INSIDE.map((name) => join(root, name))]) {
    let found;
    try {
      found = await stat(path); // the root may be a link, and Docker's users move directories so: what counts is where it leads
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw systemError(error, 'check who may write to', 'see to the permissions of the data root');
    }
    if (found.uid !== self && found.uid !== 0) {
      throw invalidArgument(
        `"${path}" belongs to user ${found.uid}, who could change any layer: give it to user ${self}, or pass "allowWritableRoot"`,
      );
    }
    if ((found.mode & OTHERS_WRITE) !== 0) {
      const mode = (found.mode & 0o7777).toString(8).padStart(4, '0');
      throw invalidArgument(
        `others may write to "${path}" (mode ${mode}) and so change any layer: run "chmod go-w" on it, or pass "allowWritableRoot"`,
      );
    }
  }
}

export interface WriterLock {
  release(): Promise<void>;
}

export async function lockForWriting(root: string, own: OwnPaths, engine: Engine): Promise<WriterLock> {
  const held: FileLock[] = [];
  const release = async (): Promise<void> => {
    for (let lock = held.pop(); lock !== undefined; lock = held.pop()) await lock.release();
  };
  try {
    const lock = await engine.lock(own.lock, 'exclusive');
    if (lock === undefined) throw await locked(root, own.lock, 'another layerstore');
    held.push(lock);
    await writePID(own.lock);
    held.push(...(await keepDockerOut(root, engine)));
  } catch (error) {
    await release();
    throw systemError(error, 'lock the data root', 'give a data root that this user may write to');
  }
  return { release };
}

/** In place: the lock is on this very file. */
async function writePID(path: string): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    if (!(await file.stat()).isFile()) {
      throw new LayerStoreError('ERR_SYSTEM', `cannot lock the data root: "${path}" is not a regular file; remove it`, {
        path,
      });
    }
    await file.truncate();
    await file.write(`${process.pid}\n`);
  } finally {
    await file.close();
  }
}

/** dockerd opens `volumes/metadata.db` first of all and waits for its lock; with ours on it it cannot start. */
async function keepDockerOut(root: string, engine: Engine): Promise<FileLock[]> {
  for (const path of await databases(join(root, 'buildkit'))) {
    const lock = await engine.lock(path, 'exclusive');
    if (lock === undefined) throw await locked(root, path, 'a running dockerd');
    await lock.release();
  }
  const volumes = join(root, 'volumes', 'metadata.db');
  if (!(await isFile(volumes))) return [];
  const lock = await engine.lock(volumes, 'exclusive');
  if (lock === undefined) throw await locked(root, volumes, 'a running dockerd');
  return [lock];
}

async function databases(directory: string): Promise<string[]> {
  try {
    const names = await readdir(directory);
    return names.filter((name) => name.endsWith('.db')).map((name) => join(directory, name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    throw error;
  }
}

async function locked(root: string, path: string, who: string): Promise<LayerStoreError> {
  // What the holder wrote comes first: the pure-JavaScript engine's lock is held by a helper process of its.
  const pid = (await writtenPID(path)) ?? (await holderOf(path));
  const holder = pid === undefined ? who : `${who} (pid ${pid})`;
  return new LayerStoreError(
    'ERR_STORE_LOCKED',
    `the store at "${root}" is in use by ${holder}: stop that one first; read-only opens work beside it`,
    pid === undefined ? {} : { holders: [{ pid, command: await commandOf(pid) }] },
  );
}

/** The kernel's list of locks names the process by device and inode of the file. */
async function holderOf(path: string): Promise<number | undefined> {
  try {
    const { ino } = await stat(path, { bigint: true });
    const locks = await readFile('/proc/locks', 'utf8');
    for (const line of locks.split('\n')) {
      // "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; a waiter's line has "->" and is not the holder's.
      const match = /^\d+: FLOCK\s+\S+\s+\S+\s+(\d+)\s+\S+:(\d+)\s/.exec(line);
      if (match !== null && match[2] === String(ino) && match[1] !== '0') return Number(match[1]);
    }
  } catch {
    // No /proc, or no permission: the message does without a pid.
  }
  return undefined;
}

/** Only our own lock file holds a pid. A dead process is an earlier holder: the new one has not written its pid yet. */
async function writtenPID(path: string): Promise<number | undefined> {
  const text = (await readRegularFile(path, 64).catch(() => undefined))?.toString('latin1') ?? '';
  if (!/^[1-9][0-9]{0,9}\n?$/.test(text)) return undefined;
  const pid = Number(text);
  return (await commandOf(pid)) === '' ? undefined : pid;
}

async function commandOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
}

/** What this code writes. */
export const FORMAT_VERSION = 1;

/** UPGRADES[n - 1] brings version n to n + 1. Version 1 is the first, so there is none yet. */
const UPGRADES: readonly ((own: OwnPaths) => Promise<void>)[] = [];

export async function checkFormatVersion(
  own: OwnPaths,
  options: { readOnly: boolean; sync: boolean; logger: LoggerLike },
): Promise<void> {
  const found = await readVersion(own.version);
  if (typeof found === 'number' && found > FORMAT_VERSION) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `"${own.directory}" has format version ${found}, written by a newer layerstore: this one knows up to ${FORMAT_VERSION}; upgrade it`,
    );
  }
  if (options.readOnly || found === FORMAT_VERSION) return;
  if (found === 'unreadable') {
    // Written whole and synced, so this is damage; our own records have no other form yet.
    await makeDirectory(own.quarantine, 0o700);
    const aside = join(own.quarantine, `${basename(own.version)}.${randomID(4)}`);
    await rename(own.version, aside);
    options.logger.warn({ aside, version: FORMAT_VERSION }, 'the format version was damaged and is written anew');
  }
  for (let version = typeof found === 'number' ? found : FORMAT_VERSION; version < FORMAT_VERSION; version += 1) {
    await UPGRADES[version - 1]?.(own);
    await writeVersion(own, version + 1, options.sync);
  }
  if (typeof found !== 'number') await writeVersion(own, FORMAT_VERSION, options.sync);
}

async function readVersion(path: string): Promise<number | 'absent' | 'unreadable'> {
  try {
    const text = (await readRegularFile(path, 64))?.toString('utf8');
    if (text === undefined) return 'absent';
    return /^[1-9][0-9]{0,8}\n?$/.test(text) ? Number(text) : 'unreadable';
  } catch (error) {
    if (error instanceof NotRegularError) return 'unreadable';
    throw systemError(error, 'read the format version');
  }
}

async function writeVersion(own: OwnPaths, version: number, sync: boolean): Promise<void> {
  try {
    await writeFileAtomic(own.version, `${version}\n`, { mode: 0o600, sync });
  } catch (error) {
    throw systemError(error, 'write the format version', 'give a data root that this user may write to');
  }
}
