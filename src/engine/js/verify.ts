/** Verify: compares a layer's directory with its tar-split record, entry by entry, and says all that differs. */
import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { LayerStoreError, systemError } from '../../errors.js';
import { ByteReader } from '../../tar/byte-reader.js';
import { shown } from '../../tar/errors.js';
import { treePath } from '../../tar/path.js';
import { TarReader, type TarEntry } from '../../tar/reader.js';
import type { Privilege, TreeProblem, VerifyTreeRequest } from '../engine.js';
import { deviceNumbers } from './copy.js';
import { Crc64 } from './crc64.js';
import * as fs from './fs.js';
import { isOverlayXattr, isWhiteout, LayerDirectory } from './layer-directory.js';
import {
  ACCESS_ACL,
  DEFAULT_ACL,
  isKeptXattr,
  mayStandIn,
  nameKind,
  NO_ID,
  setByMaker,
  bitsOfMaker,
  type NameKind,
} from './names.js';
import { readSplitEntries } from './tar-split.js';
import { hasXattrKind } from './xattr.js';
import { defined } from '../../util/defined.js';

/** See {@link Engine.verifyTree}. */
export async function verifyTree(request: VerifyTreeRequest): Promise<TreeProblem[]> {
  request.signal?.throwIfAborted();
  const { directory } = request.tree;
  if (directory === undefined) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      'a layer that lies in no directory cannot be compared entry by entry; export it, which checks its digest',
    );
  }
  const verification = await Verification.open(request, directory);
  try {
    return await verification.run();
  } catch (error) {
    request.signal?.throwIfAborted();
    throw error;
  } finally {
    await verification.close();
  }
}

const READ_SIZE = 256 * 1024;
const KINDS: readonly (readonly [string, (stat: BigIntStats) => boolean, string])[] = [
  ['directory', (stat) => stat.isDirectory(), '5'],
  ['symbolic link', (stat) => stat.isSymbolicLink(), '2'],
  ['character device', (stat) => stat.isCharacterDevice(), '3'],
  ['block device', (stat) => stat.isBlockDevice(), '4'],
  ['FIFO', (stat) => stat.isFIFO(), '6'],
  ['file', (stat) => stat.isFile(), '0'],
];

/** An entry of the recorded tar, and where it lies by its name. */
interface Item {
  entry: TarEntry;
  path: string;
  kind: NameKind;
  /** The record has a line for it: its name leads to what it made, unless a later entry changed that. */
  recorded: boolean;
}

/** What is wrong with an inode, until a later entry for it says otherwise. A hard link sets attributes anew. */
interface Doubts {
  /** Type, size, link target, device. */
  nature: TreeProblem[];
  attributes: TreeProblem[];
}

class Verification {
  readonly #request: VerifyTreeRequest;
  readonly #layer: LayerDirectory;
  readonly #throttle: Throttle;
  readonly #problems: TreeProblem[] = [];
  readonly #items: Item[] = [];
  /** Names, and how many entries came before the first of each. */
  readonly #known = new Map<string, number>();
  /** Names whose file need not be what one entry says: the name came again, or the record has no line for it. */
  readonly #unsure = new Set<string>();
  /** Directories that a whiteout or a file of their name removed, and how many entries came before the last one. */
  readonly #removed = new Map<string, number>();
  /** Directories on the way to what the tar names. */
  readonly #implied = new Set<string>();
  /** Directories that {@link #noteParents} came to. */
  readonly #noted = new Set<string>();
  /** What {@link #above} found. */
  readonly #ways = new Map<string, { known: boolean; unsure: boolean }>();
  /** Everything that entries led to. */
  readonly #inodes = new Set<bigint>();
  readonly #doubts = new Map<bigint, Doubts>();
  /** The inodes that names had when hard links were made, of names that have come again since. */
  readonly #linked = new Map<string, bigint>();

