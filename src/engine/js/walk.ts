/**
 * Walks directories by descriptor: each is opened from its parent's descriptor without following links, so that a tree
 * that changes under the walk cannot lead it elsewhere. See tree-root.ts on `/proc/self/fd`.
 */
import { constants, type BigIntStats } from 'node:fs';
import { systemError } from '../../errors.js';
import * as fs from './fs.js';

const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** Calls in flight: libuv has four threads, a few more keep them fed. */
const IN_FLIGHT = 16;

/** An entry of a directory with its lstat. */
export interface DirectoryEntry {
  /** Latin1 text of the name's bytes. */
  name: string;
  stat: BigIntStats;
}

/** A directory that is open for listing. */
export class OpenedDirectory {
  readonly fd: number;
  readonly #prefix: Buffer;

  private constructor(fd: number) {
    this.fd = fd;
    this.#prefix = Buffer.from(`/proc/self/fd/${String(fd)}/`);
  }

  static async open(path: string | Buffer, shown: string): Promise<OpenedDirectory> {
    try {
      return new OpenedDirectory(await fs.open(path, OPEN_DIRECTORY));
    } catch (error) {
      throw systemError(error, 'open the directory', undefined, { path: shown });
    }
  }

  /** Path of an entry, to hand to node:fs. */
  at(name: string): Buffer {
    return Buffer.concat([this.#prefix, Buffer.from(name, 'latin1')]);
  }

  /** Names in byte order. */
  async names(): Promise<string[]> {
    const entries = await fs.readdir(this.#prefix, { withFileTypes: true, encoding: 'buffer' });
    return entries.map((entry) => entry.name.toString('latin1')).sort(byBytes);
  }

  /** Entries in byte order; what goes away while it is read is left out. */
  async entries(): Promise<DirectoryEntry[]> {
    const names = await this.names();
    const entries: DirectoryEntry[] = [];
    await eachLimited(names, async (name) => {
      const stat = await fs.unlessErrno(fs.lstat(this.at(name)), 'ENOENT');
      if (stat !== undefined) entries.push({ name, stat });
    });
    return entries.sort((a, b) => byBytes(a.name, b.name));
  }

  async close(): Promise<void> {
    await fs.close(this.fd);
  }
}

/** Order of latin1 text: that of the bytes it stands for. */
export function byBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Runs `task` for every item, a bounded number at once; the first failure rejects once the running ones have ended. */
export async function eachLimited<T>(
  items: readonly T[],
  task: (item: T) => Promise<void>,
  limit = IN_FLIGHT,
): Promise<void> {
  let next = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (!failed && next < items.length) {
      const item = items[next++] as T;
      try {
        await task(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: Math.min(limit, items.length) }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
