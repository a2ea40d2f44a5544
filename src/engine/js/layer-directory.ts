/** LayerDirectory: one directory of a stack, with its extended attributes read once a region, when they are first asked for. */
import type { BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import type { DirectoryEntry, OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import { TreeRoot } from './tree-root.js';
import { readRegionXattrs, regionOf, removeXattrs, type Xattr } from './xattr.js';

const OVERLAY_XATTR = /^(trusted|user)\.overlay\./;
/** For directories of which only the structure and what Docker compares is asked. */
const FEW = '^(trusted\\.overlay\\.|user\\.overlay\\.|security\\.capability$)';

/** Whether overlayfs itself keeps this attribute. */
export function isOverlayXattr(name: string): boolean {
  return OVERLAY_XATTR.test(name);
}

export class LayerDirectory {
  readonly directory: string;
  readonly root: TreeRoot;
  readonly #match: string;
  readonly #signal: AbortSignal | undefined;
  /** By the region's directory. */
  readonly #xattrs = new Map<string, Promise<Map<string, Xattr[]>>>();
  /** Directories of the regions that something was listed in, and the first. */
  readonly #listed = new Set(['']);

  private constructor(directory: string, root: TreeRoot, match: string, signal: AbortSignal | undefined) {
    this.directory = directory;
    this.root = root;
    this.#match = match;
    this.#signal = signal;
  }

  /** @param all read all attributes, not only those that tell the structure */
  static async open(directory: string, all: boolean, signal: AbortSignal | undefined): Promise<LayerDirectory> {
    return new LayerDirectory(directory, await TreeRoot.open(directory), all ? '-' : FEW, signal);
  }

  async close(): Promise<void> {
    for (const read of this.#xattrs.values()) await read.catch(() => undefined); // Whoever asked for them has the error.
    await this.root.close();
  }

  /** Entries of the directory `path` in byte order; none where it is gone. */
  list(path: string): Promise<DirectoryEntry[]> {
    return this.#read(path, (directory) => directory.entries());
  }

  /** Their names alone. */
  names(path: string): Promise<string[]> {
    return this.#read(path, (directory) => directory.names());
  }

  async #read<T>(path: string, read: (directory: OpenDirectory) => Promise<T[]>): Promise<T[]> {
    this.#listed.add(regionOf(`${path}/`).directory);
    try {
      return await this.root.in(path, read);
    } catch (error) {
      // A live tree changes while it is read.
      if (LayerStoreError.is(error) && error.errnoName === 'ENOENT') return [];
      throw systemError(error, 'list the directory', undefined, { path: this.root.describe(path) });
    }
  }

  /** `undefined` where nothing is there, or the path leads through something that is no directory. */
  async lstat(path: string): Promise<BigIntStats | undefined> {
    try {
      return await this.root.at(path, (place) => fs.unlessErrno(fs.lstat(place.path), 'ENOENT', 'ENOTDIR'));
    } catch (error) {
      if (LayerStoreError.is(error) && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.errnoName ?? '')) return undefined;
      throw systemError(error, 'look at', undefined, { path: this.root.describe(path) });
    }
  }

  /** Target of a symbolic link, latin1. */
  async readlink(path: string): Promise<string> {
    try {
      return (await this.root.at(path, (place) => fs.readlink(place.path))).toString('latin1');
    } catch (error) {
      throw systemError(error, 'read the link', undefined, { path: this.root.describe(path) });
    }
  }

  /** Attributes of a path, in byte order of name. */
  async xattrs(path: string): Promise<readonly Xattr[]> {
    const { directory, start } = regionOf(path);
    return (await this.#region(directory)).get(path.slice(start)) ?? [];
  }

  #region(directory: string): Promise<Map<string, Xattr[]>> {
    let read = this.#xattrs.get(directory);
    if (read === undefined) {
      read = readRegionXattrs(this.root, directory, this.#match, this.#signal);
      this.#xattrs.set(directory, read);
    }
    return read;
  }

  /** One attribute of overlayfs itself, whichever of its two prefixes it has. */
  async overlayXattr(path: string, name: string): Promise<Buffer | undefined> {
    for (const [key, value] of await this.xattrs(path)) {
      if (key === `trusted.overlay.${name}` || key === `user.overlay.${name}`) return value;
    }
    return undefined;
  }

  async isOpaque(path: string): Promise<boolean> {
    return (await this.overlayXattr(path, 'opaque'))?.toString('latin1') === 'y';
  }

  async capability(path: string): Promise<Buffer | undefined> {
    return (await this.xattrs(path)).find(([name]) => name === 'security.capability')?.[1];
  }

  /**
   * Takes off overlayfs's own attributes that belong to the mount that was (origin, impure, nlink, …); opaque markers are
   * part of the layer. Of a tree with paths beyond the first region, only where it was listed.
   */
  async stripOverlayXattrs(): Promise<void> {
    const byName = new Map<string, Set<string>>();
    for (const region of this.#listed) {
      for (const [inside, xattrs] of await this.#region(region)) {
        for (const [name] of xattrs) {
          if (!isOverlayXattr(name) || name.endsWith('.overlay.opaque')) continue;
          const paths = byName.get(name) ?? new Set();
          paths.add(region === '' || inside === '' ? region + inside : `${region}/${inside}`);
          byName.set(name, paths);
        }
      }
    }
    for (const [name, paths] of byName) await removeXattrs(this.root, name, [...paths], this.#signal);
  }
}

/** Whether overlayfs takes this for a whiteout. */
export function isWhiteout(stat: BigIntStats): boolean {
  return stat.isCharacterDevice() && stat.rdev === 0n;
}
