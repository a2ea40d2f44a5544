/**
 * TreeWriter: makes the files of a tar in a directory, with the semantics of Docker's unpacking.
 *
 * Everything that changes a name happens in the order of the tar, one call at a time, by TreeRoot's descriptors. Contents,
 * owner, mode and times of regular files are set on their own descriptors, several files at once.
 */
import { constants, type BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import type { WhiteoutForm } from '../engine.js';
import * as fs from './fs.js';
import { shown } from './names.js';
import { makeNodeAt } from './node-files.js';
import { removeDirectory } from './remove.js';
import { badTar, type TarTime } from './tar-header.js';
import type { TarEntry } from './tar-reader.js';
import { TaskPool } from './task-pool.js';
import type { Place, TreeRoot } from './tree-root.js';
import { OpenedDirectory } from './walk.js';
import { setXattrs, type Xattr, type XattrItem } from './xattr.js';

const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
/** Files whose content or metadata is being written. */
const IN_FLIGHT = 16;
/** Attributes that wait for the next run of setfattr, in bytes. */
const XATTR_BATCH = 1024 * 1024;

export interface TreeWriterOptions {
  whiteouts: WhiteoutForm;
  /** An entry of this layer is about to go: its path, and what to hand to node:fs where it is a file with content. */
  onReplaced?: (path: string, content: Buffer | undefined, size: number) => Promise<void>;
  signal?: AbortSignal;
}

/** Takes the content of a file. */
export interface FileSink {
  write(chunk: Buffer): Promise<void>;
  /** Writes at a place of its own, for sparse files. */
  writeAt(chunk: Buffer, position: number): Promise<void>;
  end(): Promise<void>;
}

export class TreeWriter {
  readonly #root: TreeRoot;
  readonly #options: TreeWriterOptions;
  readonly #pool = new TaskPool(IN_FLIGHT);
  readonly #uid = process.geteuid?.() ?? 0;
  readonly #gid = process.getegid?.() ?? 0;
  /** Directories that no entry named yet. */
  readonly #implied = new Set<string>();
  /** In `apply` form: what this layer made, since all else is the parent's. */
  readonly #made: Set<string> | undefined;
  readonly #directoryTimes = new Map<string, TarTime>();
  readonly #opaque = new Set<string>();
  #xattrs: XattrItem[] = [];
  #xattrBytes = 0;
  #whiteoutNode: string | undefined;
  /** Apparent size of what was made and is still there. */
  size = 0;

  constructor(root: TreeRoot, options: TreeWriterOptions) {
    this.#root = root;
    this.#options = options;
    this.#made = options.whiteouts === 'apply' ? new Set() : undefined;
  }

  /** Where a path lies; parents are made. A parent that can be no directory is the tar's fault. */
  async place(path: string): Promise<Place> {
    try {
      return await this.#root.place(path, { make: (missing) => this.#makeImplied(missing) });
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
  async #placeIfThere(path: string): Promise<Place | undefined> {
    try {
      return await this.#root.place(path);
    } catch (error) {
      if (isNoDirectory(error)) return undefined;
      throw error;
    }
  }

  #noDirectory(place: Place): unknown {
    const error = Object.assign(new Error('ENOTDIR'), { code: 'ENOTDIR', errno: -20, syscall: 'open' });
    return systemError(error, 'use as a directory', undefined, { path: this.#root.describe(place.real) });
  }

  async #makeImplied(place: Place): Promise<void> {
    const existing = await this.#existing(place);
    if (existing !== undefined) {
      if (!this.#hides(existing)) throw this.#noDirectory(place);
      await this.#remove(place);
      this.#markOpaque(place.real);
    }
    await this.#try('make the directory', place, async () => {
      await fs.mkdir(place.path, 0o755);
      await fs.chmod(place.path, 0o755);
    });
    this.#implied.add(place.real);
    this.#made?.add(place.real);
  }

  /** A regular file, open for its content. */
  async file(place: Place, entry: TarEntry): Promise<FileSink> {
    const fd = await this.#create(place, entry);
    let at = 0;
    return {
      write: async (chunk) => {
        await this.#try('write', place, () => fs.writeAll(fd, chunk, at));
        at += chunk.length;
      },
      writeAt: (chunk, position) => this.#try('write', place, () => fs.writeAll(fd, chunk, position)),
      end: () => this.#pool.run(() => this.#finishFile(fd, place, entry, undefined)),
    };
  }

  /** A regular file whose content is at hand; returns before it is written. */
  async smallFile(place: Place, entry: TarEntry, content: Buffer): Promise<void> {
    const fd = await this.#create(place, entry);
    await this.#pool.run(() => this.#finishFile(fd, place, entry, content));
  }

  async #create(place: Place, entry: TarEntry): Promise<number> {
    // The mode may be cut by the umask or by the parent's setgid bit; #finishFile sets it where that can be.
    const open = (): Promise<number> => fs.open(place.path, CREATE, 0o600);
    const fd = await this.#creating('make the file', place, open);
    this.size += entry.size;
    this.#queueXattrs(place.real, entry.xattrs);
    return fd;
  }

  async #finishFile(fd: number, place: Place, entry: TarEntry, content: Buffer | undefined): Promise<void> {
    await this.#try('write', place, async () => {
      try {
        if (content !== undefined && content.length > 0) await fs.writeAll(fd, content, 0);
        if (entry.regions !== undefined) await fs.ftruncate(fd, entry.size);
        if (!this.#ownerIsOurs(place, entry)) await fs.fchown(fd, entry.uid, entry.gid);
        await fs.fchmod(fd, entry.mode & 0o7777);
        const time = utime(entry.mtime);
        await fs.futimes(fd, time, time);
      } finally {
        await fs.close(fd);
      }
    });
  }

  #ownerIsOurs(place: Place, entry: TarEntry): boolean {
    return entry.uid === this.#uid && entry.gid === this.#gid && !place.parent.setgid;
  }

  async directory(place: Place, entry: TarEntry): Promise<void> {
    const path = place.real;
    const existing = await this.#existing(place);
    if (existing?.isDirectory() === true) {
      // It stays, with what is in it; the record must not name it twice.
      const implied = this.#implied.delete(path);
      if (!implied && this.#madeHere(path)) await this.#options.onReplaced?.(path, undefined, 0);
    } else {
      if (existing !== undefined) await this.#remove(place);
      await this.#try('make the directory', place, () => fs.mkdir(place.path, 0o700));
      // A whiteout earlier in this tar: the directory is a new one.
      if (existing !== undefined && this.#hides(existing)) this.#markOpaque(path);
    }
    this.#made?.add(path);
    await this.#try('set owner and mode of', place, async () => {
      await fs.chown(place.path, entry.uid, entry.gid);
      await fs.chmod(place.path, entry.mode & 0o7777);
    });
    // Mode and setgid bit are cached with the descriptor.
    if (entry.mode & 0o2000) await this.#root.forget();
    this.#directoryTimes.set(path, entry.mtime);
    this.#queueXattrs(path, entry.xattrs);
  }

  async symbolicLink(place: Place, entry: TarEntry): Promise<void> {
    await this.#creating('make the symbolic link', place, () => fs.symlink(Buffer.from(entry.linkName, 'latin1'), place.path));
    this.size += entry.linkName.length;
    await this.#metadataByPath(place, entry, true);
  }

  /** A device or a FIFO. */
  async node(place: Place, entry: TarEntry): Promise<void> {
    const type = entry.type === '3' ? constants.S_IFCHR : entry.type === '4' ? constants.S_IFBLK : constants.S_IFIFO;
    const make = (): Promise<void> =>
      makeNodeAt(place.parent.fd, Buffer.from(place.name, 'latin1'), type | (entry.mode & 0o7777), entry.major, entry.minor);
    await this.#creating('make the node', place, make);
    await this.#metadataByPath(place, entry, false);
  }

  /** `target` is the place of the file that is linked to. False where the name is one of that file's already. */
  async hardLink(place: Place, entry: TarEntry, target: Place): Promise<boolean> {
    const missing = (): LayerStoreError =>
      badTar(`"${shown(entry.name)}" is a hard link to "${shown(entry.linkName)}", which this layer does not have`, entry.offset, entry.name);
    // What the file's own entry still has to set must not come after what the link's entry sets.
    await this.#pool.drain();
    const stat = await this.#existing(target);
    if (stat !== undefined && this.#hides(stat)) {
      throw new LayerStoreError('ERR_UNSAFE_PATH', `the tar has a hard link to the whiteout of "${shown(entry.linkName)}"`, {
        path: shown(entry.name),
        offset: entry.offset,
      });
    }
    if (stat === undefined || stat.isDirectory() || !this.#madeHere(target.real)) throw missing();
    const there = await this.#existing(place);
    if (there !== undefined && there.ino === stat.ino && there.dev === stat.dev) return false;
    await this.#creating('make the hard link', place, async () => {
      try {
        await fs.link(target.path, place.path);
      } catch (error) {
        // What was replaced was a directory with the target in it.
        if (fs.errnoName(error) === 'ENOENT') throw missing();
        throw error;
      }
    });
    await this.#alignLink(place, entry, stat);
    return true;
  }

  /** As in Docker the link's header speaks of the file too. A chown would take capabilities away: only where it must be. */
  async #alignLink(place: Place, entry: TarEntry, stat: BigIntStats): Promise<void> {
    await this.#try('set owner, mode and time of', place, async () => {
      const chown = Number(stat.uid) !== entry.uid || Number(stat.gid) !== entry.gid;
      if (chown) await fs.lchown(place.path, entry.uid, entry.gid);
      if (!stat.isSymbolicLink() && (chown || (Number(stat.mode) & 0o7777) !== (entry.mode & 0o7777))) {
        await fs.chmod(place.path, entry.mode & 0o7777);
      }
      const time = utime(entry.mtime);
      await fs.lutimes(place.path, time, time);
    });
    this.#queueXattrs(place.real, entry.xattrs);
  }

  /** Owner, mode, times and attributes of something that has no descriptor. Only a link is not followed by chmod. */
  async #metadataByPath(place: Place, entry: TarEntry, link: boolean): Promise<void> {
    await this.#try('set owner, mode and time of', place, async () => {
      if (!this.#ownerIsOurs(place, entry) || !link) await fs.lchown(place.path, entry.uid, entry.gid);
      if (!link) await fs.chmod(place.path, entry.mode & 0o7777);
      const time = utime(entry.mtime);
      await fs.lutimes(place.path, time, time);
    });
    this.#queueXattrs(place.real, entry.xattrs);
  }

  /** Hides a name of the layers below. True where that left a mark in the tree, of which there is one a name. */
  async whiteout(path: string, entry: TarEntry): Promise<boolean> {
    if (this.#options.whiteouts === 'apply') {
      const place = await this.#placeIfThere(path);
      if (place !== undefined) await this.#remove(place);
      return false;
    }
    const place = await this.place(path);
    const existing = await this.#existing(place);
    if (existing !== undefined) {
      if (this.#isWhiteout(existing)) return false;
      await this.#remove(place);
    }
    const ours = this.#ownerIsOurs(place, entry);
    if (ours && (await this.#linkWhiteout(place))) return true;
    await this.#try('make the whiteout', place, async () => {
      await makeNodeAt(place.parent.fd, Buffer.from(place.name, 'latin1'), constants.S_IFCHR, 0, 0);
      if (!ours) await fs.lchown(place.path, entry.uid, entry.gid);
    });
    if (ours) this.#whiteoutNode = place.real;
    return true;
  }

  /** All whiteouts are names of one device, made by one run of mknod. */
  async #linkWhiteout(place: Place): Promise<boolean> {
    if (this.#whiteoutNode === undefined) return false;
    this.#root.hold(place.parent);
    try {
      const first = await this.#root.place(this.#whiteoutNode);
      if (!this.#isWhiteout(await fs.lstat(first.path))) return false;
      await fs.link(first.path, place.path);
      return true;
    } catch (error) {
      // Gone, or with as many names as the file system allows: another device does.
      if (LayerStoreError.is(error) || ['ENOENT', 'EMLINK', 'EXDEV'].includes(fs.errnoName(error) ?? '')) return false;
      throw systemError(error, 'make the whiteout', undefined, { path: this.#root.describe(place.real) });
    }
  }

  #isWhiteout(stat: BigIntStats): boolean {
    return stat.isCharacterDevice() && stat.rdev === 0n;
  }

  /** Hides what the layers below have in a directory. True where that left a mark. */
  async opaque(path: string): Promise<boolean> {
    const inside = path === '' ? '.' : `${path}/.`;
    if (this.#options.whiteouts === 'apply') {
      await this.#removeForeign((await this.place(inside)).parent.real);
      return false;
    }
    const { real } = (await this.place(inside)).parent;
    if (this.#opaque.has(real)) return false;
    this.#markOpaque(real);
    return true;
  }

  #markOpaque(path: string): void {
    const name = this.#options.whiteouts === 'overlay' ? 'trusted.overlay.opaque' : 'user.overlay.opaque';
    this.#opaque.add(path);
    this.#queueXattrs(path, [[name, Buffer.from('y')]]);
  }

  /** Whether what is there is a whiteout to overlayfs. */
  #hides(stat: BigIntStats): boolean {
    return this.#options.whiteouts !== 'apply' && this.#isWhiteout(stat);
  }

  /** Removes all that this layer did not make; a directory stays where something that it made is in it. */
  async #removeForeign(path: string): Promise<void> {
    const directory = await this.#root.resolveDirectory(path);
    const opened = await OpenedDirectory.open(directory.prefix, this.#root.describe(path));
    try {
      for (const { name, stat } of await opened.entries()) {
        const child = directory.real === '' ? name : `${directory.real}/${name}`;
        if (stat.isDirectory()) await this.#removeForeign(child);
        if (this.#madeHere(child)) continue;
        const place = await this.#root.place(child);
        if (!stat.isDirectory()) await this.#remove(place);
        else if (await fs.unlessErrno(fs.rmdir(place.path).then(() => true), 'ENOTEMPTY', 'EEXIST')) await this.#root.forget();
      }
    } finally {
      await opened.close();
    }
  }

  #madeHere(path: string): boolean {
    return this.#made === undefined || this.#made.has(path);
  }

  async #existing(place: Place): Promise<BigIntStats | undefined> {
    return this.#try('look at', place, () => fs.unlessErrno(fs.lstat(place.path), 'ENOENT'));
  }

  /** Makes a name; what is there already is removed first. */
  async #creating<T>(action: string, place: Place, make: () => Promise<T>): Promise<T> {
    this.#options.signal?.throwIfAborted();
    try {
      return await this.#try(action, place, async () => {
        try {
          return await make();
        } catch (error) {
          if (fs.errnoName(error) !== 'EEXIST' && !(LayerStoreError.is(error) && error.errnoName === 'EEXIST')) throw error;
          const existing = await this.#existing(place);
          if (existing !== undefined) await this.#remove(place);
          return await make();
        }
      });
    } finally {
      this.#made?.add(place.real);
    }
  }

  /** Takes away what an earlier entry (or the parent layer) has at a place. */
  async #remove(place: Place): Promise<void> {
    // Contents must be complete before they are kept, attributes set before their path can mean something else.
    await this.#pool.drain();
    await this.#flushXattrs();
    const stat = await this.#existing(place);
    if (stat === undefined) return;
    await this.#forgetTree(place, stat, new Map());
    await this.#try('remove', place, async () => {
      if (stat.isDirectory()) await removeDirectory(place.path);
      else await fs.unlink(place.path);
    });
    if (stat.isDirectory() || stat.isSymbolicLink()) await this.#root.forget();
  }

  /** Sizes, times and records of what goes; whole directories with all that is in them. */
  async #forgetTree(place: Place, stat: BigIntStats, links: Map<bigint, bigint>): Promise<void> {
    if (!this.#madeHere(place.real)) return;
    if (!stat.isDirectory()) {
      const whiteout = this.#isWhiteout(stat);
      // An inode is gone once the last of its names is.
      const names = (links.get(stat.ino) ?? 0n) + 1n;
      links.set(stat.ino, names);
      if (names === stat.nlink) this.size -= Number(stat.size);
      if (!whiteout) await this.#options.onReplaced?.(place.real, stat.isFile() && stat.size > 0n ? place.path : undefined, Number(stat.size));
      this.#made?.delete(place.real);
      return;
    }
    this.#directoryTimes.delete(place.real);
    this.#opaque.delete(place.real);
    if (!this.#implied.delete(place.real)) await this.#options.onReplaced?.(place.real, undefined, 0);
    const opened = await OpenedDirectory.open(place.path, this.#root.describe(place.real));
    try {
      for (const { name, stat: below } of await opened.entries()) {
        const real = `${place.real}/${name}`;
        await this.#forgetTree({ parent: place.parent, name, real, path: opened.at(name), viaLink: false }, below, links);
      }
    } finally {
      await opened.close();
    }
    this.#made?.delete(place.real);
  }

  #queueXattrs(path: string, xattrs: readonly Xattr[]): void {
    if (xattrs.length === 0) return;
    this.#xattrs.push({ path: path === '' ? '.' : path, xattrs });
    for (const [name, value] of xattrs) this.#xattrBytes += name.length + value.length;
  }

  async #flushXattrs(): Promise<void> {
    const items = this.#xattrs;
    this.#xattrs = [];
    this.#xattrBytes = 0;
    await setXattrs(items, {
      cwd: this.#root.directory,
      ...(this.#options.signal === undefined ? {} : { signal: this.#options.signal }),
    });
  }

  /** Between two entries: sets attributes where many wait. */
  async settle(): Promise<void> {
    if (this.#xattrBytes < XATTR_BATCH) return;
    await this.#pool.drain();
    await this.#flushXattrs();
  }

  /** Waits for all that was begun, and sets the times of directories. */
  async finish(): Promise<void> {
    await this.#pool.drain();
    await this.#flushXattrs();
    for (const [path, mtime] of this.#directoryTimes) {
      this.#options.signal?.throwIfAborted();
      const time = utime(mtime);
      const target = path === '' ? Buffer.from(`${this.#root.directory}/.`) : (await this.#root.place(path)).path;
      await this.#try('set the time of', undefined, () => fs.lutimes(target, time, time));
    }
  }

  /** Waits for what is being written, whatever becomes of it. */
  async abandon(): Promise<void> {
    await this.#pool.drain().catch(() => undefined); // The caller has its error already.
  }

  async #try<T>(action: string, place: Place | undefined, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      const path = this.#root.describe(place?.real ?? '');
      throw systemError(error, action, undefined, { path });
    }
  }
}

function isNoDirectory(error: unknown): boolean {
  return LayerStoreError.is(error) && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.errnoName ?? '');
}

/**
 * node:fs takes times as seconds in a double, and Node 20 cuts them to microseconds; a quarter of one more keeps what the
 * double rounded down. Times before 1970 it cannot pass on: they become 1970, as Docker's unpacking makes them.
 */
function utime({ seconds, nanoseconds }: TarTime): number {
  if (seconds < 0) return 0;
  const microseconds = Math.floor(nanoseconds / 1000);
  return microseconds === 0 ? seconds : seconds + (microseconds + 0.25) / 1e6;
}