  private constructor(request: VerifyTreeRequest, layer: LayerDirectory) {
    this.#request = request;
    this.#layer = layer;
    this.#throttle = new Throttle(request.bytesPerSecond, request.signal);
  }

  static async open(request: VerifyTreeRequest, directory: string): Promise<Verification> {
    return new Verification(request, await LayerDirectory.open(directory, true, request.signal));
  }

  async close(): Promise<void> {
    await this.#layer.close();
  }

  async run(): Promise<TreeProblem[]> {
    const hash = createHash('sha256');
    try {
      await this.#readRecord(hash);
    } catch (error) {
      if (!LayerStoreError.is(error)) throw error;
      const { tarSplit } = this.#request;
      const missing = error.errnoName === 'ENOENT' && 'path' in tarSplit && error.path === tarSplit.path;
      const damaged = error.code === 'ERR_LAYER_CORRUPT' || error.code === 'ERR_BAD_TAR';
      if (!missing && !damaged) throw error;
      // The record lies outside of the layer, and where is the store's business: the problem is the whole layer's.
      const cause = error.cause instanceof Error ? error.cause.message : error.message;
      this.#report('', 'record', 'one that can be read', missing ? 'missing' : `damaged (${cause})`);
      return this.#problems;
    }
    const diffID = `sha256:${hash.digest('hex')}`;
    // Contents that are wrong are reported each by itself; a digest that is wrong without one points at the record.
    if (diffID !== this.#request.diffID && this.#problems.length === 0)
      this.#report('', 'record', `one of the tar ${this.#request.diffID}`, `one of ${diffID}`);
    for (const item of this.#items) await this.#check(item);
    for (const { nature, attributes } of this.#doubts.values()) this.#problems.push(...nature, ...attributes);
    await this.#findExtra('');
    return this.#problems.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  }

  #report(path: string, what: string, expected: string, found: string): void {
    this.#problems.push(problemAt(path, what, expected, found));
  }

  async #readRecord(hash: ReturnType<typeof createHash>): Promise<void> {
    const recorded = new Set<number>();
    const bytes = new ByteReader(this.#bytes(hash, recorded));
    const tar = new TarReader(bytes, {
      maxHeaderBytes: Infinity,
      maxXattrs: Infinity,
      maxXattrBytes: Infinity,
      keepRaw: false,
    });
    const ends: number[] = [];
    for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
      if (entry.type !== 'g') {
        const path = treePath(entry.name, entry.offset);
        this.#items.push({ entry, path, kind: nameKind(path, entry.offset), recorded: false });
        ends.push(bytes.position);
      }
      await tar.skipContent();
    }
    for (let rest = await tar.trailing(READ_SIZE); rest !== undefined; rest = await tar.trailing(READ_SIZE))
      this.#request.signal?.throwIfAborted();
    for (const [index, item] of this.#items.entries()) {
      item.recorded = recorded.has(ends[index] ?? -1);
      this.#noteName(item, index);
    }
  }

  #noteName({ entry, path, kind, recorded }: Item, index: number): void {
    if (!recorded) this.#unsure.add(path);
    for (const name of kind.kind === 'whiteout' ? [path, kind.target] : [path]) {
      if (this.#known.has(name)) this.#unsure.add(name);
      else this.#known.set(name, index);
    }
    // Only a directory that earlier entries lie below takes anything with it.
    const removed =
      kind.kind === 'whiteout' ? kind.target : kind.kind === 'file' && entry.type !== '5' ? path : undefined;
    if (removed !== undefined && this.#implied.has(removed)) this.#removed.set(removed, index);
    for (let parent = parentOf(path); parent !== '' && !this.#implied.has(parent); parent = parentOf(parent))
      this.#implied.add(parent);
  }

  /**
   * Whether the file in the tree need not be what the entry says: its name came again, or a later entry removed it or a
   * directory on the way to it.
   */
  #isUnsure(path: string): boolean {
    if (this.#unsure.has(path)) return true;
    const named = this.#known.get(path);
    if (this.#removed.size === 0 || named === undefined) return false;
    for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent))
      if ((this.#removed.get(parent) ?? -1) > named) return true;
    return false;
  }

  /** The tar, with zeros for what cannot be read, so that the entries behind it can be. `recorded`: where lines of files are. */
  async *#bytes(hash: ReturnType<typeof createHash>, recorded: Set<number>): AsyncGenerator<Buffer> {
    let position = 0;
    for await (const entry of readSplitEntries(this.#request.tarSplit)) {
      this.#request.signal?.throwIfAborted();
      if (entry.type === 2) {
        position += entry.payload.length;
        hash.update(entry.payload);
        yield entry.payload;
        continue;
      }
      recorded.add(position);
      position += entry.size;
      if (entry.size === 0) continue;
      for await (const chunk of this.#content(entry.name, entry.size, entry.crc)) {
        hash.update(chunk);
        yield chunk;
      }
    }
  }

  async *#content(name: string, size: number, crc: Buffer | undefined): AsyncGenerator<Buffer> {
    const path = treePath(name, 0);
    let given = 0;
    const fd = await this.#open(path);
    if (fd !== undefined) {
      try {
        const found = new Crc64();
        const { size: real } = await fs.fstat(fd);
        while (given < size) {
          const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, size - given));
          const count = await fs.read(fd, buffer, 0, buffer.length, given);
          if (count === 0) break;
          await this.#throttle.take(count);
          given += count;
          found.update(buffer.subarray(0, count));
          yield buffer.subarray(0, count);
        }
        const digest = found.digest();
        if (Number(real) !== size) this.#report(path, 'size', String(size), String(real));
        else if (crc === undefined || !digest.equals(crc))
          this.#report(path, 'content', `crc64 ${crc?.toString('hex') ?? 'none'}`, `crc64 ${digest.toString('hex')}`);
      } finally {
        await fs.close(fd);
      }
    }
    while (given < size) {
      const zeros = Buffer.alloc(Math.min(READ_SIZE, size - given));
      given += zeros.length;
      yield zeros;
    }
  }

  /** `undefined` where it is no file any more: what is wrong is found when the entry is compared. */
  async #open(path: string): Promise<number | undefined> {
    try {
      return await this.#layer.root.openRegularFile(path);
    } catch (error) {
      const errno = LayerStoreError.is(error) ? error.errnoName : fs.errnoName(error);
      if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(errno ?? '')) return undefined;
      if (errno === 'EIO') {
        this.#report(path, 'content', 'a file that can be read', 'EIO');
        return undefined;
      }
      throw systemError(error, 'read the file', undefined, { path: this.#layer.root.describe(path) });
    }
  }

  async #check(item: Item): Promise<void> {
    this.#request.signal?.throwIfAborted();
    const { entry, path, kind, recorded } = item;
    // Directories that lie behind a link have another path than the entry says.
    if (!recorded) await this.#noteParents(path);
    if (kind.kind === 'whiteout') return this.#checkWhiteout(path, kind.target);
    if (kind.kind === 'opaque') return this.#checkOpaque(path, kind.directory);
    if (kind.kind === 'dropped' || path === '') return;
    const stat = await this.#layer.lstat(path);
    const seen = stat !== undefined && this.#seen(stat.ino, entry.type === '1');
    if (this.#isUnsure(path)) {
      this.#linked.delete(path);
      if (entry.type === '1') await this.#lostLink(path, entry);
      return;
    }
    if (stat === undefined) {
      this.#report(path, 'missing', describe(entry.type), 'nothing');
      return;
    }
    const doubts: Doubts = { nature: [], attributes: [] };
    if (entry.type === '1') await this.#checkHardLink(path, entry, stat);
    else doubts.nature = await this.#nature(path, entry, stat);
    if (doubts.nature[0]?.what !== 'type') doubts.attributes = await this.#attributes(path, entry, stat, seen);
    if (doubts.nature.length === 0 && doubts.attributes.length === 0) return;
    const before = this.#doubts.get(stat.ino);
    this.#doubts.set(stat.ino, { ...doubts, nature: [...(before?.nature ?? []), ...doubts.nature] });
  }

  /** Whether an earlier entry led to the inode: what it says of it is then taken back, as far as this one says it anew. */
  #seen(inode: bigint, hardLink: boolean): boolean {
    if (!this.#inodes.has(inode)) {
      this.#inodes.add(inode);
      return false;
    }
    const before = this.#doubts.get(inode);
    if (before !== undefined) {
      before.attributes = [];
      if (!hardLink) before.nature = [];
    }
    return true;
  }

