/**
 * TreeRoot: names inside a directory, resolved so that nothing leaves it.
 *
 * Node has no openat(2). `/proc/self/fd/N/name` is the same: the kernel starts at the directory that N refers to, whatever
 * was renamed or replaced on the way meanwhile. Each component is opened from its parent's descriptor with O_NOFOLLOW;
 * symbolic links are read and walked here, within the root, as RESOLVE_IN_ROOT of openat2(2) does.
 *
 * Paths are latin1 text that stands for bytes, without leading slash; '' is the root. One user at a time: descriptors
 * are cached, and the least recently used one is closed when a new one is opened.
 */
import { constants } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import * as fs from './fs.js';

/** Linux's O_PATH, which node:fs does not name: a descriptor to start from, without the right to read. */
export const O_PATH = 0o10000000;
const { O_DIRECTORY, O_NOFOLLOW } = constants;
const MAX_LINKS = 40;
const MAX_OPEN = 96;

/** A directory inside the root, open. */
export interface OpenDirectory {
  readonly fd: number;
  /** Its path with no link in it. */
  readonly real: string;
  /** Whether new files inherit this directory's group. */
  readonly setgid: boolean;
  /** Bytes of `/proc/self/fd/N/`, the start of a child's path. */
  readonly prefix: Buffer;
}

/** A name in an open directory. */
export interface Place {
  readonly parent: OpenDirectory;
  /** Last component, latin1. */
  readonly name: string;
  /** Path with no link among its parents. */
  readonly real: string;
  /** What to hand to node:fs. */
  readonly path: Buffer;
  /** Whether a symbolic link was followed on the way. */
  readonly viaLink: boolean;
}

export interface ResolveOptions {
  /** Called for a directory that is missing, or where something else is; resolves once it is there. Absent: an error. */
  make?: (place: Place) => Promise<void>;
}

interface Walk {
  links: number;
  make: ResolveOptions['make'];
}

export class TreeRoot {
  readonly directory: string;
  readonly #root: OpenDirectory;
  /** By real path, least recently used first. Without the root. */
  readonly #open = new Map<string, OpenDirectory>();
  #held: OpenDirectory | undefined;

  private constructor(directory: string, root: OpenDirectory) {
    this.directory = directory;
    this.#root = root;
  }

  /** Opens a directory. ERR_SYSTEM where it is none, ERR_NOT_SUPPORTED where /proc is not mounted. */
  static async open(directory: string): Promise<TreeRoot> {
    let fd: number;
    try {
      fd = await fs.open(directory, O_PATH | O_DIRECTORY);
    } catch (error) {
      throw systemError(error, 'open the directory', 'check that it exists', { path: directory });
    }
    try {
      const root = await openDirectory(fd, '');
      await fs.lstat(root.prefix);
      return new TreeRoot(directory, root);
    } catch (error) {
      await fs.close(fd);
      if (fs.errnoName(error) !== 'ENOENT')
        throw systemError(error, 'open the directory', undefined, { path: directory });
      throw new LayerStoreError(
        'ERR_NOT_SUPPORTED',
        'the JavaScript engine needs /proc to be mounted: mount it, or use the native engine',
      );
    }
  }

  /** Closes every descriptor. */
  async close(): Promise<void> {
    await this.forget();
    await fs.close(this.#root.fd);
  }

  /** Closes cached descriptors: to be called when a directory or a link was replaced. */
  async forget(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const directory of open) await fs.close(directory.fd);
  }

  /** The place of a path: parents resolved (and made, where asked), the last component not looked at. */
  async place(path: string, options: ResolveOptions = {}): Promise<Place> {
    const slash = path.lastIndexOf('/');
    const parentPath = slash < 0 ? '' : path.slice(0, slash);
    const parent = await this.#resolve(parentPath, { links: 0, make: options.make });
    return placeIn(parent, path.slice(slash + 1), parent.real !== parentPath);
  }

