/**
 * Directories by descriptor, and the device nodes and FIFOs in them, which the commands mknod and mkfifo make. Node has no openat(2); `/proc/self/fd/N/name` is the same: the kernel starts at the directory
 * that N refers to, whatever was renamed or replaced on the way to it. Each directory is opened from its parent without
 * following links, so that a tree that changes meanwhile cannot lead anybody elsewhere.
 *
 * The number N means another directory as soon as it was closed and taken again. So nobody keeps a number, or a path made
 * of one: an {@link OpenDirectory} owns its descriptor, each of its users holds it, and the last one to release it closes it.
 */
import { constants, type BigIntStats } from 'node:fs';
import { systemError } from '../../errors.js';
import { mapConcurrent } from '../../util/concurrent.js';
import { randomID } from '../../util/random-id.js';
import { runOk } from './command.js';
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

const S_IFMT = 0o170000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;

/** Makes a node at a path that is text: character or block device, else a FIFO (told by the file type in `mode`). */
export async function makeNode(path: string, mode: number, major: number, minor: number): Promise<void> {
  await runNode(path, mode, major, minor, []);
  // The command's own -m is cut by nothing, but does not know setuid bits; chmod does.
  await chmodEntry(path, mode & 0o7777);
}

/**
 * Makes a node in an open directory; `name` is latin1 text for any bytes. EEXIST where it is there.
 * The command gets an ASCII name of its own beside it, since arguments of commands are text; then it is linked into place.
 */
export async function makeNodeAt(
  directory: OpenDirectory,
  name: string,
  mode: number,
  major: number,
  minor: number,
): Promise<void> {
  const scratch = `.layerstore-node-${randomID(8)}`;
  const made = directory.at(scratch);
  await runNode(`/proc/self/fd/3/${scratch}`, mode, major, minor, [directory.fd]);
  try {
    await chmodEntry(made, mode & 0o7777);
    await fs.link(made, directory.at(name));
  } finally {
    await fs.unlink(made);
  }
}

async function runNode(
  path: string,
  mode: number,
  major: number,
  minor: number,
  fds: readonly number[],
): Promise<void> {
  const type = mode & S_IFMT;
  if (type === S_IFCHR || type === S_IFBLK) {
    await runOk('mknod', ['-m', '600', '--', path, type === S_IFCHR ? 'c' : 'b', String(major), String(minor)], {
      purpose: 'make a device node',
      syscall: 'mknod',
      fds,
      path,
    });
  } else {
    await runOk('mkfifo', ['-m', '600', '--', path], { purpose: 'make a FIFO', syscall: 'mknod', fds, path });
  }
}