  async #noteParents(path: string): Promise<void> {
    for (let parent = parentOf(path); parent !== '' && !this.#noted.has(parent); parent = parentOf(parent)) {
      this.#noted.add(parent);
      try {
        await this.#layer.root.in(parent, async (directory) => {
          this.#inodes.add((await directory.stat()).ino);
        });
      } catch (error) {
        if (!isGone(error)) throw error;
      }
    }
  }

  async #checkWhiteout(path: string, target: string): Promise<void> {
    const stat = await this.#layer.lstat(target);
    if (stat !== undefined) this.#seen(stat.ino, false);
    // The same tar may have made the name, before or after, or a directory for what lies below it: then those count.
    if (this.#isUnsure(path) || this.#isUnsure(target)) return;
    if (stat?.isDirectory() === true && this.#implied.has(target)) return;
    const direct = stat !== undefined && (await this.#layer.root.direct(target)) !== undefined;
    if (!direct && (await this.#directoryReplaced(target))) return;
    const applied = this.#request.whiteouts === 'plain';
    if (stat === undefined ? applied : !applied && isWhiteout(stat)) return;
    this.#report(
      target,
      'whiteout',
      applied ? 'nothing' : 'a 0:0 device',
      stat === undefined ? 'nothing' : kindOf(stat),
    );
  }

  /** Whether another entry may have taken the place of a directory on the way, and of the marks in it. */
  async #directoryReplaced(path: string): Promise<boolean> {
    const parent = parentOf(path);
    const above = this.#above(parent);
    if (above.unsure) return true;
    if (!above.known) return false;
    return (await this.#layer.root.direct(`${parent}/.`)) === undefined;
  }

  /** Whether a directory, or one above it, is among the names that are known, and among those that are unsure. */
  #above(directory: string): { known: boolean; unsure: boolean } {
    const way: string[] = [];
    let at = directory;
    for (; at !== '' && !this.#ways.has(at); at = parentOf(at)) way.push(at);
    let found = this.#ways.get(at) ?? { known: false, unsure: false };
    for (let next = way.pop(); next !== undefined; next = way.pop()) {
      found = {
        known: found.known || this.#known.has(next),
        unsure: found.unsure || this.#isUnsure(next),
      };
      this.#ways.set(next, found);
    }
    return found;
  }

  async #checkOpaque(path: string, directory: string): Promise<void> {
    if (this.#request.whiteouts === 'plain' || this.#isUnsure(path)) return;
    if (await this.#directoryReplaced(path)) return;
    if (!(await this.#layer.isOpaque(directory))) this.#report(path, 'opaque', 'y', 'nothing');
  }

  /** A hard link whose name is gone, or another file's by now: what it set on the file that it led to is set all the same. */
  async #lostLink(path: string, entry: TarEntry): Promise<void> {
    const target = treePath(entry.linkName, entry.offset);
    const inode = this.#isUnsure(target) ? this.#linked.get(target) : (await this.#layer.lstat(target))?.ino;
    if (inode === undefined) return;
    this.#linked.set(path, inode);
    this.#seen(inode, true);
  }

  async #checkHardLink(path: string, entry: TarEntry, stat: BigIntStats): Promise<void> {
    const target = treePath(entry.linkName, entry.offset);
    // The name may have been given to another file since.
    if (this.#isUnsure(target)) {
      this.#linked.set(target, stat.ino);
      return;
    }
    const other = await this.#layer.lstat(target);
    if (other === undefined) this.#report(path, 'link', shown(entry.linkName), 'nothing');
    else if (other.ino !== stat.ino || other.dev !== stat.dev)
      this.#report(path, 'link', shown(entry.linkName), 'another file');
  }

  /** Whether an empty file has the name of a device that its maker had no right to make. */
  #isStandIn({ type }: TarEntry, stat: BigIntStats): boolean {
    return stat.isFile() && stat.size === 0n && mayStandIn(type, this.#privilege);
  }

  get #privilege(): Privilege {
    return this.#request.privilege ?? 'full';
  }

  /** What a file is, as against what is set on it. Nothing more is said of one of another type. */
  async #nature(path: string, entry: TarEntry, stat: BigIntStats): Promise<TreeProblem[]> {
    const kind = kindOf(stat);
    if (this.#isStandIn(entry, stat)) return [];
    if (kind !== describe(entry.type)) return [problemAt(path, 'type', describe(entry.type), kind)];
    if (entry.type === '2') {
      const link = (await this.#layer.root.at(path, (place) => fs.readlink(place.path))).toString('latin1');
      return link === entry.linkName ? [] : [problemAt(path, 'link', shown(entry.linkName), shown(link))];
    }
    if (entry.type === '3' || entry.type === '4') {
      const [major, minor] = deviceNumbers(stat.rdev);
      if (major === entry.major && minor === entry.minor) return [];
      const device = (a: number, b: number): string => `device ${String(a)}:${String(b)}`;
      return [problemAt(path, 'type', device(entry.major, entry.minor), device(major, minor))];
    }
    if (!stat.isFile() || Number(stat.size) === entry.size || this.#has(path, 'size')) return [];
    return [problemAt(path, 'size', String(entry.size), String(stat.size))];
  }

  /** `seen`: another entry led to the inode, and may have given it attributes of its own. */
  async #attributes(path: string, entry: TarEntry, stat: BigIntStats, seen: boolean): Promise<TreeProblem[]> {
    const problems: TreeProblem[] = [];
    // An ACL decides what the mode's group bits are.
    const told = entry.xattrs.some(([name]) => name === ACCESS_ACL) ? 0o7000 : 0o7777;
    const compared = told & ~bitsOfMaker(stat.isDirectory(), this.#privilege);
    const mode = Number(stat.mode) & 0o7777;
    const made = setByMaker(entry, this.#privilege);
    if (!stat.isSymbolicLink() && ((mode ^ made.mode) & compared) !== 0)
      problems.push(problemAt(path, 'mode', octal(made.mode & 0o7777), octal(mode)));
    const owners = [Number(stat.uid), Number(stat.gid)] as const;
    const wanted = [made.uid >>> 0, made.gid >>> 0] as const;
    if (wanted.some((id, index) => id !== NO_ID && id !== owners[index]))
      problems.push(problemAt(path, 'owner', wanted.join(':'), owners.join(':')));
    if (!fs.holdsTime(entry.mtime, stat.mtimeNs))
      problems.push({ ...problemAt(path, 'mtime', decimalTime(entry), decimal(stat.mtimeNs)), cosmetic: true });
    return [...problems, ...(await this.#xattrs(path, entry, stat, seen))];
  }

  async #xattrs(path: string, entry: TarEntry, stat: BigIntStats, seen: boolean): Promise<TreeProblem[]> {
    const target = stat.isDirectory()
      ? 'directory'
      : stat.isFile() && !this.#isStandIn(entry, stat)
        ? 'file'
        : stat.isSymbolicLink()
          ? 'link'
          : 'special';
    const real = new Map((await this.#layer.xattrs(path)).filter(([name]) => !isOverlayXattr(name)));
    const problems: TreeProblem[] = [];
    for (const [name, value] of entry.xattrs) {
      const have = real.get(name);
      real.delete(name);
      if (!isKeptXattr(name, target, this.#privilege) || have?.equals(value) === true) continue;
      if (have === undefined && (mayBeAbsent(name, value) || !(await this.#fileSystemHas(path, name)))) continue;
      const found = have === undefined ? 'nothing' : `${name}=${have.toString('hex')}`;
      problems.push(problemAt(path, 'xattr', `${name}=${value.toString('hex')}`, found));
    }
    // The kernel labels files by itself where SELinux is on.
    real.delete('security.selinux');
    if (!seen)
      for (const [name, value] of real)
        problems.push(problemAt(path, 'xattr', 'nothing', `${name}=${value.toString('hex')}`));
    return problems;
  }

  /** False: the file system has no attributes of this kind, so ingest left it out. */
  #fileSystemHas(path: string, name: string): Promise<boolean> {
    return this.#layer.root.at(path, (place) => hasXattrKind(place, name));
  }

  #has(path: string, what: string): boolean {
    return this.#problems.some((problem) => problem.what === what && problem.path === `/${shown(path)}`);
  }

  /** Names that no entry made. A plain tree holds its parents' files too: there nothing can be said. */
  async #findExtra(path: string): Promise<void> {
    if (this.#request.whiteouts === 'plain') return;
    for (const { name, stat } of await this.#layer.list(path)) {
      this.#request.signal?.throwIfAborted();
      const child = path === '' ? name : `${path}/${name}`;
      if (!this.#inodes.has(stat.ino) && !this.#known.has(child) && !this.#implied.has(child)) {
        this.#report(child, 'extra', 'nothing', kindOf(stat));
      } else if (stat.isDirectory()) await this.#findExtra(child);
    }
  }
}

function problemAt(path: string, what: string, expected: string, found: string): TreeProblem {
  return { path: `/${shown(path)}`, what, expected, found, cosmetic: false };
}

/** '' for a name in the root. */
function parentOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf('/'), 0));
}

/** ACLs that say no more than the mode does are kept in the mode alone, an empty one not at all (posix_acl.c). */
function mayBeAbsent(name: string, value: Buffer): boolean {
  const header = 4;
  const entry = 8;
  return (
    (name === ACCESS_ACL && value.length <= header + 3 * entry) || (name === DEFAULT_ACL && value.length <= header)
  );
}

function isGone(error: unknown): boolean {
  const errno = LayerStoreError.is(error) ? error.errnoName : fs.errnoName(error);
  return ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errno ?? '');
}

function kindOf(stat: BigIntStats): string {
  return KINDS.find(([, test]) => test(stat))?.[0] ?? 'socket';
}

function describe(type: string): string {
  return KINDS.find(([, , character]) => character === type)?.[0] ?? (type === '1' ? 'hard link' : 'file');
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

function decimalTime({ mtime: { seconds, nanoseconds } }: TarEntry): string {
  return `${String(seconds)}.${String(nanoseconds).padStart(9, '0')}`;
}

function decimal(ns: bigint): string {
  return `${String(ns / 1_000_000_000n)}.${String(ns % 1_000_000_000n).padStart(9, '0')}`;
}

/** A budget of bytes a second. */
class Throttle {
  readonly #rate: number | undefined;
  readonly #signal: AbortSignal | undefined;
  #next = 0;

  constructor(bytesPerSecond: number | undefined, signal: AbortSignal | undefined) {
    this.#rate = bytesPerSecond;
    this.#signal = signal;
  }

  /** Resolves once `bytes` fit the budget. */
  async take(bytes: number): Promise<void> {
    if (this.#rate === undefined || this.#rate <= 0) return;
    const now = performance.now();
    const wait = this.#next - now;
    this.#next = Math.max(now, this.#next) + (bytes / this.#rate) * 1000;
    if (wait > 0) await sleep(wait, undefined, defined({ signal: this.#signal }));
  }
}