  /** A directory, links followed within the root. ENOTDIR, ENOENT and ELOOP as the kernel would give them. */
  async resolveDirectory(path: string): Promise<OpenDirectory> {
    return this.#resolve(path, { links: 0, make: undefined });
  }

  /** Keeps one directory open whatever is opened meanwhile; until the next call, or `forget`. */
  hold(directory: OpenDirectory): void {
    this.#held = directory;
  }

  /** Path outside the root, for messages. */
  describe(path: string): string {
    return `${this.directory}/${Buffer.from(path, 'latin1').toString()}`;
  }

  async #resolve(path: string, walk: Walk): Promise<OpenDirectory> {
    if (path === '') return this.#root;
    const cached = this.#cached(path);
    if (cached !== undefined) return cached;
    const slash = path.lastIndexOf('/');
    const parent = await this.#resolve(slash < 0 ? '' : path.slice(0, slash), walk);
    return this.#step(parent, path.slice(slash + 1), walk);
  }

  #cached(real: string): OpenDirectory | undefined {
    const directory = this.#open.get(real);
    if (directory === undefined) return undefined;
    this.#open.delete(real);
    this.#open.set(real, directory);
    return directory;
  }

  async #step(parent: OpenDirectory, name: string, walk: Walk, retried = false): Promise<OpenDirectory> {
    const place = placeIn(parent, name, false);
    const cached = this.#cached(place.real);
    if (cached !== undefined) return cached;
    for (let attempt = 0; ; attempt++) {
      try {
        const fd = await fs.open(place.path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        return await this.#keep(fd, place.real);
      } catch (error) {
        const errno = fs.errnoName(error);
        if (errno === 'ENOENT' && walk.make !== undefined && attempt === 0) {
          await walk.make(place);
        } else if (errno === 'ENOTDIR' || errno === 'ELOOP') {
          return await this.#follow(place, walk, error, retried);
        } else {
          throw systemError(error, 'open the directory', undefined, { path: this.describe(place.real) });
        }
      }
    }
  }

  async #follow(place: Place, walk: Walk, failure: unknown, retried: boolean): Promise<OpenDirectory> {
    const target = await fs.unlessErrno(fs.readlink(place.path), 'EINVAL', 'ENOENT');
    if (target === undefined) {
      if (walk.make !== undefined && !retried) {
        // What is in the way may give way.
        await walk.make(place);
        return this.#step(place.parent, place.name, walk, true);
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
    // What a link names is not made: a link into nothing is the tar's fault.
    const inner: Walk = { links: walk.links, make: undefined };
    let at = text.startsWith('/') ? this.#root : place.parent;
    for (const part of text.split('/')) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        const slash = at.real.lastIndexOf('/');
        at = await this.#resolve(slash < 0 ? '' : at.real.slice(0, slash), inner);
      } else {
        at = await this.#step(at, part, inner);
      }
    }
    walk.links = inner.links;
    return at;
  }

  async #keep(fd: number, real: string): Promise<OpenDirectory> {
    const directory = await openDirectory(fd, real);
    this.#open.set(real, directory);
    if (this.#open.size > MAX_OPEN) {
      for (const [key, oldest] of this.#open) {
        if (oldest === this.#held) continue;
        this.#open.delete(key);
        await fs.close(oldest.fd);
        break;
      }
    }
    return directory;
  }
}

async function openDirectory(fd: number, real: string): Promise<OpenDirectory> {
  const { mode } = await fs.fstat(fd);
  return { fd, real, setgid: (Number(mode) & 0o2000) !== 0, prefix: Buffer.from(`/proc/self/fd/${String(fd)}/`) };
}

function placeIn(parent: OpenDirectory, name: string, viaLink: boolean): Place {
  return {
    parent,
    name,
    real: parent.real === '' ? name : `${parent.real}/${name}`,
    path: Buffer.concat([parent.prefix, Buffer.from(name, 'latin1')]),
    viaLink,
  };
}
