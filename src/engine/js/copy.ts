/** Copies of trees: by reflink where the file system can, hard links and attributes kept. */
import { constants, type BigIntStats } from 'node:fs';
import { systemError } from '../../errors.js';
import { mapConcurrent } from '../../util/concurrent.js';
import { defined } from '../../util/defined.js';
import { commandPath, runOk } from './command.js';
import { chmodEntry, type DirectoryEntry, makeNodeAt, type OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import { isOverlayXattr, LayerDirectory } from './layer-directory.js';
import { TreeRoot } from './tree-root.js';
import { regionOf, setXattrs, type XattrItem } from './xattr.js';

const IN_FLIGHT = 8;
const COPY = constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE;

/** See {@link Engine.copyTree}. */
export async function copyTree(source: string, target: string, options: { signal?: AbortSignal } = {}): Promise<void> {
  const { signal } = options;
  signal?.throwIfAborted();
  const from = await LayerDirectory.open(source, true, signal);
  try {
    const to = await TreeRoot.open(target);
    try {
      await new TreeCopy(from, to, signal).run();
    } finally {
      await to.close();
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw systemError(error, 'copy the tree', undefined, { path: source, dest: target });
  } finally {
    await from.close();
  }
}

/** Attributes that tie a file to one overlay mount. An opaque marker is part of the tree. */
function isTransient(name: string): boolean {
  return isOverlayXattr(name) && !name.endsWith('.overlay.opaque');
}

/** One copy. It holds no directory open but the one whose entries it makes: depth costs no descriptors. */
class TreeCopy {
  readonly #from: LayerDirectory;
  readonly #to: TreeRoot;
  readonly #signal: AbortSignal | undefined;
  readonly #xattrs: XattrItem[] = [];
  /** Inode -> path of its first name. */
  readonly #linked = new Map<string, string>();
  /** What has a time that node:fs cannot set. */
  readonly #fine: string[] = [];

  constructor(from: LayerDirectory, to: TreeRoot, signal: AbortSignal | undefined) {
    this.#from = from;
    this.#to = to;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    const directories: { path: string; stat: BigIntStats }[] = [];
    const waiting = [''];
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      const { stat, below } = await this.#directory(path);
      directories.push({ path, stat });
      for (const folder of below) waiting.push(folder);
    }
    // Only now: whatever is made in a directory changes its times. The deepest first, while those above can be entered.
    for (const { path, stat } of directories.reverse()) {
      this.#signal?.throwIfAborted();
      await this.#to.in(path, (directory) => applyMetadata(directory.at('.'), stat));
    }
    await setXattrs(this.#xattrs, this.#to, this.#signal);
    await this.#setFineTimes();
  }

  /** Makes the entries of a directory that is there already. Gives its own metadata, and the directories among its entries. */
  #directory(path: string): Promise<{ stat: BigIntStats; below: string[] }> {
    return this.#from.root.in(path, (from) =>
      this.#to.in(path, async (to) => {
        const below: string[] = [];
        const files: DirectoryEntry[] = [];
        const stat = await from.stat();
        await this.#note(path, stat);
        for (const entry of await from.entries()) {
          this.#signal?.throwIfAborted();
          const { name, stat } = entry;
          const child = path === '' ? name : `${path}/${name}`;
          if (stat.isSocket()) continue;
          if (stat.isDirectory()) {
            await fs.mkdir(to.at(name), 0o700);
            below.push(child);
          } else if (stat.nlink > 1n) {
            await this.#linkedEntry(from, to, entry, child);
          } else {
            await this.#note(child, stat);
            if (stat.isFile()) files.push(entry);
            else await makeEntry(from, to, entry);
          }
        }
        await mapConcurrent(files, IN_FLIGHT, (entry) => {
          this.#signal?.throwIfAborted();
          return makeEntry(from, to, entry);
        });
        return { stat, below };
      }),
    );
  }

  /** The first name of an inode is made, the others are linked to it. */
  async #linkedEntry(from: OpenDirectory, to: OpenDirectory, entry: DirectoryEntry, path: string): Promise<void> {
    const { name, stat } = entry;
    const inode = `${String(stat.dev)}:${String(stat.ino)}`;
    const first = this.#linked.get(inode);
    if (first !== undefined) return this.#to.at(first, (place) => fs.link(place.path, to.at(name)));
    this.#linked.set(inode, path);
    await this.#note(path, stat);
    await makeEntry(from, to, entry);
  }

  /** What is set when everything is there. */
  async #note(path: string, stat: BigIntStats): Promise<void> {
    const xattrs = (await this.#from.xattrs(path)).filter(([name]) => !isTransient(name));
    if (xattrs.length > 0) this.#xattrs.push({ path: path === '' ? '.' : path, xattrs });
    if (isFine(stat)) this.#fine.push(path);
  }

  /** By touch(1), which takes times from the original to the nanosecond: a file's copy with a cut one would count as changed. */
  async #setFineTimes(): Promise<void> {
    const touch = commandPath('touch');
    if (touch === undefined || commandPath('xargs') === undefined) return;
    const regions = new Map<string, string[]>();
    for (const path of this.#fine) {
      const { directory, start } = regionOf(path);
      const names = regions.get(directory) ?? [];
      names.push(path.slice(start));
      regions.set(directory, names);
    }
    for (const [region, names] of regions) {
      await this.#from.root.in(region, (from) =>
        this.#to.in(region, (to) =>
          runOk('xargs', ['-0', '-n', '2', '--', touch, '-c', '-h', '-r'], {
            purpose: 'set the times of a copied tree',
            syscall: 'utimensat',
            cwd: from.at('').toString(),
            fds: [to.fd],
            input: Buffer.from(names.map((name) => `./${name}\0/proc/self/fd/3/${name}\0`).join(''), 'latin1'),
            ...defined({ signal: this.#signal }),
          }),
        ),
      );
    }
  }
}

/** What is no directory. */
async function makeEntry(from: OpenDirectory, to: OpenDirectory, { name, stat }: DirectoryEntry): Promise<void> {
  if (stat.isFile()) await fs.copyFile(from.at(name), to.at(name), COPY);
  else if (stat.isSymbolicLink()) await fs.symlink(await fs.readlink(from.at(name)), to.at(name));
  else {
    const [major, minor] = deviceNumbers(stat.rdev);
    await makeNodeAt(to, name, Number(stat.mode), major, minor);
  }
  await applyMetadata(to.at(name), stat);
}

/** makedev(3) of Linux, the other way round. */
export function deviceNumbers(rdev: bigint): [major: number, minor: number] {
  return [
    Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)),
    Number((rdev & 0xffn) | ((rdev >> 12n) & ~0xffn & 0xffffffffn)),
  ];
}

async function applyMetadata(path: Buffer, stat: BigIntStats): Promise<void> {
  await fs.lchown(path, Number(stat.uid), Number(stat.gid));
  if (!stat.isSymbolicLink()) await chmodEntry(path, Number(stat.mode) & 0o7777);
  await fs.lutimes(path, utimeOf(stat.atimeNs), utimeOf(stat.mtimeNs));
}

const SECOND = 1_000_000_000n;

function utimeOf(ns: bigint): number | Date {
  const nanoseconds = ((ns % SECOND) + SECOND) % SECOND;
  return fs.utime({ seconds: Number((ns - nanoseconds) / SECOND), nanoseconds: Number(nanoseconds) });
}

/** Whether `utime` cuts it. */
function isFine({ mtimeNs }: BigIntStats): boolean {
  return mtimeNs < 0n || mtimeNs % 1000n !== 0n;
}
