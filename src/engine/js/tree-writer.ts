/**
 * TreeWriter: makes the files of a tar in a directory, with the semantics of Docker's unpacking.
 *
 * Everything that changes a name happens in the order of the tar, one call at a time, through TreeRoot's places. Contents,
 * owner, mode and times of regular files are set on their own descriptors, several files at once.
 */
import { constants, type BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import { badTar, shown } from '../../tar/errors.js';
import type { TarTime } from '../../tar/header.js';
import type { TarEntry } from '../../tar/reader.js';
import type { Privilege, WhiteoutForm } from '../engine.js';
import { chmodEntry, makeNodeAt } from './directory.js';
import * as fs from './fs.js';
import { ACCESS_ACL, DEFAULT_ACL, isKeptXattr, mayStandIn, NO_ID, type XattrTarget } from './names.js';
import { removeDirectory } from './remove.js';
import type { Place, TreeRoot, WalkRules } from './tree-root.js';
import { setSupportedXattrs, type Xattr, type XattrItem } from './xattr.js';

/** Files whose content or metadata is being written. */
const IN_FLIGHT = 16;
/** Attributes that wait for the next run of setfattr, in bytes. */
const XATTR_BATCH = 1024 * 1024;
const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

export interface TreeWriterOptions {
  whiteouts: WhiteoutForm;
  privilege: Privilege;
  /** An entry of this layer is about to go: its path, and what to hand to node:fs where it is a file with content. */
  onReplaced: (path: string, content: Buffer | undefined, size: number) => Promise<void>;
  /** A directory was made that no entry named so far. */
  onImplied: () => void;
  signal: AbortSignal | undefined;
}

/** Takes the content of a file. */
export interface FileSink {
  write(chunk: Buffer): Promise<void>;
  /** Writes at a place of its own, for sparse files. */
  writeAt(chunk: Buffer, position: number): Promise<void>;
  end(): Promise<void>;
}

/** A file that was just made: its descriptor, which is the writer's own, and what its entry still has to set. */
interface NewFile {
  fd: number;
  real: string;
  ownerIsSet: boolean;
}

export class TreeWriter {
  readonly #root: TreeRoot;
  readonly #options: TreeWriterOptions;
  /** For places that entries name: a hard link's target must be there, parents of what is made need not. */
  readonly #looking: WalkRules;
  readonly #making: WalkRules;
  readonly #pool = new TaskPool(IN_FLIGHT);
  readonly #uid = process.geteuid?.() ?? 0;
  readonly #gid = process.getegid?.() ?? 0;
  /** Directories that no entry named yet. */
  readonly #implied = new Set<string>();
  /** In `plain` form: what this layer made, since all else is the parent's. */
  readonly #made: Set<string> | undefined;
  /** In `plain` form: directories that lie on the way to what the tar names. In a tree of its own the layer would have them too. */
  readonly #used = new Set<string>();
  readonly #directoryTimes = new Map<string, TarTime>();
  /** Set when all is made: everything made in the directory would inherit it. */
  readonly #defaultAcls = new Map<string, Xattr>();
  readonly #opaque = new Set<string>();
  /** In `plain` form: directories whose opaque marker was seen. */
  readonly #opaqueMarkers = new Set<string>();
  /** A whiteout that others are links to. */
  #whiteoutNode: string | undefined;
  #xattrs: XattrItem[] = [];
  #xattrBytes = 0;
  /** An access ACL waits to be set, which sets the bits of the mode too: a mode that a later entry sets must come after it. */
  #aclWaits = false;
  #size = 0;
  #ignoredXattrs = 0;
  #viaLink = false;

  constructor(root: TreeRoot, options: TreeWriterOptions) {
    this.#root = root;
    this.#options = options;
    this.#made = options.whiteouts === 'plain' ? new Set() : undefined;
    const owns = this.#made === undefined ? undefined : (real: string) => this.#owns(real);
    this.#looking = { make: undefined, owns };
    this.#making = { make: (missing) => this.#makeImplied(missing), owns };
  }

  /** Apparent size of what was made and is still there. */
  get size(): number {
    return this.#size;
  }

  /** Attributes that were not set, whatever the reason; complete after `finish`. */
  get ignoredXattrs(): number {
    return this.#ignoredXattrs;
  }

  /** Whether a symbolic link was followed on the way to what was made last: its name may mean another file later on. */
  get viaLink(): boolean {
    return this.#viaLink;
  }

  /** A regular file, open for its content. */
  async file(path: string, entry: TarEntry): Promise<FileSink> {
    const file = await this.#createFile(path, entry);
    let at = 0;
    const write = (chunk: Buffer, position: number): Promise<void> =>
      this.#attempt('write', file.real, () => fs.writeAll(file.fd, chunk, position));
    return {
      write: async (chunk) => {
        await write(chunk, at);
        at += chunk.length;
      },
      writeAt: write,
      end: () => this.#pool.run(() => this.#finishFile(file, entry, undefined)),
    };
  }

  /** A regular file whose content is at hand; returns before it is written. */
  async smallFile(path: string, entry: TarEntry, content: Buffer): Promise<void> {
    const file = await this.#createFile(path, entry);
    await this.#pool.run(() => this.#finishFile(file, entry, content));
  }

  #createFile(path: string, entry: TarEntry): Promise<NewFile> {
    return this.#at(path, async (place) => {
      // The mode may be cut by the umask or by the parent's setgid bit; #finishFile sets it where that can be.
      const fd = await this.#creating('make the file', place, () => fs.open(place.path, CREATE, 0o600));
      this.#size += entry.size;
      this.#queueXattrs(place.real, this.#kept(entry.xattrs, 'file'));
      return { fd, real: place.real, ownerIsSet: this.#ownerIsOurs(place, entry) };
    });
  }

  async #finishFile(file: NewFile, entry: TarEntry, content: Buffer | undefined): Promise<void> {
    const { fd, real, ownerIsSet } = file;
    await this.#attempt('write', real, async () => {
      try {
        if (content !== undefined && content.length > 0) await fs.writeAll(fd, content, 0);
        if (entry.regions !== undefined) await fs.ftruncate(fd, entry.size);
        if (!ownerIsSet) await fs.fchown(fd, entry.uid, entry.gid);
        await fs.fchmod(fd, entry.mode & 0o7777);
        const time = fs.utime(entry.mtime);
        await fs.futimes(fd, time, time);
      } finally {
        await fs.close(fd);
      }
    });
  }

  #ownerIsOurs(place: Place, entry: TarEntry): boolean {
    return isOwnedBy(entry, this.#uid, this.#gid) && !place.setgid;
  }

  directory(path: string, entry: TarEntry): Promise<void> {
    return this.#at(path, async (place) => {
      const { real } = place;
      const existing = await this.#existing(place);
      if (existing?.isDirectory() === true) {
        if (this.#aclWaits) {
          await this.#pool.drain();
          await this.#flushXattrs();
        }
        // It stays, with what is in it; the record must not name it twice.
        const implied = this.#implied.delete(real);
        if (!implied && this.#madeHere(real)) await this.#options.onReplaced(real, undefined, 0);
      } else {
        if (existing !== undefined) await this.#remove(place);
        await this.#attempt('make the directory', real, () => fs.mkdir(place.path, 0o700));
        // Whatever it was hid the directory that a layer below may have there.
        if (existing !== undefined && this.#made === undefined) this.#markOpaque(real);
      }
      this.#made?.add(real);
      await this.#attempt('set owner and mode of', real, async () => {
        await fs.lchown(place.path, entry.uid, entry.gid);
        await chmodEntry(place.path, entry.mode & 0o7777);
      });
      // Its setgid bit is cached with the directory.
      if (existing !== undefined) await this.#root.forget(real);
      this.#directoryTimes.set(real, entry.mtime);
      const xattrs = this.#kept(entry.xattrs, 'directory');
      this.#queueXattrs(
        real,
        xattrs.filter(([name]) => name !== DEFAULT_ACL),
      );
      const acl = xattrs.find(([name]) => name === DEFAULT_ACL);
      if (acl !== undefined) this.#defaultAcls.set(real, acl);
    });
  }

  symbolicLink(path: string, entry: TarEntry): Promise<void> {
    return this.#at(path, async (place) => {
      const target = Buffer.from(entry.linkName, 'latin1');
      await this.#creating('make the symbolic link', place, () => fs.symlink(target, place.path));
      this.#size += entry.linkName.length;
      await this.#metadataByPath(place, entry, 'link');
    });
  }

  /** A device or a FIFO. */
  node(path: string, entry: TarEntry): Promise<void> {
    const type = entry.type === '3' ? constants.S_IFCHR : entry.type === '4' ? constants.S_IFBLK : constants.S_IFIFO;
    return this.#at(path, async (place) => {
      const make = (kind: number): Promise<void> =>
        makeNodeAt(place.directory, place.name, kind | (entry.mode & 0o7777), entry.major, entry.minor);
      await this.#creating('make the node', place, async () => {
        try {
          await make(type);
        } catch (error) {
          if (errnoOf(error) !== 'EPERM' || !mayStandIn(entry.type, this.#options.privilege)) throw error;
          // Runtimes mount the machine's own device on it.
          await fs.close(await fs.open(place.path, CREATE, 0o600));
        }
      });
      await this.#metadataByPath(place, entry, 'special');
    });
  }

  /** False where the name is one of that file's already. */
  async hardLink(path: string, entry: TarEntry, targetPath: string): Promise<boolean> {
    const missing = (): LayerStoreError =>
      badTar(
        `"${shown(entry.name)}" is a hard link to "${shown(entry.linkName)}", which this layer does not have`,
        entry.offset,
        entry.name,
      );
    const atTarget = <T>(task: (target: Place) => Promise<T>): Promise<T> =>
      this.#reach(
        targetPath,
        task,
        (error) => {
          throw isNoDirectory(error) ? missing() : error;
        },
        this.#looking,
      );
    return this.#at(path, async (place) => {
      // What the file's own entry still has to set must not come after what the link's entry sets.
      await this.#pool.drain();
      if (this.#aclWaits) await this.#flushXattrs();
      const stat = await atTarget(async (target) => {
        const found = await this.#existing(target);
        if (found === undefined || found.isDirectory() || this.#hides(found) || !this.#madeHere(target.real)) {
          throw missing();
        }
        return found;
      });
      const there = await this.#existing(place);
      if (there !== undefined && there.ino === stat.ino && there.dev === stat.dev) return false;
      // Looked for again: what is replaced may be on the way to the target, a link or a directory with the target in it.
      await this.#creating('make the hard link', place, () =>
        atTarget(async (target) => {
          const made = await fs.unlessErrno(
            fs.link(target.path, place.path).then(() => true),
            'ENOENT',
          );
          if (made === undefined) throw missing();
        }),
      );
      await this.#alignLink(place, entry, stat);
      return true;
    });
  }

  /** As in Docker the link's header speaks of the file too. A chown would take capabilities away: only where it must be. */
  async #alignLink(place: Place, entry: TarEntry, stat: BigIntStats): Promise<void> {
    await this.#attempt('set owner, mode and time of', place.real, async () => {
      const chown = !isOwnedBy(entry, Number(stat.uid), Number(stat.gid));
      if (chown) {
        // The chown takes capabilities away: those that the file's own entry sets are set before it.
        await this.#flushXattrs();
        await fs.lchown(place.path, entry.uid, entry.gid);
      }
      if (!stat.isSymbolicLink() && (chown || (Number(stat.mode) & 0o7777) !== (entry.mode & 0o7777))) {
        await chmodEntry(place.path, entry.mode & 0o7777);
      }
      const time = fs.utime(entry.mtime);
      await fs.lutimes(place.path, time, time);
    });
    const kind = stat.isSymbolicLink() ? 'link' : stat.isFile() ? 'file' : 'special';
    this.#queueXattrs(place.real, this.#kept(entry.xattrs, kind));
  }

  /** Owner, mode, times and attributes of something that has no descriptor. The mode of a link cannot be set. */
  async #metadataByPath(place: Place, entry: TarEntry, kind: 'link' | 'special'): Promise<void> {
    const link = kind === 'link';
    await this.#attempt('set owner, mode and time of', place.real, async () => {
      if (!this.#ownerIsOurs(place, entry) || !link) await fs.lchown(place.path, entry.uid, entry.gid);
      if (!link) await chmodEntry(place.path, entry.mode & 0o7777);
      const time = fs.utime(entry.mtime);
      await fs.lutimes(place.path, time, time);
    });
    this.#queueXattrs(place.real, this.#kept(entry.xattrs, kind));
  }

  /** Hides a name of the layers below. True where there was something to hide, or a mark was made. */
  async whiteout(path: string, entry: TarEntry): Promise<boolean> {
    return this.#at(path, async (place) => {
      const existing = await this.#existing(place);
      if (this.#options.whiteouts === 'plain') {
        if (existing === undefined) return false;
        await this.#remove(place);
        return true;
      }
      if (existing !== undefined) {
        if (isWhiteout(existing)) return false;
        await this.#remove(place);
      }
      const ours = this.#ownerIsOurs(place, entry);
      if (ours && (await this.#linkWhiteout(place))) return true;
      await this.#attempt('make the whiteout', place.real, async () => {
        await makeNodeAt(place.directory, place.name, constants.S_IFCHR, 0, 0);
        if (!ours) await fs.lchown(place.path, entry.uid, entry.gid);
      });
      if (ours) this.#whiteoutNode = place.real;
      return true;
    });
  }

  /** All whiteouts are names of one device, made by one run of mknod. */
  async #linkWhiteout(place: Place): Promise<boolean> {
    if (this.#whiteoutNode === undefined) return false;
    try {
      return await this.#root.at(this.#whiteoutNode, async (first) => {
        if (!isWhiteout(await fs.lstat(first.path))) return false;
        await fs.link(first.path, place.path);
        return true;
      });
    } catch (error) {
      // Gone, or with as many names as the file system allows: another device does.
      if (LayerStoreError.is(error) || ['ENOENT', 'EMLINK', 'EXDEV'].includes(fs.errnoName(error) ?? '')) return false;
      throw systemError(error, 'make the whiteout', undefined, { path: this.#root.describe(place.real) });
    }
  }

  /** Hides what the layers below have in a directory. True the first time for a directory. */
  async opaque(path: string): Promise<boolean> {
    // The place of "." in it: so the directory is made where it is missing, as a parent is.
    const inside = path === '' ? '.' : `${path}/.`;
    const real = await this.#at(inside, (place) => Promise.resolve(place.parent));
    if (this.#options.whiteouts === 'plain') {
      await this.#removeForeign(real);
      // It leaves nothing to be found by: the record must name each once all the same.
      if (this.#opaqueMarkers.has(inside)) return false;
      this.#opaqueMarkers.add(inside);
      return true;
    }
    if (this.#opaque.has(real)) return false;
    this.#markOpaque(real);
    return true;
  }

  /**
   * Removes all that this layer did not make; a directory stays where something that it made is in it, or where it lay on
   * the way to an entry: in a tree of its own the layer has it too.
   */
  async #removeForeign(path: string): Promise<void> {
    for (const { name, stat } of await this.#root.in(path, (directory) => directory.entries())) {
      const child = path === '' ? name : `${path}/${name}`;
      if (stat.isDirectory()) await this.#removeForeign(child);
      if (this.#owns(child)) continue;
      if (!stat.isDirectory()) await this.#root.at(child, (place) => this.#remove(place));
      else if (await this.#removeIfEmpty(child)) await this.#root.forget(child);
    }
  }

  #removeIfEmpty(path: string): Promise<boolean> {
    return this.#root.at(path, async (place) => {
      const removed = fs.rmdir(place.path).then(() => true);
      return (await fs.unlessErrno(removed, 'ENOTEMPTY', 'EEXIST')) === true;
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
    for (const [path, acl] of this.#defaultAcls) this.#queueXattrs(path, [acl]);
    await this.#flushXattrs();
    for (const [path, mtime] of this.#directoryTimes) {
      this.#options.signal?.throwIfAborted();
      const time = fs.utime(mtime);
      await this.#attempt('set the time of', path, () =>
        this.#root.at(path, (place) => fs.lutimes(place.path, time, time)),
      );
    }
  }

  /** Waits for what is being written, whatever becomes of it. */
  async abandon(): Promise<void> {
    await this.#pool.drain().catch(() => undefined); // The caller has its error already.
  }

  /** Runs `task` with the place of a path; parents are made. A parent that can be no directory is the tar's fault. */
  #at<T>(path: string, task: (place: Place) => Promise<T>): Promise<T> {
    const unreachable = (error: unknown): never => {
      if (!isNoDirectory(error)) throw error;
      throw new LayerStoreError('ERR_BAD_TAR', `the tar has "${shown(path)}" below something that is not a directory`, {
        cause: error,
        path: shown(path),
        detail: 'a parent is not a directory',
      });
    };
    const reached = (place: Place): Promise<T> => {
      this.#viaLink = place.viaLink;
      this.#noteUsed(place.parent);
      return task(place);
    };
    return this.#reach(path, reached, unreachable, this.#making);
  }

  /** Up to the first directory that is known: those above it are known too. */
  #noteUsed(real: string): void {
    if (this.#made === undefined) return;
    for (let at = real; at !== '' && !this.#used.has(at); at = at.slice(0, Math.max(at.lastIndexOf('/'), 0)))
      this.#used.add(at);
  }

  #owns(real: string): boolean {
    return this.#madeHere(real) || this.#used.has(real);
  }

  /** As {@link TreeRoot.at} by `rules`; where the place cannot be found, `unreachable` gives the result, or throws. */
  async #reach<T>(
    path: string,
    task: (place: Place) => Promise<T>,
    unreachable: (error: unknown) => T,
    rules: WalkRules,
  ): Promise<T> {
    let found = false;
    const begin = (place: Place): Promise<T> => {
      found = true;
      return task(place);
    };
    try {
      return await this.#root.at(path, begin, rules);
    } catch (error) {
      if (found) throw error;
      return unreachable(error);
    }
  }

  async #makeImplied(place: Place): Promise<void> {
    const { real } = place;
    const existing = await this.#existing(place);
    if (existing !== undefined) {
      // In a tree that holds the parent's files too: the directory hides its file or link.
      const foreign = !this.#madeHere(real) && !existing.isDirectory();
      if (!this.#hides(existing) && !foreign) {
        const error = Object.assign(new Error('ENOTDIR'), { code: 'ENOTDIR', errno: -20, syscall: 'open' });
        throw systemError(error, 'use as a directory', undefined, { path: this.#root.describe(real) });
      }
      await this.#remove(place);
      if (!foreign) this.#markOpaque(real);
    }
    await this.#attempt('make the directory', real, async () => {
      await fs.mkdir(place.path, 0o755);
      // The umask may have cut it; a setgid bit that the kernel passed on from the parent stays.
      const mode = Number((await fs.lstat(place.path)).mode);
      if ((mode & 0o777) !== 0o755) await chmodEntry(place.path, (mode & 0o2000) | 0o755);
    });
    this.#options.onImplied();
    this.#implied.add(real);
    this.#made?.add(real);
  }

  #markOpaque(path: string): void {
    const name = this.#options.whiteouts === 'overlay' ? 'trusted.overlay.opaque' : 'user.overlay.opaque';
    this.#opaque.add(path);
    this.#queueXattrs(path, [[name, Buffer.from('y')]]);
  }

  /** Whether what is there is a whiteout to overlayfs. */
  #hides(stat: BigIntStats): boolean {
    return this.#options.whiteouts !== 'plain' && isWhiteout(stat);
  }

  #madeHere(path: string): boolean {
    return this.#made === undefined || this.#made.has(path);
  }

  #existing(place: Place): Promise<BigIntStats | undefined> {
    return this.#attempt('look at', place.real, () => fs.unlessErrno(fs.lstat(place.path), 'ENOENT'));
  }

  /** Makes a name; what is there already is removed first. */
  async #creating<T>(action: string, place: Place, make: () => Promise<T>): Promise<T> {
    this.#options.signal?.throwIfAborted();
    try {
      return await this.#attempt(action, place.real, async () => {
        try {
          return await make();
        } catch (error) {
          if (fs.errnoName(error) !== 'EEXIST' && errnoOf(error) !== 'EEXIST') throw error;
          await this.#remove(place);
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
    await this.#forgetTree(place, stat);
    await this.#attempt('remove', place.real, async () => {
      if (stat.isDirectory()) await removeDirectory(place.path);
      else await fs.unlink(place.path);
    });
    // What is open was reached through no link: it stays what it is when one goes.
    if (stat.isDirectory()) await this.#root.forget(place.real);
  }

  /** Sizes, times and records of what goes; whole directories with all that is in them. */
  async #forgetTree(place: Place, stat: BigIntStats): Promise<void> {
    const links = new Map<bigint, bigint>();
    if (!stat.isDirectory()) return this.#forgetFile(place.real, place.path, stat, links);
    const waiting = [place.real];
    for (let real = waiting.pop(); real !== undefined; real = waiting.pop()) {
      const parent = real;
      await this.#forgetDirectory(parent);
      await this.#root.in(parent, async (directory) => {
        for (const { name, stat } of await directory.entries()) {
          if (stat.isDirectory()) waiting.push(`${parent}/${name}`);
          else await this.#forgetFile(`${parent}/${name}`, directory.at(name), stat, links);
        }
      });
    }
  }

  async #forgetDirectory(real: string): Promise<void> {
    const mine = this.#madeHere(real);
    this.#made?.delete(real);
    this.#directoryTimes.delete(real);
    this.#defaultAcls.delete(real);
    this.#opaque.delete(real);
    if (!this.#implied.delete(real) && mine) await this.#options.onReplaced(real, undefined, 0);
  }

  /** `path` is for calls of node:fs; `links` counts the names of inodes that went. */
  async #forgetFile(real: string, path: Buffer, stat: BigIntStats, links: Map<bigint, bigint>): Promise<void> {
    const mine = this.#madeHere(real);
    this.#made?.delete(real);
    if (!mine) return;
    // An inode is gone once the last of its names is.
    const names = (links.get(stat.ino) ?? 0n) + 1n;
    links.set(stat.ino, names);
    const size = Number(stat.size);
    if (names === stat.nlink) this.#size -= size;
    if (!isWhiteout(stat)) await this.#options.onReplaced(real, stat.isFile() && size > 0 ? path : undefined, size);
  }

  /** Those that are set on a file of this kind. */
  #kept(xattrs: readonly Xattr[], target: XattrTarget): readonly Xattr[] {
    const kept = xattrs.filter(([name]) => isKeptXattr(name, target, this.#options.privilege));
    this.#ignoredXattrs += xattrs.length - kept.length;
    return kept;
  }

  #queueXattrs(path: string, xattrs: readonly Xattr[]): void {
    if (xattrs.length === 0) return;
    this.#xattrs.push({ path: path === '' ? '.' : path, xattrs });
    for (const [name, value] of xattrs) this.#xattrBytes += name.length + value.length;
    if (xattrs.some(([name]) => name === ACCESS_ACL)) this.#aclWaits = true;
  }

  async #flushXattrs(): Promise<void> {
    const items = this.#xattrs;
    this.#xattrs = [];
    this.#xattrBytes = 0;
    this.#aclWaits = false;
    this.#ignoredXattrs += await setSupportedXattrs(items, this.#root, this.#options.signal);
  }

  async #attempt<T>(action: string, real: string, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      throw systemError(error, action, undefined, { path: this.#root.describe(real) });
    }
  }
}

function isWhiteout(stat: BigIntStats): boolean {
  return stat.isCharacterDevice() && stat.rdev === 0n;
}

/** An id that cannot be given is any. */
function isOwnedBy(entry: TarEntry, uid: number, gid: number): boolean {
  return (entry.uid === NO_ID || entry.uid === uid) && (entry.gid === NO_ID || entry.gid === gid);
}

function errnoOf(error: unknown): string | undefined {
  return LayerStoreError.is(error) ? error.errnoName : undefined;
}

function isNoDirectory(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '');
}

/** TaskPool: a bounded number of promises at once. The first failure is thrown by the next `run` or `drain`. */
class TaskPool {
  readonly #limit: number;
  readonly #running = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Starts a task; resolves once there is room for it, not when it is done. */
  async run(task: () => Promise<void>): Promise<void> {
    const running = (async () => {
      try {
        await task();
      } catch (error) {
        this.#failure ??= { error };
      }
    })();
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
    while (this.#running.size >= this.#limit) await Promise.race(this.#running);
    this.#check();
  }

  /** Resolves once every task has ended. */
  async drain(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    this.#check();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
