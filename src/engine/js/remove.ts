/** Removing trees and adding up their sizes. */
import { LayerStoreError, systemError } from '../../errors.js';
import type { TreeUsage } from '../engine.js';
import { mapConcurrent } from '../../util/concurrent.js';
import { randomID } from '../../util/random-id.js';
import { OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import { readMounts } from './mount.js';

/** Open directories on the way down; deeper ones are moved up first, so that depth costs no descriptors. */
const MAX_DEPTH = 200;
/** Entries of a directory that are removed at once. */
const IN_FLIGHT = 16;

/** See {@link Engine.removeTree}. */
export async function removeTree(path: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  options.signal?.throwIfAborted();
  const stat = await fs.unlessErrno(fs.lstat(path), 'ENOENT', 'ENOTDIR');
  if (stat === undefined) return;
  if (!stat.isDirectory()) {
    await fs.unlessErrno(fs.unlink(path), 'ENOENT');
    return;
  }
  const mounted = await readMounts(path);
  if (mounted[0] !== undefined) {
    throw new LayerStoreError(
      'ERR_SYSTEM',
      `cannot remove "${path}": "${mounted[0].target}" is mounted there; unmount it first`,
      {
        errno: -16,
        errnoName: 'EBUSY',
        syscall: 'rmdir',
        path,
      },
    );
  }
  try {
    await OpenDirectory.with(path, path, (top) => empty(top, top, 0, stat.dev, options.signal));
    await fs.unlessErrno(fs.rmdir(path), 'ENOENT');
  } catch (error) {
    options.signal?.throwIfAborted();
    throw systemError(error, 'remove the tree', undefined, { path });
  }
}

/** Removes a directory by a path that is good until this has ended, such as that of a place in an open directory. */
export async function removeDirectory(path: Buffer): Promise<void> {
  const { dev } = await fs.lstat(path);
  await OpenDirectory.with(path, path.toString(), (top) => empty(top, top, 0, dev, undefined));
  await fs.rmdir(path);
}

async function empty(
  directory: OpenDirectory,
  top: OpenDirectory,
  depth: number,
  device: bigint,
  signal: AbortSignal | undefined,
): Promise<void> {
  const folders: string[] = [];
  const entries = await fs.readdir(directory.at(''), { withFileTypes: true, encoding: 'buffer' });
  await mapConcurrent(entries, IN_FLIGHT, async (entry) => {
    signal?.throwIfAborted();
    const name = entry.name.toString('latin1');
    if (entry.isDirectory()) folders.push(name);
    else await fs.unlessErrno(fs.unlink(directory.at(name)), 'ENOENT');
  });
  for (const name of folders) {
    signal?.throwIfAborted();
    const path = directory.at(name);
    if (depth >= MAX_DEPTH) {
      const higher = top.at(`.layerstore-deep-${randomID(8)}`);
      await fs.rename(path, higher);
      await emptyAndRemove(higher, top, 1, device, signal);
    } else {
      await emptyAndRemove(path, top, depth + 1, device, signal);
    }
  }
}

async function emptyAndRemove(
  path: Buffer,
  top: OpenDirectory,
  depth: number,
  device: bigint,
  signal: AbortSignal | undefined,
): Promise<void> {
  await OpenDirectory.with(path, path.toString(), async (child) => {
    const { dev } = await child.stat();
    // A file system mounted since the mount table was read: rmdir below fails with EBUSY, and nothing in it was touched.
    if (dev === device) await empty(child, top, depth, device, signal);
  });
  await fs.unlessErrno(fs.rmdir(path), 'ENOENT');
}

/** See {@link Engine.usage}. The directory itself counts as an inode. */
export async function usage(path: string, options: { signal?: AbortSignal } = {}): Promise<TreeUsage> {
  const total: TreeUsage = { size: 0, allocated: 0, inodes: 0 };
  const linked = new Set<string>();
  const visit = async (directory: OpenDirectory, shown: string): Promise<void> => {
    options.signal?.throwIfAborted();
    for (const { name, stat } of await directory.entries()) {
      if (stat.nlink > 1n && !stat.isDirectory()) {
        const inode = `${String(stat.dev)}:${String(stat.ino)}`;
        if (linked.has(inode)) continue;
        linked.add(inode);
      }
      total.inodes++;
      total.allocated += Number(stat.blocks) * 512;
      if (!stat.isDirectory()) {
        total.size += Number(stat.size);
        continue;
      }
      const below = `${shown}/${Buffer.from(name, 'latin1').toString()}`;
      await OpenDirectory.with(directory.at(name), below, (child) => visit(child, below));
    }
  };
  try {
    await OpenDirectory.with(path, path, async (top) => {
      const stat = await top.stat();
      total.inodes = 1;
      total.allocated = Number(stat.blocks) * 512;
      await visit(top, path);
    });
  } catch (error) {
    throw systemError(error, 'add up the size of', undefined, { path });
  }
  return total;
}
