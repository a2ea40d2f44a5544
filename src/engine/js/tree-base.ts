/**
 * TreeBase: what every kind of entry needs of the tree that is made: places, what is in the way and goes, and what is set
 * at the end. See tree-writer.ts.
 */
import type { BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import type { WhiteoutForm } from '../engine.js';
import * as fs from './fs.js';
import { shown } from './names.js';
import { removeDirectory } from './remove.js';
import type { TarTime } from './tar-header.js';
import { TaskPool } from './task-pool.js';
import { utime } from './times.js';
import type { Place, TreeRoot } from './tree-root.js';
import { OpenedDirectory } from './walk.js';
import { setXattrs, type Xattr, type XattrItem } from './xattr.js';

/** Files whose content or metadata is being written. */
const IN_FLIGHT = 16;
/** Attributes that wait for the next run of setfattr, in bytes. */
const XATTR_BATCH = 1024 * 1024;

export interface TreeWriterOptions {
  whiteouts: WhiteoutForm;
  /** An entry of this layer is about to go: its path, and what to hand to node:fs where it is a file with content. */
  onReplaced?: (path: string, content: Buffer | undefined, size: number) => Promise<void>;
  /** A directory was made that no entry named so far. */
  onImplied?: () => void;
  signal?: AbortSignal;
}

export abstract class TreeBase {
  protected readonly root: TreeRoot;
  protected readonly options: TreeWriterOptions;
  protected readonly pool = new TaskPool(IN_FLIGHT);
  /** Directories that no entry named yet. */
  protected readonly implied = new Set<string>();
  /** In `apply` form: what this layer made, since all else is the parent's. */
  protected readonly made: Set<string> | undefined;
  protected readonly directoryTimes = new Map<string, TarTime>();
  protected readonly opaqueSet = new Set<string>();
  #xattrs: XattrItem[] = [];
  #xattrBytes = 0;
  /** Apparent size of what was made and is still there. */
  size = 0;

  constructor(root: TreeRoot, options: TreeWriterOptions) {
    this.root = root;
    this.options = options;
    this.made = options.whiteouts === 'apply' ? new Set() : undefined;
  }

  /** Where a path lies; parents are made. A parent that can be no directory is the tar's fault. */
  async place(path: string): Promise<Place> {
    try {
      return await this.root.place(path, { make: (missing) => this.#makeImplied(missing) });
    } catch (error) {
      if (!isNoDirectory(error)) throw error;
      throw new LayerStoreError('ERR_BAD_TAR', `the tar has "${shown(path)}" below something that is no directory`, {
        cause: error,
        path: shown(path),
        detail: 'a parent is no directory',
      });
    }
  }

  /** The same where nothing is made: `undefined` for a parent that is not there. */
  protected async placeIfThere(path: string): Promise<Place | undefined> {
    try {
      return await this.root.place(path);
    } catch (error) {
      if (isNoDirectory(error)) return undefined;
      throw error;
    }
  }

  #noDirectory(place: Place): unknown {
    const error = Object.assign(new Error('ENOTDIR'), { code: 'ENOTDIR', errno: -20, syscall: 'open' });
    return systemError(error, 'use as a directory', undefined, { path: this.root.describe(place.real) });
  }

  async #makeImplied(place: Place): Promise<void> {
    const existing = await this.existing(place);
    if (existing !== undefined) {
      if (!this.hides(existing)) throw this.#noDirectory(place);
      await this.remove(place);
      this.markOpaque(place.real);
    }
    await this.attempt('make the directory', place, async () => {
      await fs.mkdir(place.path, 0o755);
      await fs.chmod(place.path, 0o755);
    });
    this.options.onImplied?.();
    this.implied.add(place.real);
    this.made?.add(place.real);
  }

  protected isWhiteout(stat: BigIntStats): boolean {
    return stat.isCharacterDevice() && stat.rdev === 0n;
  }

  protected markOpaque(path: string): void {
    const name = this.options.whiteouts === 'overlay' ? 'trusted.overlay.opaque' : 'user.overlay.opaque';
    this.opaqueSet.add(path);
    this.queueXattrs(path, [[name, Buffer.from('y')]]);
  }

  /** Whether what is there is a whiteout to overlayfs. */
  protected hides(stat: BigIntStats): boolean {
    return this.options.whiteouts !== 'apply' && this.isWhiteout(stat);
  }

  protected madeHere(path: string): boolean {
    return this.made === undefined || this.made.has(path);
  }

  protected async existing(place: Place): Promise<BigIntStats | undefined> {
    return this.attempt('look at', place, () => fs.unlessErrno(fs.lstat(place.path), 'ENOENT'));
  }

  /** Makes a name; what is there already is removed first. */
  protected async creating<T>(action: string, place: Place, make: () => Promise<T>): Promise<T> {
    this.options.signal?.throwIfAborted();
    try {
      return await this.attempt(action, place, async () => {
        try {
          return await make();
        } catch (error) {
          if (fs.errnoName(error) !== 'EEXIST' && !(LayerStoreError.is(error) && error.errnoName === 'EEXIST'))
            throw error;
          const existing = await this.existing(place);
          if (existing !== undefined) await this.remove(place);
          return await make();
        }
      });
    } finally {
      this.made?.add(place.real);
    }
  }

  /** Takes away what an earlier entry (or the parent layer) has at a place. */
  protected async remove(place: Place): Promise<void> {
    // Contents must be complete before they are kept, attributes set before their path can mean something else.
    await this.pool.drain();
    await this.#flushXattrs();
    const stat = await this.existing(place);
    if (stat === undefined) return;
    await this.#forgetTree(place, stat, new Map());
    await this.attempt('remove', place, async () => {
      if (stat.isDirectory()) await removeDirectory(place.path);
      else await fs.unlink(place.path);
    });
    if (stat.isDirectory() || stat.isSymbolicLink()) await this.root.forget();
  }

  /** Sizes, times and records of what goes; whole directories with all that is in them. */
  async #forgetTree(place: Place, stat: BigIntStats, links: Map<bigint, bigint>): Promise<void> {
    if (!this.madeHere(place.real)) return;
    if (!stat.isDirectory()) {
      const whiteout = this.isWhiteout(stat);
      // An inode is gone once the last of its names is.
      const names = (links.get(stat.ino) ?? 0n) + 1n;
      links.set(stat.ino, names);
      if (names === stat.nlink) this.size -= Number(stat.size);
      if (!whiteout)
        await this.options.onReplaced?.(
          place.real,
          stat.isFile() && stat.size > 0n ? place.path : undefined,
          Number(stat.size),
        );
      this.made?.delete(place.real);
      return;
    }
    this.directoryTimes.delete(place.real);
    this.opaqueSet.delete(place.real);
    if (!this.implied.delete(place.real)) await this.options.onReplaced?.(place.real, undefined, 0);
    const opened = await OpenedDirectory.open(place.path, this.root.describe(place.real));
    try {
      for (const { name, stat: below } of await opened.entries()) {
        const real = `${place.real}/${name}`;
        await this.#forgetTree(
          { parent: place.parent, name, real, path: opened.at(name), viaLink: false },
          below,
          links,
        );
      }
    } finally {
      await opened.close();
    }
    this.made?.delete(place.real);
  }

  protected queueXattrs(path: string, xattrs: readonly Xattr[]): void {
    if (xattrs.length === 0) return;
    this.#xattrs.push({ path: path === '' ? '.' : path, xattrs });
    for (const [name, value] of xattrs) this.#xattrBytes += name.length + value.length;
  }

  async #flushXattrs(): Promise<void> {
    const items = this.#xattrs;
    this.#xattrs = [];
    this.#xattrBytes = 0;
    await setXattrs(items, {
      cwd: this.root.directory,
      ...(this.options.signal === undefined ? {} : { signal: this.options.signal }),
    });
  }

  /** Between two entries: sets attributes where many wait. */
  async settle(): Promise<void> {
    if (this.#xattrBytes < XATTR_BATCH) return;
    await this.pool.drain();
    await this.#flushXattrs();
  }

  /** Waits for all that was begun, and sets the times of directories. */
  async finish(): Promise<void> {
    await this.pool.drain();
    await this.#flushXattrs();
    for (const [path, mtime] of this.directoryTimes) {
      this.options.signal?.throwIfAborted();
      const time = utime(mtime);
      const target = path === '' ? Buffer.from(`${this.root.directory}/.`) : (await this.root.place(path)).path;
      await this.attempt('set the time of', undefined, () => fs.lutimes(target, time, time));
    }
  }

  /** Waits for what is being written, whatever becomes of it. */
  async abandon(): Promise<void> {
    await this.pool.drain().catch(() => undefined); // The caller has its error already.
  }

  protected async attempt<T>(action: string, place: Place | undefined, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      const path = this.root.describe(place?.real ?? '');
      throw systemError(error, action, undefined, { path });
    }
  }
}

function isNoDirectory(error: unknown): boolean {
  return LayerStoreError.is(error) && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.errnoName ?? '');
}
