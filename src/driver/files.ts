/** Small helpers over `node:fs` that both drivers need. */
import { lstatSync, type Stats } from 'node:fs';
import { lstat, opendir } from 'node:fs/promises';
import type { Engine } from '../engine/engine.js';
import { LayerStoreError, systemError } from '../errors.js';
import { NotRegularError, readRegularFile } from '../util/regular-file.js';

/** Whether a failure, of an engine or of `node:fs`, is one of these errnos. */
export function hasErrno(error: unknown, ...names: readonly string[]): boolean {
  if (!(error instanceof Error)) return false;
  const name = error instanceof LayerStoreError ? error.errnoName : (error as { code?: unknown }).code;
  return typeof name === 'string' && names.includes(name);
}

/** Whether a step failed because `path`, and nothing else, is not there. */
export function isMissing(error: unknown, path: string): boolean {
  return hasErrno(error, 'ENOENT') && (error as { path?: unknown }).path === path;
}

/** What the entry itself is; `undefined` where there is none. */
export async function kindOf(path: string): Promise<'directory' | 'file' | 'other' | undefined> {
  try {
    return kindIn(await lstat(path));
  } catch (error) {
    if (hasErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw systemError(error, 'look at');
  }
}

/** ERR_LAYER_CORRUPT unless `path` itself is a directory: behind a link in its place lie files that are not the store's. */
export async function requireDirectory(path: string): Promise<void> {
  checkDirectory(path, await kindOf(path));
}

/**
 * {@link requireDirectory} without a promise, which costs many times what the look itself does: for the few directories of
 * a layer that is being mounted. They were made or used a moment ago, so the kernel has them in memory.
 */
export function requireDirectorySync(path: string): void {
  try {
    checkDirectory(path, kindIn(lstatSync(path, { throwIfNoEntry: false })));
  } catch (error) {
    throw systemError(error, 'look at');
  }
}

function kindIn(found: Stats | undefined): 'directory' | 'file' | 'other' | undefined {
  if (found === undefined) return undefined;
  return found.isDirectory() ? 'directory' : found.isFile() ? 'file' : 'other';
}

function checkDirectory(path: string, kind: 'directory' | 'file' | 'other' | undefined): void {
  if (kind === 'directory') return;
  throw new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `cannot use "${path}": ${kind === undefined ? 'it is missing' : 'it is not a directory, and a link is not followed'}; ` +
      'repair the layer, or remove it and register it again',
    { path },
  );
}

/** Names in a directory; none where there is no such directory. */
export function namesIn(directory: string, engine: Pick<Engine, 'names'>): Promise<string[]> {
  return listed(engine.names(directory, 'all'));
}

/** Names of directories right below `directory`; none where there is no such directory. */
export function directoriesIn(directory: string, engine: Pick<Engine, 'names'>): Promise<string[]> {
  return listed(engine.names(directory, 'directories'));
}

async function listed(names: Promise<string[]>): Promise<string[]> {
  try {
    return await names;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** Whether one of the directories right below `directory` is such; reads on only until it finds one. */
export async function hasDirectory(directory: string, such: (name: string) => boolean): Promise<boolean> {
  try {
    for await (const entry of await opendir(directory)) if (entry.isDirectory() && such(entry.name)) return true;
    return false;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw systemError(error, 'list the directory');
  }
}

/**
 * A small record as latin1 text, so that no byte is lost; `undefined` where there is none. Links are not followed and
 * nothing but a regular file is read, so that a damaged store can neither lead elsewhere nor make the reader wait.
 */
export async function readRecord(path: string, maxBytes: number): Promise<string | undefined> {
  try {
    return (await readRegularFile(path, maxBytes))?.toString('latin1');
  } catch (error) {
    if (error instanceof NotRegularError) throw damaged(path, error.message);
    throw systemError(error, 'read the record');
  }
}

function damaged(path: string, why: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `cannot use the record "${path}": it ${why}; remove the layer or restore the file`,
    {
      path,
    },
  );
}
