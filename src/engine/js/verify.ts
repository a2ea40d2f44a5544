/** Verify: compares a layer's directory with its tar-split record, entry by entry, and says all that differs. */
import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { LayerStoreError, systemError } from '../../errors.js';
import { ByteReader } from '../../tar/byte-reader.js';
import { shown } from '../../tar/errors.js';
import { treePath } from '../../tar/path.js';
import { TarReader, type TarEntry } from '../../tar/reader.js';
import type { TreeProblem, VerifyTreeRequest } from '../engine.js';
import { deviceNumbers } from './copy.js';
import { Crc64 } from './crc64.js';
import * as fs from './fs.js';
import { isOverlayXattr, isWhiteout, LayerDirectory } from './layer-directory.js';
import { nameKind } from './names.js';
import { readSplitEntries } from './split-reader.js';
import { Throttle } from './throttle.js';
import type { Xattr } from './xattr.js';

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

class Verification {
  readonly #request: VerifyTreeRequest;
  readonly #layer: LayerDirectory;
  readonly #throttle: Throttle;
  readonly #problems: TreeProblem[] = [];
  /** The last entry of each path: what it says is what must be there. */
  readonly #expected = new Map<string, TarEntry>();
  readonly #whiteouts = new Set<string>();
  readonly #implied = new Set<string>();

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
      const tar = new TarReader(new ByteReader(this.#bytes(hash)), { maxHeaderBytes: Infinity, keepRaw: false });
      for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
        this.#expect(entry);
        await tar.skipContent();
      }
      for (let rest = await tar.trailing(READ_SIZE); rest !== undefined; rest = await tar.trailing(READ_SIZE))
        this.#request.signal?.throwIfAborted();
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
    for (const [path, entry] of this.#expected) await this.#compare(path, entry);
    for (const path of this.#whiteouts) await this.#compareWhiteout(path);
    await this.#findExtra('');
    return this.#problems.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  }

  #report(path: string, what: string, expected: string, found: string, cosmetic = false): void {
    this.#problems.push({ path: `/${shown(path)}`, what, expected, found, cosmetic });
  }

  /** The tar, with zeros for what cannot be read, so that the entries behind it can be. */
  async *#bytes(hash: ReturnType<typeof createHash>): AsyncGenerator<Buffer> {
    for await (const entry of readSplitEntries(this.#request.tarSplit)) {
      this.#request.signal?.throwIfAborted();
      if (entry.type === 2) {
        hash.update(entry.payload);
        yield entry.payload;
      } else if (entry.size > 0) {
        for await (const chunk of this.#content(entry.name, entry.size, entry.crc)) {
          hash.update(chunk);
          yield chunk;
        }
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

  #expect(entry: TarEntry): void {
    if (entry.type === 'g') return;
    const path = treePath(entry.name, entry.offset);
    const kind = nameKind(path, entry.offset);
    if (kind.kind === 'whiteout') {
      this.#forget(kind.target);
      this.#whiteouts.add(kind.target);
    }
    const named = kind.kind === 'whiteout' ? kind.target : kind.kind === 'opaque' ? `${kind.directory}/.` : path;
    for (let slash = named.lastIndexOf('/'); slash > 0; slash = named.lastIndexOf('/', slash - 1))
      this.#implied.add(named.slice(0, slash));
    if (kind.kind !== 'file' || path === '') return;
    if (this.#expected.has(path) && entry.type !== '5') this.#forget(path);
    this.#whiteouts.delete(path);
    this.#expected.set(path, entry);
  }

  /** Something takes a path's place: what was below it is gone too. */
  #forget(path: string): void {
    const before = this.#expected.get(path);
    this.#expected.delete(path);
    if (before !== undefined && before.type !== '5') return;
    for (const other of this.#expected.keys()) if (other.startsWith(`${path}/`)) this.#expected.delete(other);
  }

  async #compare(path: string, entry: TarEntry): Promise<void> {
    this.#request.signal?.throwIfAborted();
    const stat = await this.#layer.lstat(path);
    if (stat === undefined) {
      this.#report(path, 'missing', describe(entry.type), 'nothing');
      return;
    }
    // A hard link is what its target is.
    const target = this.#target(entry);
    if (target === undefined) return;
    const kind = KINDS.find(([, test]) => test(stat))?.[0] ?? 'socket';
    if (kind !== describe(target.type)) {
      this.#report(path, 'type', describe(target.type), kind);
      return;
    }
    const mode = Number(stat.mode) & 0o7777;
    if (target.type !== '2' && mode !== (entry.mode & 0o7777))
      this.#report(path, 'mode', octal(entry.mode & 0o7777), octal(mode));
    const owner = `${String(stat.uid)}:${String(stat.gid)}`;
    const wanted = `${String(entry.uid)}:${String(entry.gid)}`;
    if (owner !== wanted) this.#report(path, 'owner', wanted, owner);
    this.#compareTime(path, entry, stat);
    await this.#compareKind(path, target, stat);
    // A link's own header seldom repeats what the file's says.
    if (entry === target) this.#compareXattrs(path, target.xattrs, await this.#layer.xattrs(path));
  }

  #target(entry: TarEntry): TarEntry | undefined {
    let at: TarEntry | undefined = entry;
    for (let hops = 0; at?.type === '1' && hops < 40; hops++) at = this.#expected.get(treePath(at.linkName, at.offset));
    return at?.type === '1' ? undefined : at;
  }

  /** To the microsecond: that is what this engine can set. */
  #compareTime(path: string, entry: TarEntry, stat: BigIntStats): void {
    if (entry.mtime.seconds < 0) return; // node:fs cannot set it
    const wanted = BigInt(entry.mtime.seconds) * 1_000_000_000n + BigInt(entry.mtime.nanoseconds);
    if (wanted / 1000n === stat.mtimeNs / 1000n) return;
    this.#report(path, 'mtime', decimal(wanted), decimal(stat.mtimeNs), true);
  }

  async #compareKind(path: string, entry: TarEntry, stat: BigIntStats): Promise<void> {
    if (entry.type === '2') {
      const link = await this.#layer.readlink(path);
      if (link !== entry.linkName) this.#report(path, 'link', shown(entry.linkName), shown(link));
    } else if (entry.type === '3' || entry.type === '4') {
      const [major, minor] = deviceNumbers(stat.rdev);
      if (major !== entry.major || minor !== entry.minor) {
        this.#report(
          path,
          'type',
          `device ${String(entry.major)}:${String(entry.minor)}`,
          `device ${String(major)}:${String(minor)}`,
        );
      }
    } else if (stat.isFile() && Number(stat.size) !== entry.size && !this.#has(path, 'size')) {
      this.#report(path, 'size', String(entry.size), String(stat.size));
    }
  }

