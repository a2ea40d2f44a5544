/**
 * Directories by descriptor. Node has no openat(2); `/proc/self/fd/N/name` is the same: the kernel starts at the directory
 * that N refers to, whatever was renamed or replaced on the way to it. Each directory is opened from its parent without
 * following links, so that a tree that changes meanwhile cannot lead anybody elsewhere.
 *
 * The number N means another directory as soon as it was closed and taken again. So nobody keeps a number, or a path made
 * of one: an {@link OpenDirectory} owns its descriptor, each of its users holds it, and the last one to release it closes it.
 */
import { constants, type BigIntStats } from 'node:fs';
import { systemError } from '../../errors.js';
import { mapConcurrent } from '../../util/concurrent.js';
import * as fs from './fs.js';

/** Linux's O_PATH, which node:fs does not name: a descriptor to start from, without the right to read. */
export const O_PATH = 0o10000000;
const { O_DIRECTORY, O_NOFOLLOW } = constants;
/** Calls in flight: libuv has four threads, a few more keep them fed. */
const IN_FLIGHT = 16;

/** An entry of a directory with its lstat. */
export interface DirectoryEntry {
  /** Latin1 text of the name's bytes. */
  name: string;
  stat: BigIntStats;
}

/** An open directory, closed by its last user. Names are latin1 text that stands for bytes. */
export class OpenDirectory {
  readonly #fd: number;
  readonly #prefix: Buffer;
  #users = 1;

  private constructor(fd: number) {
    this.#fd = fd;
    this.#prefix = Buffer.from(`/proc/self/fd/${String(fd)}/`);
  }

  /** Opens a directory; the caller is its first user. ERR_SYSTEM with the errno of open(2); a link is ENOTDIR. */
  static async open(path: string | Buffer, shown: string): Promise<OpenDirectory> {
    try {
      return new OpenDirectory(await fs.open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    } catch (error) {
      throw systemError(error, 'open the directory', undefined, { path: shown });
    }
  }

  /** Runs `task` with an open directory, and releases it. */
  static async with<T>(
    path: string | Buffer,
    shown: string,
    task: (directory: OpenDirectory) => Promise<T>,
  ): Promise<T> {
    const directory = await OpenDirectory.open(path, shown);
    try {
      return await task(directory);
    } finally {
      await directory.release();
    }
  }

  /** Adds a user, who calls {@link release} once. */
  use(): this {
    this.#check();
    this.#users++;
    return this;
  }

  /** Takes a user away; the last one closes the descriptor. */
  async release(): Promise<void> {
    this.#check();
    if (--this.#users === 0) await fs.close(this.#fd);
  }

  /** The number, for a call that is made at once: it may not be kept. */
  get fd(): number {
    this.#check();
    return this.#fd;
  }

  /** Path of an entry, for calls of node:fs that end before the caller's {@link release}. '' is the directory itself. */
  at(name: string): Buffer {
    this.#check();
    return Buffer.concat([this.#prefix, Buffer.from(name, 'latin1')]);
  }

  stat(): Promise<BigIntStats> {
    return fs.fstat(this.fd);
  }

  /** Names in byte order. */
  async names(): Promise<string[]> {
    const entries = await fs.readdir(this.at(''), { withFileTypes: true, encoding: 'buffer' });
    return entries.map((entry) => entry.name.toString('latin1')).sort(byBytes);
  }

  /** Entries in byte order; what goes away while it is read is left out. */
  async entries(): Promise<DirectoryEntry[]> {
    const entries = await mapConcurrent(await this.names(), IN_FLIGHT, async (name) => ({
      name,
      stat: await fs.unlessErrno(fs.lstat(this.at(name)), 'ENOENT'),
    }));
    return entries.filter((entry): entry is DirectoryEntry => entry.stat !== undefined);
  }

  #check(): void {
    if (this.#users === 0) throw new Error('a directory is used after its last user released it');
  }
}

/**
 * chmod(2) of what a path itself names. Node's own follows a link, which somebody may have put in the place of what was just
 * made; a link is ENOTSUP here.
 */
export async function chmodEntry(path: string | Buffer, mode: number): Promise<void> {
  const fd = await fs.open(path, O_PATH | O_NOFOLLOW);
  try {
    await fs.chmod(`/proc/self/fd/${String(fd)}`, mode);
  } finally {
    await fs.close(fd);
  }
}

/** Order of latin1 text: that of the bytes it stands for. */
export function byBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
