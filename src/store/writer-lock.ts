/**
 * One writer a root. The kernel gives the lock back when its holder dies, so a stale one cannot be. A running dockerd on
 * the root counts as a writer: its databases are locked while it runs, and one of them is ours while we write.
 */
import { constants } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Engine, FileLock } from '../engine/engine.js';
import { LayerStoreError, systemError } from '../errors.js';
import { readRegularFile } from '../util/regular-file.js';
import type { OwnPaths } from './context.js';

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
      throw new LayerStoreError('ERR_SYSTEM', `cannot lock the data root: "${path}" is no regular file; remove it`, {
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

/** Only our own lock file holds a pid; one that is dead is of a holder before, whose successor has not written yet. */
async function writtenPID(path: string): Promise<number | undefined> {
  const text = (await readRegularFile(path, 64).catch(() => undefined))?.toString('latin1') ?? '';
  if (!/^[1-9][0-9]{0,9}\n?$/.test(text)) return undefined;
  const pid = Number(text);
  return (await commandOf(pid)) === '' ? undefined : pid;
}

async function commandOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
}
