/** Copies of trees: by reflink where the file system can, hard links and attributes kept. */
import { constants, type BigIntStats } from 'node:fs';
import { systemError } from '../../errors.js';
import { commandPath, runOk } from './command.js';
import { chmodEntry, OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import { isOverlayXattr, LayerDirectory } from './layer-directory.js';
import { makeNodeAt } from './node-files.js';
import { TaskPool } from './task-pool.js';
import { TreeRoot } from './tree-root.js';
import { setXattrs, type XattrItem } from './xattr.js';
import { defined } from '../../util/defined.js';

const IN_FLIGHT = 8;
const COPY = constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE;

/** See {@link Engine.copyTree}. */
export async function copyTree(source: string, target: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  const { signal } = options;
  signal?.throwIfAborted();
  if (commandPath('cp') !== undefined && (await hasFineTimes(source, signal)))
    return copyByCommand(source, target, signal);
  const layer = await LayerDirectory.open(source, true, signal);
  const copy = new Copy(layer, signal);
  try {
    await OpenDirectory.with(source, source, (from) =>
      OpenDirectory.with(target, target, (to) => copy.directory(from, to, '')),
    );
    await copy.setXattrs(target);
  } catch (error) {
    signal?.throwIfAborted();
    throw systemError(error, 'copy the tree', undefined, { path: source, dest: target });
  } finally {
    await copy.close();
    await layer.close();
  }
}

/** Whether something has an mtime that node:fs cannot set. A file's copy with a cut one would count as changed. */
async function hasFineTimes(source: string, signal: AbortSignal | undefined): Promise<boolean> {
  const visit = async (directory: OpenDirectory): Promise<boolean> => {
    signal?.throwIfAborted();
    const entries = await directory.entries();
    if (isFine(await directory.stat()) || entries.some(({ stat }) => isFine(stat))) return true;
    for (const { name, stat } of entries) {
      if (!stat.isDirectory()) continue;
      if (await OpenDirectory.with(directory.at(name), name, visit)) return true;
    }
    return false;
  };
  return OpenDirectory.with(source, source, visit);
}

function isFine({ mtimeNs }: BigIntStats): boolean {
  return mtimeNs < 0n || mtimeNs % 1000n !== 0n;
}

/** cp(1) knows nanoseconds, and copies as this file does otherwise. */
async function copyByCommand(source: string, target: string, signal: AbortSignal | undefined): Promise<void> {
  const options = defined({ signal });
  await runOk('cp', ['-a', '--reflink=auto', '--no-preserve=context', '-T', '--', source, target], {
    purpose: 'copy the tree',
    path: source,
    dest: target,
    syscall: 'copy_file_range',
    ...options,
  });
  // The command took whole paths: there is nothing beyond what one run of getfattr reads.
  const copy = await LayerDirectory.open(target, false, signal);
  try {
    await copy.stripOverlayXattrs();
  } finally {
    await copy.close();
  }
}

/** Attributes that tie a file to one overlay mount. An opaque marker is part of the tree. */
function isTransient(name: string): boolean {
  return isOverlayXattr(name) && !name.endsWith('.overlay.opaque');
}

class Copy {
  readonly #layer: LayerDirectory;
  readonly #signal: AbortSignal | undefined;
  readonly #xattrs: XattrItem[] = [];
  readonly #pool = new TaskPool(IN_FLIGHT);
  /** Inode -> the copy that later names link to, in a directory that stays open until the end. */
  readonly #linked = new Map<string, { directory: OpenDirectory; name: string }>();

  constructor(layer: LayerDirectory, signal: AbortSignal | undefined) {
    this.#layer = layer;
    this.#signal = signal;
  }

  /** Content and metadata of a directory that is there already; `path`: its own below the root. Attributes come later. */
  async directory(from: OpenDirectory, to: OpenDirectory, path: string): Promise<void> {
    await this.#queueXattrs(path);
    for (const { name, stat } of await from.entries()) {
      this.#signal?.throwIfAborted();
      const target = to.at(name);
      const child = path === '' ? name : `${path}/${name}`;
      if (stat.isDirectory()) {
        await this.#child(from.at(name), target, child);
        continue;
      }
      if (stat.isSocket()) continue;
      await this.#queueXattrs(child);
      if (stat.nlink > 1n) {
        const inode = `${String(stat.dev)}:${String(stat.ino)}`;
        const first = this.#linked.get(inode);
        if (first !== undefined) {
          await fs.link(first.directory.at(first.name), target);
          continue;
        }
        this.#linked.set(inode, { directory: to.use(), name });
        await this.#other(from, to, name, stat);
      } else if (stat.isFile()) {
        await this.#pool.run(() => this.#fileLater(from, to, name, stat));
      } else {
        await this.#other(from, to, name, stat);
      }
    }
    // What is still being written in it changes its times.
    await this.#pool.drain();
    await applyMetadata(to.at('.'), await from.stat(), false);
  }

  async #child(from: Buffer, to: Buffer, path: string): Promise<void> {
    await fs.mkdir(to, 0o700);
    await OpenDirectory.with(from, from.toString(), (source) =>
      OpenDirectory.with(to, to.toString(), (target) => this.directory(source, target, path)),
    );
  }

  async #queueXattrs(path: string): Promise<void> {
    const xattrs = (await this.#layer.xattrs(path)).filter(([name]) => !isTransient(name));
    if (xattrs.length > 0) this.#xattrs.push({ path: path === '' ? '.' : path, xattrs });
  }

  /** Of all that was copied. */
  async setXattrs(target: string): Promise<void> {
    const root = await TreeRoot.open(target);
    try {
      await setXattrs(this.#xattrs, root, this.#signal);
    } finally {
      await root.close();
    }
  }

  /** A file that may still be written when the walk has left its directory after a failure: it is a user of both. */
  async #fileLater(from: OpenDirectory, to: OpenDirectory, name: string, stat: BigIntStats): Promise<void> {
    from.use();
    to.use();
    try {
      await this.#file(from.at(name), to.at(name), stat);
    } finally {
      await from.release();
      await to.release();
    }
  }

  async #file(from: Buffer, to: Buffer, stat: BigIntStats): Promise<void> {
    await fs.copyFile(from, to, COPY);
    await applyMetadata(to, stat, false);
  }

  async #other(from: OpenDirectory, to: OpenDirectory, name: string, stat: BigIntStats): Promise<void> {
    const target = to.at(name);
    if (stat.isFile()) {
      await this.#file(from.at(name), target, stat);
      return;
    }
    if (stat.isSymbolicLink()) await fs.symlink(await fs.readlink(from.at(name)), target);
    else {
      const [major, minor] = deviceNumbers(stat.rdev);
      await makeNodeAt(to, name, Number(stat.mode), major, minor);
    }
    await applyMetadata(target, stat, stat.isSymbolicLink());
  }

  async close(): Promise<void> {
    await this.#pool.drain().catch(() => undefined); // The caller has the error already.
    for (const { directory } of this.#linked.values()) await directory.release();
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
  if (!link) await chmodEntry(path, Number(stat.mode) & 0o7777);
  await fs.lutimes(path, seconds(stat.atimeNs), seconds(stat.mtimeNs));
}

/** To the microsecond, as node:fs passes times on; see tree-writer.ts. */
function seconds(ns: bigint): number {
  const whole = ns / 1_000_000_000n;
  const microseconds = Number((ns % 1_000_000_000n) / 1000n);
  if (ns < 0n) return 0;
  return microseconds === 0 ? Number(whole) : Number(whole) + (microseconds + 0.25) / 1e6;
}
