/** Copies of trees: by reflink where the file system can, hard links and attributes kept. */
import { constants, type BigIntStats } from 'node:fs';
import { systemError } from '../../errors.js';
import { commandPath, runOk } from './command.js';
import * as fs from './fs.js';
import { isOverlayXattr } from './layer-directory.js';
import { makeNodeAt } from './node-files.js';
import { OpenedDirectory } from './walk.js';
import { TaskPool } from './task-pool.js';
import { stripOverlayXattrs } from './overlay-xattrs.js';
import { readTreeXattrs, setXattrs, type XattrItem } from './xattr.js';

const IN_FLIGHT = 8;
const COPY = constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE;

/** See {@link Engine.copyTree}. */
export async function copyTree(source: string, target: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  const { signal } = options;
  signal?.throwIfAborted();
  if (commandPath('cp') !== undefined && (await hasFineTimes(source, signal)))
    return copyByCommand(source, target, signal);
  const xattrs = await readTreeXattrs(source, options);
  const copy = new Copy(signal);
  const from = await OpenedDirectory.open(source, source);
  try {
    const to = await OpenedDirectory.open(target, target);
    try {
      await copy.directory(from, to);
      await copy.finish();
      const items: XattrItem[] = [];
      for (const [path, list] of xattrs) {
        const wanted = list.filter(([name]) => !isTransient(name));
        if (wanted.length > 0) items.push({ path: path === '' ? '.' : path, xattrs: wanted });
      }
      await setXattrs(items, { cwd: target, ...options });
    } finally {
      await to.close();
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw systemError(error, 'copy the tree', undefined, { path: source, dest: target });
  } finally {
    await copy.close();
    await from.close();
  }
}

/** Whether something has an mtime that node:fs cannot set. A file's copy with a cut one would count as changed. */
async function hasFineTimes(source: string, signal: AbortSignal | undefined): Promise<boolean> {
  const visit = async (directory: OpenedDirectory): Promise<boolean> => {
    signal?.throwIfAborted();
    const entries = await directory.entries();
    if (isFine(await fs.fstat(directory.fd)) || entries.some(({ stat }) => isFine(stat))) return true;
    for (const { name, stat } of entries) {
      if (!stat.isDirectory()) continue;
      const child = await OpenedDirectory.open(directory.at(name), name);
      try {
        if (await visit(child)) return true;
      } finally {
        await child.close();
      }
    }
    return false;
  };
  const top = await OpenedDirectory.open(source, source);
  try {
    return await visit(top);
  } finally {
    await top.close();
  }
}

function isFine({ mtimeNs }: BigIntStats): boolean {
  return mtimeNs < 0n || mtimeNs % 1000n !== 0n;
}

/** cp(1) knows nanoseconds, and copies as this file does otherwise. */
async function copyByCommand(source: string, target: string, signal: AbortSignal | undefined): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  await runOk('cp', ['-a', '--reflink=auto', '--no-preserve=context', '-T', '--', source, target], {
    purpose: 'copy the tree',
    path: source,
    dest: target,
    syscall: 'copy_file_range',
    ...options,
  });
  await stripOverlayXattrs(target, signal);
}

/** Attributes that tie a file to one overlay mount. An opaque marker is part of the tree. */
function isTransient(name: string): boolean {
  return isOverlayXattr(name) && !name.endsWith('.overlay.opaque');
}

class Copy {
  readonly #signal: AbortSignal | undefined;
  readonly #pool = new TaskPool(IN_FLIGHT);
  /** Inode -> the copy that later names link to, below a directory that is kept open. */
  readonly #linked = new Map<string, Buffer>();
  readonly #held: OpenedDirectory[] = [];

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  /** Content and metadata of a directory that is there already. */
  async directory(from: OpenedDirectory, to: OpenedDirectory): Promise<void> {
    let kept = false;
    for (const { name, stat } of await from.entries()) {
      this.#signal?.throwIfAborted();
      const target = to.at(name);
      if (stat.isDirectory()) {
        await this.#child(from.at(name), target);
        continue;
      }
      if (stat.isSocket()) continue;
      if (stat.nlink > 1n) {
        const inode = `${String(stat.dev)}:${String(stat.ino)}`;
        const first = this.#linked.get(inode);
        if (first !== undefined) {
          await fs.link(first, target);
          continue;
        }
        if (!kept) this.#held.push(await OpenedDirectory.open(to.at('.'), 'the copy'));
        kept = true;
        this.#linked.set(inode, this.#held[this.#held.length - 1]!.at(name));
        await this.#other(from, to, name, stat);
      } else if (stat.isFile()) {
        await this.#pool.run(() => this.#file(from.at(name), target, stat));
      } else {
        await this.#other(from, to, name, stat);
      }
    }
    // What is still being written below this directory needs its descriptors.
    await this.#pool.drain();
    await applyMetadata(to.at('.'), await fs.fstat(from.fd), false);
  }

  async #child(from: Buffer, to: Buffer): Promise<void> {
    await fs.mkdir(to, 0o700);
    const source = await OpenedDirectory.open(from, from.toString());
    try {
      const target = await OpenedDirectory.open(to, to.toString());
      try {
        await this.directory(source, target);
      } finally {
        await target.close();
      }
    } finally {
      await source.close();
    }
  }

  async #file(from: Buffer, to: Buffer, stat: BigIntStats): Promise<void> {
    await fs.copyFile(from, to, COPY);
    await applyMetadata(to, stat, false);
  }

  async #other(from: OpenedDirectory, to: OpenedDirectory, name: string, stat: BigIntStats): Promise<void> {
    const target = to.at(name);
    if (stat.isFile()) {
      await this.#file(from.at(name), target, stat);
      return;
    }
    if (stat.isSymbolicLink()) await fs.symlink(await fs.readlink(from.at(name)), target);
    else {
      const [major, minor] = deviceNumbers(stat.rdev);
      await makeNodeAt(to.fd, Buffer.from(name, 'latin1'), Number(stat.mode), major, minor);
    }
    await applyMetadata(target, stat, stat.isSymbolicLink());
  }

  async finish(): Promise<void> {
    await this.#pool.drain();
  }

  async close(): Promise<void> {
    await this.#pool.drain().catch(() => undefined); // The caller has the error already.
    for (const directory of this.#held) await directory.close();
  }
}

/** makedev(3) of Linux, the other way round. */
export function deviceNumbers(rdev: bigint): [major: number, minor: number] {
  return [
    Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)),
    Number((rdev & 0xffn) | ((rdev >> 12n) & ~0xffn & 0xffffffffn)),
  ];
}

async function applyMetadata(path: Buffer, stat: BigIntStats, link: boolean): Promise<void> {
  await fs.lchown(path, Number(stat.uid), Number(stat.gid));
  if (!link) await fs.chmod(path, Number(stat.mode) & 0o7777);
  await fs.lutimes(path, seconds(stat.atimeNs), seconds(stat.mtimeNs));
}

/** To the microsecond, as node:fs passes times on; see tree-writer.ts. */
function seconds(ns: bigint): number {
  const whole = ns / 1_000_000_000n;
  const microseconds = Number((ns % 1_000_000_000n) / 1000n);
  if (ns < 0n) return 0;
  return microseconds === 0 ? Number(whole) : Number(whole) + (microseconds + 0.25) / 1e6;
}