  #has(path: string, what: string): boolean {
    return this.#problems.some((problem) => problem.what === what && problem.path === `/${shown(path)}`);
  }

  #compareXattrs(path: string, expected: readonly Xattr[], found: readonly Xattr[]): void {
    const wanted = new Map(expected.filter(([name]) => !isOverlayXattr(name)));
    const real = new Map(found.filter(([name]) => !isOverlayXattr(name) && name !== 'security.selinux'));
    for (const [name, value] of wanted) {
      const have = real.get(name);
      real.delete(name);
      if (have === undefined || !have.equals(value))
        this.#report(
          path,
          'xattr',
          `${name}=${value.toString('hex')}`,
          have === undefined ? 'nothing' : `${name}=${have.toString('hex')}`,
        );
    }
    for (const [name, value] of real) this.#report(path, 'xattr', 'nothing', `${name}=${value.toString('hex')}`);
  }

  async #compareWhiteout(path: string): Promise<void> {
    if (this.#request.whiteouts === 'plain') return;
    const stat = await this.#layer.lstat(path);
    if (stat === undefined) this.#report(path, 'missing', 'whiteout', 'nothing');
    else if (!isWhiteout(stat) && !this.#implied.has(path)) this.#report(path, 'type', 'whiteout', 'something else');
  }

  /** Names that no entry made. A plain tree holds its parents' files too: there nothing can be said. */
  async #findExtra(path: string): Promise<void> {
    if (this.#request.whiteouts === 'plain') return;
    for (const { name, stat } of await this.#layer.list(path)) {
      this.#request.signal?.throwIfAborted();
      const child = path === '' ? name : `${path}/${name}`;
      if (!this.#expected.has(child) && !this.#implied.has(child) && !this.#whiteouts.has(child)) {
        this.#report(child, 'extra', 'nothing', KINDS.find(([, test]) => test(stat))?.[0] ?? 'socket');
      } else if (stat.isDirectory()) await this.#findExtra(child);
    }
  }
}

function describe(type: string): string {
  return KINDS.find(([, , character]) => character === type)?.[0] ?? (type === '1' ? 'hard link' : 'file');
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

function decimal(ns: bigint): string {
  return `${String(ns / 1_000_000_000n)}.${String(ns % 1_000_000_000n).padStart(9, '0')}`;
}
