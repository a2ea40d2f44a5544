/** Removing trees and adding up their sizes. */
import { LayerStoreError, systemError } from '../../errors.js';
import type { TreeUsage } from '../engine.js';
import * as fs from './fs.js';
import { readMounts } from './mount-table.js';
import { eachLimited, OpenedDirectory } from './walk.js';
import { randomID } from '../../util/random-id.js';

/** Open directories on the way down; deeper ones are moved up first, so that depth costs no descriptors. */
const MAX_DEPTH = 200;

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
    const top = await OpenedDirectory.open(path, path);
    try {
      await empty(top, top, 0, stat.dev, options.signal);
    } finally {
      await top.close();
    }
    await fs.unlessErrno(fs.rmdir(path), 'ENOENT');
  } catch (error) {
    options.signal?.throwIfAborted();
    throw systemError(error, 'remove the tree', undefined, { path });
  }
}

/** Removes a directory that the caller reaches by a path of its own, such as one behind `/proc/self/fd`. */
export async function removeDirectory(path: Buffer): Promise<void> {
  const { dev } = await fs.lstat(path);
  const top = await OpenedDirectory.open(path, path.toString());
  try {
    await empty(top, top, 0, dev, undefined);
  } finally {
    await top.close();
  }
  await fs.rmdir(path);
}

async function empty(
  directory: OpenedDirectory,
  top: OpenedDirectory,
  depth: number,
  device: bigint,
  signal: AbortSignal | undefined,
): Promise<void> {
  const folders: string[] = [];
  const entries = await fs.readdir(directory.at(''), { withFileTypes: true, encoding: 'buffer' });
  await eachLimited(entries, async (entry) => {
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
  top: OpenedDirectory,
  depth: number,
  device: bigint,
  signal: AbortSignal | undefined,
): Promise<void> {
  const child = await OpenedDirectory.open(path, path.toString());
  try {
    const { dev } = await fs.fstat(child.fd);
    // A file system mounted since the mount table was read: rmdir below fails with EBUSY, and nothing in it was touched.
    if (dev === device) await empty(child, top, depth, device, signal);
  } finally {
    await child.close();
  }
  await fs.unlessErrno(fs.rmdir(path), 'ENOENT');
}

/** See {@link Engine.usage}. The directory itself counts as an inode. */
export async function usage(path: string, options: { signal?: AbortSignal } = {}): Promise<TreeUsage> {
  const total: TreeUsage = { size: 0, allocated: 0, inodes: 0 };
  const linked = new Set<string>();
  const visit = async (directory: OpenedDirectory, shown: string): Promise<void> => {
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
      const child = await OpenedDirectory.open(directory.at(name), below);
      try {
        await visit(child, below);
      } finally {
        await child.close();
      }
    }
  };
  const top = await OpenedDirectory.open(path, path);
  try {
    const stat = await fs.fstat(top.fd);
    total.inodes = 1;
    total.allocated = Number(stat.blocks) * 512;
    await visit(top, path);
  } catch (error) {
    throw systemError(error, 'add up the size of', undefined, { path });
  } finally {
    await top.close();
  }
  return total;
}
