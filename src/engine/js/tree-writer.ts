/**
 * TreeWriter: makes the files of a tar in a directory, with the semantics of Docker's unpacking.
 *
 * Everything that changes a name happens in the order of the tar, one call at a time, by TreeRoot's descriptors. Contents,
 * owner, mode and times of regular files are set on their own descriptors, several files at once.
 */
import { constants, type BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import * as fs from './fs.js';
import { shown } from './names.js';
import { makeNodeAt } from './node-files.js';
import { badTar } from './tar-header.js';
import type { TarEntry } from './tar-reader.js';
import { utime } from './times.js';
import { TreeBase } from './tree-base.js';
import type { Place } from './tree-root.js';
import { OpenedDirectory } from './walk.js';

const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Takes the content of a file. */
export interface FileSink {
  write(chunk: Buffer): Promise<void>;
  /** Writes at a place of its own, for sparse files. */
  writeAt(chunk: Buffer, position: number): Promise<void>;
  end(): Promise<void>;
}

export class TreeWriter extends TreeBase {
  readonly #uid = process.geteuid?.() ?? 0;
  readonly #gid = process.getegid?.() ?? 0;
  #whiteoutNode: string | undefined;
  readonly #marks = new Set<string>();

  /** A regular file, open for its content. */
  async file(place: Place, entry: TarEntry): Promise<FileSink> {
    const fd = await this.#create(place, entry);
    let at = 0;
    return {
      write: async (chunk) => {
        await this.attempt('write', place, () => fs.writeAll(fd, chunk, at));
        at += chunk.length;
      },
      writeAt: (chunk, position) => this.attempt('write', place, () => fs.writeAll(fd, chunk, position)),
      end: () => this.pool.run(() => this.#finishFile(fd, place, entry, undefined)),
    };
  }

  /** A regular file whose content is at hand; returns before it is written. */
  async smallFile(place: Place, entry: TarEntry, content: Buffer): Promise<void> {
    const fd = await this.#create(place, entry);
    await this.pool.run(() => this.#finishFile(fd, place, entry, content));
  }

  async #create(place: Place, entry: TarEntry): Promise<number> {
    // The mode may be cut by the umask or by the parent's setgid bit; #finishFile sets it where that can be.
    const open = (): Promise<number> => fs.open(place.path, CREATE, 0o600);
    const fd = await this.creating('make the file', place, open);
    this.size += entry.size;
    this.queueXattrs(place.real, entry.xattrs);
    return fd;
  }

  async #finishFile(fd: number, place: Place, entry: TarEntry, content: Buffer | undefined): Promise<void> {
    await this.attempt('write', place, async () => {
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
    const existing = await this.existing(place);
    if (existing?.isDirectory() === true) {
      // It stays, with what is in it; the record must not name it twice.
      const implied = this.implied.delete(path);
      if (!implied && this.madeHere(path)) await this.options.onReplaced?.(path, undefined, 0);
    } else {
      if (existing !== undefined) await this.remove(place);
      await this.attempt('make the directory', place, () => fs.mkdir(place.path, 0o700));
      // A whiteout earlier in this tar: the directory is a new one.
      if (existing !== undefined && this.hides(existing)) this.markOpaque(path);
    }
    this.made?.add(path);
    await this.attempt('set owner and mode of', place, async () => {
      await fs.chown(place.path, entry.uid, entry.gid);
      await fs.chmod(place.path, entry.mode & 0o7777);
    });
    // Mode and setgid bit are cached with the descriptor.
    if (entry.mode & 0o2000) await this.root.forget();
    this.directoryTimes.set(path, entry.mtime);
    this.queueXattrs(path, entry.xattrs);
  }

  async symbolicLink(place: Place, entry: TarEntry): Promise<void> {
    await this.creating('make the symbolic link', place, () =>
      fs.symlink(Buffer.from(entry.linkName, 'latin1'), place.path),
    );
    this.size += entry.linkName.length;
    await this.#metadataByPath(place, entry, true);
  }

  /** A device or a FIFO. */
  async node(place: Place, entry: TarEntry): Promise<void> {
    const type = entry.type === '3' ? constants.S_IFCHR : entry.type === '4' ? constants.S_IFBLK : constants.S_IFIFO;
    const make = (): Promise<void> =>
      makeNodeAt(
        place.parent.fd,
        Buffer.from(place.name, 'latin1'),
        type | (entry.mode & 0o7777),
        entry.major,
        entry.minor,
      );
    await this.creating('make the node', place, make);
    await this.#metadataByPath(place, entry, false);
  }

  /** `target` is the place of the file that is linked to. False where the name is one of that file's already. */
  async hardLink(place: Place, entry: TarEntry, target: Place): Promise<boolean> {
    const missing = (): LayerStoreError =>
      badTar(
        `"${shown(entry.name)}" is a hard link to "${shown(entry.linkName)}", which this layer does not have`,
        entry.offset,
        entry.name,
      );
    // What the file's own entry still has to set must not come after what the link's entry sets.
    await this.pool.drain();
    const stat = await this.existing(target);
    if (stat !== undefined && this.hides(stat)) {
      throw new LayerStoreError(
        'ERR_UNSAFE_PATH',
        `the tar has a hard link to the whiteout of "${shown(entry.linkName)}"`,
        {
          path: shown(entry.name),
          offset: entry.offset,
        },
      );
    }
    if (stat === undefined || stat.isDirectory() || !this.madeHere(target.real)) throw missing();
    const there = await this.existing(place);
    if (there !== undefined && there.ino === stat.ino && there.dev === stat.dev) return false;
    await this.creating('make the hard link', place, async () => {
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
    await this.attempt('set owner, mode and time of', place, async () => {
      const chown = Number(stat.uid) !== entry.uid || Number(stat.gid) !== entry.gid;
      if (chown) await fs.lchown(place.path, entry.uid, entry.gid);
      if (!stat.isSymbolicLink() && (chown || (Number(stat.mode) & 0o7777) !== (entry.mode & 0o7777))) {
        await fs.chmod(place.path, entry.mode & 0o7777);
      }
      const time = utime(entry.mtime);
      await fs.lutimes(place.path, time, time);
    });
    this.queueXattrs(place.real, entry.xattrs);
  }

  /** Owner, mode, times and attributes of something that has no descriptor. Only a link is not followed by chmod. */
  async #metadataByPath(place: Place, entry: TarEntry, link: boolean): Promise<void> {
    await this.attempt('set owner, mode and time of', place, async () => {
      if (!this.#ownerIsOurs(place, entry) || !link) await fs.lchown(place.path, entry.uid, entry.gid);
      if (!link) await fs.chmod(place.path, entry.mode & 0o7777);
      const time = utime(entry.mtime);
      await fs.lutimes(place.path, time, time);
    });
    this.queueXattrs(place.real, entry.xattrs);
  }

  /** Hides a name of the layers below. True where there was something to hide, or a mark was made. */
  async whiteout(path: string, entry: TarEntry): Promise<boolean> {
    if (this.options.whiteouts === 'apply') {
      const place = await this.placeIfThere(path);
      if (place === undefined || (await this.existing(place)) === undefined) return false;
      await this.remove(place);
      return true;
    }
    const place = await this.place(path);
    const existing = await this.existing(place);
    if (existing !== undefined) {
      if (this.isWhiteout(existing)) return false;
      await this.remove(place);
    }
    const ours = this.#ownerIsOurs(place, entry);
    if (ours && (await this.#linkWhiteout(place))) return true;
    await this.attempt('make the whiteout', place, async () => {
      await makeNodeAt(place.parent.fd, Buffer.from(place.name, 'latin1'), constants.S_IFCHR, 0, 0);
      if (!ours) await fs.lchown(place.path, entry.uid, entry.gid);
    });
    if (ours) this.#whiteoutNode = place.real;
    return true;
  }

  /** In `apply` form an opaque marker leaves nothing to be found by: the record must name each once all the same. */
  #once(mark: string): boolean {
    if (this.#marks.has(mark)) return false;
    this.#marks.add(mark);
    return true;
  }

  /** All whiteouts are names of one device, made by one run of mknod. */
  async #linkWhiteout(place: Place): Promise<boolean> {
    if (this.#whiteoutNode === undefined) return false;
    this.root.hold(place.parent);
    try {
      const first = await this.root.place(this.#whiteoutNode);
      if (!this.isWhiteout(await fs.lstat(first.path))) return false;
      await fs.link(first.path, place.path);
      return true;
    } catch (error) {
      // Gone, or with as many names as the file system allows: another device does.
      if (LayerStoreError.is(error) || ['ENOENT', 'EMLINK', 'EXDEV'].includes(fs.errnoName(error) ?? '')) return false;
      throw systemError(error, 'make the whiteout', undefined, { path: this.root.describe(place.real) });
    }
  }

  /** Hides what the layers below have in a directory. True the first time for a directory. */
  async opaque(path: string): Promise<boolean> {
    const inside = path === '' ? '.' : `${path}/.`;
    if (this.options.whiteouts === 'apply') {
      await this.#removeForeign((await this.place(inside)).parent.real);
      return this.#once(inside);
    }
    const { real } = (await this.place(inside)).parent;
    if (this.opaqueSet.has(real)) return false;
    this.markOpaque(real);
    return true;
  }

  /** Removes all that this layer did not make; a directory stays where something that it made is in it. */
  async #removeForeign(path: string): Promise<void> {
    const directory = await this.root.resolveDirectory(path);
    const opened = await OpenedDirectory.open(directory.prefix, this.root.describe(path));
    try {
      for (const { name, stat } of await opened.entries()) {
        const child = directory.real === '' ? name : `${directory.real}/${name}`;
        if (stat.isDirectory()) await this.#removeForeign(child);
        if (this.madeHere(child)) continue;
        const place = await this.root.place(child);
        if (!stat.isDirectory()) await this.remove(place);
        else if (
          await fs.unlessErrno(
            fs.rmdir(place.path).then(() => true),
            'ENOTEMPTY',
            'EEXIST',
          )
        )
          await this.root.forget();
      }
    } finally {
      await opened.close();
    }
  }
}
