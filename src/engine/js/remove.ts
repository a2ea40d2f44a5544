/** Removing trees and adding up their sizes. */
import { LayerStoreError, systemError } from '../../errors.js';
import type { TreeUsage } from '../engine.js';
import { mapConcurrent } from '../../util/concurrent.js';
import { randomID } from '../../util/random-id.js';
import { OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import { readMounts } from './mount.js';
import { TreeRoot } from './tree-root.js';

/** Open directories on the way down; deeper ones are moved up and come later, so that depth costs no descriptors. */
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
    await OpenDirectory.with(path, path, (top) => new Removal(top, stat.dev, options.signal).run());
    await fs.unlessErrno(fs.rmdir(path), 'ENOENT');
  } catch (error) {
    options.signal?.throwIfAborted();
    throw systemError(error, 'remove the tree', undefined, { path });
  }
}

/** Removes a directory by a path that is good until this has ended, such as that of a place in an open directory. */
export async function removeDirectory(path: Buffer): Promise<void> {
  const { dev } = await fs.lstat(path);
  await OpenDirectory.with(path, path.toString(), (top) => new Removal(top, dev, undefined).run());
  await fs.rmdir(path);
}

/** Empties a directory. */
class Removal {
  readonly #top: OpenDirectory;
  readonly #device: bigint;
  readonly #signal: AbortSignal | undefined;
  /** Directories that were moved up into the top, by name. */
  readonly #moved: string[] = [];

  constructor(top: OpenDirectory, device: bigint, signal: AbortSignal | undefined) {
    this.#top = top;
    this.#device = device;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    await this.#empty(this.#top, 0);
    for (let name = this.#moved.pop(); name !== undefined; name = this.#moved.pop())
      await this.#remove(this.#top.at(name), 1);
  }

  async #empty(directory: OpenDirectory, depth: number): Promise<void> {
    const folders: string[] = [];
    const entries = await fs.readdir(directory.at(''), { withFileTypes: true, encoding: 'buffer' });
    await mapConcurrent(entries, IN_FLIGHT, async (entry) => {
      this.#signal?.throwIfAborted();
      const name = entry.name.toString('latin1');
      if (entry.isDirectory()) folders.push(name);
      else await fs.unlessErrno(fs.unlink(directory.at(name)), 'ENOENT');
    });
    for (const name of folders) {
      this.#signal?.throwIfAborted();
      const path = directory.at(name);
      if (depth >= MAX_DEPTH) {
        const higher = `.layerstore-deep-${randomID(8)}`;
        await fs.rename(path, this.#top.at(higher));
        this.#moved.push(higher);
      } else {
        await this.#remove(path, depth + 1);
      }
    }
  }

  async #remove(path: Buffer, depth: number): Promise<void> {
    await OpenDirectory.with(path, path.toString(), async (child) => {
      const { dev } = await child.stat();
      // A file system mounted since the mount table was read: rmdir below fails with EBUSY, and nothing in it was touched.
      if (dev === this.#device) await this.#empty(child, depth);
    });
    await fs.unlessErrno(fs.rmdir(path), 'ENOENT');
  }
}

/** See {@link Engine.usage}. The directory itself counts as an inode. */
export async function usage(path: string, options: { signal?: AbortSignal } = {}): Promise<TreeUsage> {
  const total: TreeUsage = { size: 0, allocated: 0, inodes: 0 };
  const linked = new Set<string>();
  const visit = async (directory: OpenDirectory, path: string): Promise<string[]> => {
    const folders: string[] = [];
    for (const { name, stat } of await directory.entries()) {
      if (stat.nlink > 1n && !stat.isDirectory()) {
        const inode = `${String(stat.dev)}:${String(stat.ino)}`;
        if (linked.has(inode)) continue;
        linked.add(inode);
      }
      total.inodes++;
      total.allocated += Number(stat.blocks) * 512;
      if (stat.isDirectory()) folders.push(path === '' ? name : `${path}/${name}`);
      else total.size += Number(stat.size);
    }
    return folders;
  };
  try {
    const { blocks } = await OpenDirectory.with(path, path, (top) => top.stat()); // no link
    total.inodes = 1;
    total.allocated = Number(blocks) * 512;
    const root = await TreeRoot.open(path);
    try {
      const waiting = [''];
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
        options.signal?.throwIfAborted();
        for (const folder of await root.in(next, visit)) waiting.push(folder);
      }
    } finally {
      await root.close();
    }
  } catch (error) {
    throw systemError(error, 'add up the size of', undefined, { path });
  }
  return total;
}
