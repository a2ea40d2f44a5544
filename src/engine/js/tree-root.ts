/**
 * TreeRoot: names inside a directory, resolved so that nothing leaves it. Each component is opened from its parent's
 * descriptor with O_NOFOLLOW; symbolic links are read and walked here, within the root, as RESOLVE_IN_ROOT of openat2(2) does.
 *
 * Paths are latin1 text that stands for bytes, without leading slash, of any length; '' is the root. Directories stay open
 * in a cache, the least recently used one goes first. One in 64 on the way down is a mark, and marks have a cache of their
 * own: what is not open is opened from the nearest mark, so that a walk costs the same at any depth, also back up. A caller
 * gets a place for the time of a function: until that has ended its directory stays open, whatever the caches do. Several
 * callers may use one root at a time.
 */
import { constants, type BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import { OpenDirectory } from './directory.js';
import * as fs from './fs.js';

const MAX_LINKS = 40;
const MAX_OPEN = 96;
const MARK_EVERY = 64;
const MAX_MARKS = 256;
const READ_SIZE = 256 * 1024;

/** A directory inside the root. */
interface Inside {
  readonly directory: OpenDirectory;
  /** Its path with no link in it. */
  readonly real: string;
  /** Directories from the root to it. */
  readonly depth: number;
  readonly setgid: boolean;
}

/** Open directories by real path; those used longest ago leave when there are too many. It is a user of each. */
class OpenDirectories {
  readonly #max: number;
  readonly #open = new Map<string, Inside>();

  constructor(max: number) {
    this.#max = max;
  }

  get(real: string): Inside | undefined {
    const found = this.#open.get(real);
    if (found === undefined) return undefined;
    this.#open.delete(real);
    this.#open.set(real, found);
    return found;
  }

  async add(inside: Inside): Promise<void> {
    inside.directory.use();
    const leaving: Inside[] = [];
    const before = this.#open.get(inside.real); // of another caller, who opened it meanwhile
    if (before !== undefined) leaving.push(before);
    this.#open.delete(inside.real);
    this.#open.set(inside.real, inside);
    for (const [real, oldest] of this.#open) {
      if (this.#open.size <= this.#max) break;
      this.#open.delete(real);
      leaving.push(oldest);
    }
    for (const { directory } of leaving) await directory.release();
  }

  /** Lets go of a directory and of those below it; '' is every one. */
  async forget(real: string): Promise<void> {
    const below = `${real}/`;
    const leaving = [...this.#open.values()].filter(
      (inside) => real === '' || inside.real === real || inside.real.startsWith(below),
    );
    for (const { real: gone } of leaving) this.#open.delete(gone);
    for (const { directory } of leaving) await directory.release();
  }
}

/** A name in an open directory; good until the function that was given it has ended. */
export class Place {
  readonly directory: OpenDirectory;
  /** Last component, latin1. */
  readonly name: string;
  /** Path of the directory with no link in it. */
  readonly parent: string;
  /** Whether new files inherit the directory's group. */
  readonly setgid: boolean;
  /** Whether a symbolic link was followed on the way. */
  readonly viaLink: boolean;

  constructor(inside: Inside, name: string, viaLink: boolean) {
    this.directory = inside.directory;
    this.name = name;
    this.parent = inside.real;
    this.setgid = inside.setgid;
    this.viaLink = viaLink;
  }

  /** Path with no link among its parents. */
  get real(): string {
    return this.parent === '' ? this.name : `${this.parent}/${this.name}`;
  }

  /** What to hand to node:fs. */
  get path(): Buffer {
    return this.directory.at(this.name);
  }
}

/** Makes a directory that is missing, or puts one where something else is; resolves once it is there. */
export type MakeDirectory = (place: Place) => Promise<void>;

/** How parents are found in a tree that a layer is made in. */
export interface WalkRules {
  /** Absent: what is missing is not there. */
  make: MakeDirectory | undefined;
  /**
   * Whether the layer has what is at a path (with no link in it), links and directories; `undefined` where nothing else
   * lies in the tree. What is not the layer's own is no link to follow, and nowhere that its own links lead to.
   */
  owns: ((real: string) => boolean) | undefined;
}

interface Walk {
  links: number;
  /** The text of a link is walked. What it names is not made: a link into nothing is the tar's fault. */
  ofLink: boolean;
  rules: WalkRules | undefined;
}

export class TreeRoot {
  /** Path of the root, for messages. */
  readonly directory: string;
  readonly #root: Inside;
  /** Without the root, and without the marks. */
  readonly #open = new OpenDirectories(MAX_OPEN);
  readonly #marks = new OpenDirectories(MAX_MARKS);
  #closed = false;

  private constructor(directory: string, root: Inside) {
    this.directory = directory;
    this.#root = root;
  }

  /** Opens a directory; a link is followed. ERR_SYSTEM where it is none, ERR_NOT_SUPPORTED where /proc is not mounted. */
  static async open(directory: string): Promise<TreeRoot> {
    // The slash makes a link be followed: the caller's own path is trusted.
    const opened = await OpenDirectory.open(`${directory}/`, directory);
    try {
      const root = await inside(opened, '', 0);
      await fs.lstat(opened.at(''));
      return new TreeRoot(directory, root);
    } catch (error) {
      await opened.release();
      if (fs.errnoName(error) !== 'ENOENT')
        throw systemError(error, 'open the directory', undefined, { path: directory });
      throw new LayerStoreError(
        'ERR_NOT_SUPPORTED',
        'the JavaScript engine needs /proc to be mounted: mount it, or use the native engine',
      );
    }
  }

  /** Lets go of every directory. A second call does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.forget('');
    await this.#root.directory.release();
  }

  /**
   * To be called when a directory was removed or got another mode: it and those below it are opened again where they are
   * needed. `real` is its path with no link in it.
   */
  async forget(real: string): Promise<void> {
    await Promise.all([this.#open.forget(real), this.#marks.forget(real)]);
  }

  /** Runs `task` with the place of a path: parents resolved (and made, where `rules` are given), the last component not looked at. */
  async at<T>(path: string, task: (place: Place) => Promise<T>, rules?: WalkRules): Promise<T> {
    const slash = path.lastIndexOf('/');
    const parentPath = slash < 0 ? '' : path.slice(0, slash);
    const parent = await this.#resolve(parentPath, { links: 0, ofLink: false, rules });
    try {
      return await task(new Place(parent, path.slice(slash + 1), parent.real !== parentPath));
    } finally {
      await parent.directory.release();
    }
  }

  /** Runs `task` with a directory, links followed within the root. ENOTDIR, ENOENT and ELOOP as the kernel would give them. */
  async in<T>(path: string, task: (directory: OpenDirectory, real: string) => Promise<T>): Promise<T> {
    const { directory, real } = await this.#resolve(path, { links: 0, ofLink: false, rules: undefined });
    try {
      return await task(directory, real);
    } finally {
      await directory.release();
    }
  }

  /** Opens a file for reading, without following a link, nor waiting where it is a FIFO. The caller closes it. */
  openFile(path: string): Promise<number> {
    return this.at(path, (place) =>
      fs.open(place.path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK),
    );
  }

  /** The same, where it is a regular file; undefined for anything else. The caller closes it. */
  async openRegularFile(path: string): Promise<number | undefined> {
    const fd = await this.openFile(path);
    let regular = false;
    try {
      regular = (await fs.fstat(fd)).isFile();
    } finally {
      if (!regular) await fs.close(fd);
    }
    return regular ? fd : undefined;
  }

  /** What has that name, which leads there through no link; undefined where there is nothing, or that cannot be told. */
  async direct(path: string): Promise<BigIntStats | undefined> {
    try {
      return await this.at(path, (place) => (place.viaLink ? Promise.resolve(undefined) : fs.lstat(place.path)));
    } catch {
      return undefined; // reading it would say why
    }
  }

  /** Chunks of a file to its end. */
  async *readFile(path: string): AsyncGenerator<Buffer> {
    try {
      const fd = await this.openFile(path);
      try {
        for (let position = 0; ;) {
          const buffer = Buffer.allocUnsafe(READ_SIZE);
          const count = await fs.read(fd, buffer, 0, buffer.length, position);
          if (count === 0) return;
          position += count;
          yield buffer.subarray(0, count);
        }
      } finally {
        await fs.close(fd);
      }
    } catch (error) {
      throw systemError(error, 'read the file', undefined, { path: this.describe(path) });
    }
  }

  #noEntry(real: string): unknown {
    const error = Object.assign(new Error('ENOENT'), { code: 'ENOENT', errno: -2, syscall: 'open' });
    return systemError(error, 'follow a symbolic link to', undefined, { path: this.describe(real) });
  }

  /** Path outside the root, for messages. */
  describe(path: string): string {
    return `${this.directory}/${Buffer.from(path, 'latin1').toString()}`;
  }

  /** The caller is a user of what it gets, as of what the other functions below give. */
  async #resolve(path: string, walk: Walk): Promise<Inside> {
    let end = path.length;
    let at = this.#cached(path);
    while (at === undefined) {
      end = Math.max(path.lastIndexOf('/', end - 1), 0);
      at = this.#cached(path.slice(0, end));
    }
    while (end < path.length) {
      const start = end === 0 ? 0 : end + 1;
      const slash = path.indexOf('/', start);
      end = slash < 0 ? path.length : slash;
      const parent = at;
      try {
        at = await this.#step(parent, path.slice(start, end), walk);
      } finally {
        await parent.directory.release();
      }
    }
    return at;
  }

  #cached(real: string): Inside | undefined {
    const found = real === '' ? this.#root : (this.#open.get(real) ?? this.#marks.get(real));
    found?.directory.use();
    return found;
  }

  async #step(parent: Inside, name: string, walk: Walk, retried = false): Promise<Inside> {
    const place = new Place(parent, name, false);
    const { real } = place;
    if (walk.ofLink && walk.rules?.owns?.(real) === false) throw this.#noEntry(real);
    const cached = this.#cached(real);
    if (cached !== undefined) return cached;
    const make = walk.ofLink ? undefined : walk.rules?.make;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#keep(await OpenDirectory.open(place.path, this.describe(real)), real, parent.depth + 1);
      } catch (error) {
        const errno = LayerStoreError.is(error) ? error.errnoName : undefined;
        if (errno === 'ENOENT' && make !== undefined && attempt === 0) {
          await make(place);
        } else if (errno === 'ENOTDIR' || errno === 'ELOOP') {
          return await this.#follow(parent, place, walk, error, retried);
        } else {
          throw error;
        }
      }
    }
  }

  async #follow(parent: Inside, place: Place, walk: Walk, failure: unknown, retried: boolean): Promise<Inside> {
    const target = await fs.unlessErrno(fs.readlink(place.path), 'EINVAL', 'ENOENT');
    if (target === undefined || walk.rules?.owns?.(place.real) === false) {
      const make = walk.ofLink ? undefined : walk.rules?.make;
      if (make !== undefined && !retried) {
        // What is in the way may give way.
        await make(place);
        return this.#step(parent, place.name, walk, true);
      }
      throw systemError(failure, 'use as a directory', undefined, { path: this.describe(place.real) });
    }
    if (++walk.links > MAX_LINKS) {
      throw systemError(
        Object.assign(new Error('ELOOP'), { code: 'ELOOP', errno: -40, syscall: 'open' }),
        'follow the symbolic link',
        'the links of this layer go round in a circle',
        { path: this.describe(place.real) },
      );
    }
    const text = target.toString('latin1');
    const inner: Walk = { ...walk, ofLink: true };
    let at = text.startsWith('/') ? this.#root : parent;
    at.directory.use();
    for (const part of text.split('/')) {
      if (part === '' || part === '.') continue;
      const from = at;
      try {
        const up = from.real.lastIndexOf('/');
        at =
          part === '..'
            ? await this.#resolve(up < 0 ? '' : from.real.slice(0, up), { links: 0, ofLink: false, rules: undefined })
            : await this.#step(from, part, inner);
      } finally {
        await from.directory.release();
      }
    }
    walk.links = inner.links;
    return at;
  }

  /** Takes an open directory into a cache, which is one user more. */
  async #keep(directory: OpenDirectory, real: string, depth: number): Promise<Inside> {
    let kept: Inside;
    try {
      kept = await inside(directory, real, depth);
    } catch (error) {
      await directory.release();
      throw error;
    }
    if (!this.#closed) await (depth % MARK_EVERY === 0 ? this.#marks : this.#open).add(kept);
    return kept;
  }
}

async function inside(directory: OpenDirectory, real: string, depth: number): Promise<Inside> {
  const { mode } = await directory.stat();
  return { directory, real, depth, setgid: (Number(mode) & 0o2000) !== 0 };
}
