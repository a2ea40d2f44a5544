/** Ingest: one pass from a tar's bytes to a layer's directory, its digests and its tar-split record. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DiffID, Digest } from '../../digest.js';
import { digestMismatch, LayerStoreError } from '../../errors.js';
import { ByteReader } from '../../tar/byte-reader.js';
import { badTar, overLimit, shown } from '../../tar/errors.js';
import { treePath } from '../../tar/path.js';
import { TarReader, type TarEntry } from '../../tar/reader.js';
import { defined } from '../../util/defined.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../../util/throttle.js';
import type { IngestRequest, IngestResult, TarSource } from '../engine.js';
import { resolveLimitsFor, type CompleteLimits } from '../limits.js';
import { formatValue } from '../../util/quote.js';
import { decode, type Decoded } from './compression.js';
import { Crc64, crc64 } from './crc64.js';
import * as fs from './fs.js';
import { checkDevice, checkLinkTarget, checkNumbers, entryPath, nameKind, NO_ID, setByMaker } from './names.js';
import { SourceReader } from './source.js';
import { SplitWriter } from './tar-split.js';
import { TreeRoot } from './tree-root.js';
import { TreeWriter, type FileSink } from './tree-writer.js';

const SMALL_FILE = 128 * 1024;
/** What a replacement costs beside the content it keeps: counted, so that entries of one name cannot fill memory. */
const REPLACEMENT_BYTES = 4096;

/** See {@link Engine.ingest}. */
export async function ingest(source: TarSource, request: IngestRequest): Promise<IngestResult> {
  const hash = request.blob !== undefined || request.hashBlob === true;
  const reader = await SourceReader.open(source, { hash, signal: request.signal });
  let job: IngestJob | undefined;
  try {
    const limits = await resolveLimitsFor(request.directory, request.limits);
    job = await IngestJob.open(reader, request, limits);
    const result = await job.run();
    job = undefined;
    return result;
  } catch (error) {
    // An abort wins over whatever it made fail.
    request.signal?.throwIfAborted();
    throw error;
  } finally {
    await reader.close();
    await job?.abort();
  }
}

class IngestJob {
  readonly #source: SourceReader;
  readonly #request: IngestRequest;
  readonly #limits: CompleteLimits;
  readonly #root: TreeRoot;
  readonly #writer: TreeWriter;
  readonly #split: SplitWriter | undefined;
  readonly #meter: TarMeter;
  #keptFolder: string | undefined;
  #keptFiles = 0;
  #keptBytes = 0;
  #ignoredOwners = 0;

  private constructor(
    source: SourceReader,
    request: IngestRequest,
    limits: CompleteLimits,
    root: TreeRoot,
    split: SplitWriter | undefined,
  ) {
    this.#source = source;
    this.#request = request;
    this.#limits = limits;
    this.#root = root;
    this.#split = split;
    this.#meter = new TarMeter(source, request, limits);
    this.#writer = new TreeWriter(root, {
      whiteouts: request.whiteouts,
      privilege: request.privilege ?? 'full',
      onImplied: () => {
        this.#meter.countImplied();
      },
      onReplaced: (path, content, size) => this.#replaced(path, content, size),
      signal: request.signal,
    });
  }

  static async open(source: SourceReader, request: IngestRequest, limits: CompleteLimits): Promise<IngestJob> {
    const root = await TreeRoot.open(request.directory);
    try {
      const split = request.tarSplit === undefined ? undefined : await SplitWriter.open(request.tarSplit);
      return new IngestJob(source, request, limits, root, split);
    } catch (error) {
      await root.close();
      throw error;
    }
  }

  async run(): Promise<IngestResult> {
    await this.#meter.checkSpace();
    const decoded = await decode(this.#source, this.#limits);
    const bytes = new ByteReader(this.#meter.chunks(decoded));
    const { maxHeaderBytes, maxXattrs, maxXattrBytes } = this.#limits;
    const tar = new TarReader(bytes, { maxHeaderBytes, maxXattrs, maxXattrBytes, keepRaw: true });
    for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
      this.#request.signal?.throwIfAborted();
      // A global header is no entry of the tree.
      if (entry.type !== 'g') this.#meter.countEntry(entry.offset);
      await this.#split?.segment(tar.takeRaw());
      await this.#entry(tar, entry);
      await this.#writer.settle();
      this.#meter.report();
    }
    await this.#split?.segment(tar.takeRaw());
    for (let rest = await tar.trailing(SMALL_FILE); rest !== undefined; rest = await tar.trailing(SMALL_FILE))
      await this.#keep(rest);
    await this.#writer.finish();
    const result = this.#result(decoded);
    await this.#split?.finish({
      path: (name) => treePath(name, 0),
      read: (path) => this.#root.readFile(path),
      find: (path) => this.#root.direct(path),
    });
    await this.#close();
    this.#meter.finish();
    return result;
  }

  async abort(): Promise<void> {
    await this.#writer.abandon();
    await this.#split?.abort();
    await this.#close();
  }

  async #close(): Promise<void> {
    await this.#root.close();
    if (this.#keptFolder !== undefined) await rm(this.#keptFolder, { recursive: true, force: true });
  }

  async #entry(tar: TarReader, entry: TarEntry): Promise<void> {
    if (entry.type === 'g') return;
    const path = entryPath(entry.name, this.#limits, entry.offset);
    const kind = nameKind(path, entry.offset);
    checkNumbers(entry);
    Object.assign(entry, setByMaker(entry, this.#request.privilege ?? 'full'));
    switch (kind.kind) {
      case 'whiteout':
        return this.#notInTree(tar, entry, await this.#writer.whiteout(kind.target, entry));
      case 'opaque':
        return this.#notInTree(tar, entry, await this.#writer.opaque(kind.directory));
      case 'dropped':
        return this.#notInTree(tar, entry, false);
      case 'file':
        return this.#file(tar, entry, path);
    }
  }

  async #file(tar: TarReader, entry: TarEntry, path: string): Promise<void> {
    if (path === '') {
      // As Docker: owner, mode and times of the root are the store's business.
      if (entry.type === '5') return;
      throw new LayerStoreError(
        'ERR_UNSAFE_PATH',
        `the tar names "${shown(entry.name)}", the root itself, as something else than a directory`,
        {
          path: shown(entry.name),
          offset: entry.offset,
        },
      );
    }
    if (entry.uid === NO_ID || entry.gid === NO_ID) this.#ignoredOwners++;
    switch (entry.type) {
      case '0':
      case '7':
      case 'S':
        return this.#regularFile(tar, entry, path);
      case '1': {
        const target = entryPath(entry.linkName, this.#limits, entry.offset);
        if (!(await this.#writer.hardLink(path, entry, target))) return;
        break;
      }
      case '2':
        checkLinkTarget(entry, this.#limits);
        await this.#writer.symbolicLink(path, entry);
        break;
      case '3':
      case '4':
        checkDevice(entry);
        await this.#writer.node(path, entry);
        break;
      case '6':
        await this.#writer.node(path, entry);
        break;
      case '5':
        await this.#writer.directory(path, entry);
        break;
      default:
        throw badTar(
          `"${shown(entry.name)}" is of the unknown type ${formatValue(entry.type)}`,
          entry.offset,
          entry.name,
        );
    }
    // Docker reads back the file of every entry with a size; one that has no data of its own must have no such line.
    if (entry.size === 0 && !this.#writer.viaLink) await this.#split?.file(entry.name, 0, undefined);
  }

  async #regularFile(tar: TarReader, entry: TarEntry, path: string): Promise<void> {
    if (entry.regions === undefined && entry.size <= SMALL_FILE) {
      const content = await tar.allContent();
      await this.#writer.smallFile(path, entry, content);
      // As in #content.
      if (!this.#writer.viaLink)
        await this.#split?.file(entry.name, entry.size, entry.size === 0 ? undefined : crc64(content));
      else await this.#keep(content);
      return;
    }
    const sink = await this.#writer.file(path, entry);
    try {
      if (entry.regions !== undefined) await this.#sparseContent(tar, entry, sink);
      else await this.#content(tar, entry, sink);
    } finally {
      await sink.end();
    }
  }

  async #content(tar: TarReader, entry: TarEntry, sink: FileSink): Promise<void> {
    // Read back by its name in the tar, which must lead to the same file whatever links are there at the end.
    const readable = !this.#writer.viaLink;
    const crc = new Crc64();
    for (let chunk = await tar.content(); chunk !== undefined; chunk = await tar.content()) {
      this.#request.signal?.throwIfAborted();
      await sink.write(chunk);
      if (!readable) await this.#keep(chunk);
      else if (this.#split !== undefined) crc.update(chunk);
    }
    if (readable) await this.#split?.file(entry.name, entry.size, crc.digest());
  }

  async #sparseContent(tar: TarReader, entry: TarEntry, sink: FileSink): Promise<void> {
    await this.#keep(tar.takeRaw());
    for (const { offset, length } of entry.regions ?? []) {
      for (let done = 0; done < length;) {
        this.#request.signal?.throwIfAborted();
        const chunk = await tar.content(length - done);
        if (chunk === undefined)
          throw badTar('a sparse file has less data than its map says', entry.offset, entry.name);
        await sink.writeAt(chunk, offset + done);
        await this.#keep(chunk);
        done += chunk.length;
      }
    }
    // What is stored beyond the regions belongs to nothing, but to the tar.
    for (let chunk = await tar.content(); chunk !== undefined; chunk = await tar.content()) await this.#keep(chunk);
  }

  /** A whiteout or the like: a line in the record where it left a mark in the tree, but no file to read back. */
  async #notInTree(tar: TarReader, entry: TarEntry, marked: boolean): Promise<void> {
    if (entry.regions !== undefined) await this.#keep(tar.takeRaw());
    for (let chunk = await tar.content(); chunk !== undefined; chunk = await tar.content()) await this.#keep(chunk);
    if (marked && !this.#writer.viaLink && entry.size === 0 && entry.regions === undefined)
      await this.#split?.file(entry.name, 0, undefined);
  }

  /** Bytes that go into the record because they cannot be read back. */
  async #keep(bytes: Buffer): Promise<void> {
    if (this.#split === undefined || bytes.length === 0) return;
    this.#countKept(bytes.length);
    await this.#split.segment(bytes);
  }

  #countKept(bytes: number): void {
    this.#keptBytes += bytes;
    if (this.#keptBytes > this.#limits.maxKeptBytes) {
      throw overLimit(
        'maxKeptBytes',
        this.#limits.maxKeptBytes,
        'the tar holds more content that cannot be read back from the tree',
        this.#meter.size,
      );
    }
  }

  async #replaced(path: string, content: Buffer | undefined, size: number): Promise<void> {
    if (this.#split === undefined) return;
    this.#countKept(REPLACEMENT_BYTES);
    let copy: string | undefined;
    if (content !== undefined) {
      this.#countKept(size);
      this.#keptFolder ??= await this.#makeKeptFolder();
      copy = join(this.#keptFolder, String(this.#keptFiles++));
      await fs.copyFile(content, copy, 0);
    }
    this.#split.replaced(path, copy);
  }

  /** Beside the record, which the store removes with all that is there, where it is a file. */
  async #makeKeptFolder(): Promise<string> {
    const { tarSplit } = this.#request;
    return mkdtemp(
      tarSplit !== undefined && 'path' in tarSplit ? `${tarSplit.path}.kept-` : join(tmpdir(), 'layerstore-kept-'),
    );
  }

  #result(decoded: Decoded): IngestResult {
    return {
      ...this.#meter.digests(decoded),
      tarSize: this.#meter.size,
      size: this.#writer.size,
      entries: this.#meter.entries,
      compression: decoded.compression,
      blobSize: this.#source.bytesRead,
      ignoredXattrs: this.#writer.ignoredXattrs,
      ignoredOwners: this.#ignoredOwners,
    };
  }
}

/** Everything that is counted and checked about the bytes of one tar on its way in: size, digests, limits, room, progress. */
const CHECK_SPACE_EVERY = 32 * 1024 * 1024;
const RATIO_FROM = 4 * 1024 ** 3;

class TarMeter {
  readonly #source: SourceReader;
  readonly #request: IngestRequest;
  readonly #limits: CompleteLimits;
  readonly #due = atMostEvery(PROGRESS_INTERVAL);
  readonly #hash = createHash('sha256');
  #size = 0;
  #entries = 0;
  #implied = 0;
  #nextSpaceCheck = 0;

  constructor(source: SourceReader, request: IngestRequest, limits: CompleteLimits) {
    this.#source = source;
    this.#request = request;
    this.#limits = limits;
  }

  /** Bytes of the tar so far. */
  get size(): number {
    return this.#size;
  }

  get entries(): number {
    return this.#entries;
  }

  countEntry(offset: number): void {
    const { maxEntries } = this.#limits;
    if (++this.#entries + this.#implied > maxEntries) {
      throw overLimit('maxEntries', maxEntries, 'the tar has more entries', offset);
    }
  }

  /** A directory that no entry names and some need: it costs as much as an entry. */
  countImplied(): void {
    const { maxEntries } = this.#limits;
    if (this.#entries + ++this.#implied > maxEntries) {
      throw overLimit('maxEntries', maxEntries, 'the tar has more entries, and directories that they need');
    }
  }

  /** The bytes of the tar as they are, each counted, hashed and held against the limits before it is given on. */
  async *chunks(decoded: Decoded): AsyncGenerator<Buffer> {
    for await (const chunk of decoded.chunks) {
      this.#hash.update(chunk);
      this.#size += chunk.length;
      this.#checkSize(decoded);
      if (this.#size >= this.#nextSpaceCheck) await this.checkSpace();
      this.report();
      yield chunk;
    }
  }

  #checkSize(decoded: Decoded): void {
    const { maxBytes, maxRatio } = this.#limits;
    const { bytesRead } = this.#source;
    const { blob } = this.#request;
    if (this.#size > maxBytes) throw overLimit('maxBytes', maxBytes, 'the tar is larger', this.#size);
    if (decoded.compression !== 'none' && this.#size > RATIO_FROM && this.#size > bytesRead * maxRatio) {
      const what = `${String(bytesRead)} compressed bytes gave ${String(this.#size)}`;
      throw overLimit('maxRatio', maxRatio, what, this.#size);
    }
    if (blob !== undefined && bytesRead > blob.size) throw this.#blobSizeError(blob.size);
  }

  async checkSpace(): Promise<void> {
    this.#nextSpaceCheck = this.#size + CHECK_SPACE_EVERY;
    const { minFreeBytes } = this.#limits;
    if (minFreeBytes === 0) return;
    const { directory } = this.#request;
    const { bavail, bsize } = await statfs(directory);
    const free = bavail * bsize;
    if (free >= minFreeBytes) return;
    throw overLimit('minFreeBytes', minFreeBytes, `the file system of "${directory}" has ${String(free)} bytes left`);
  }

  report(): void {
    if (this.#request.onProgress !== undefined && this.#due()) this.finish();
  }

  finish(): void {
    const { bytesRead, totalBytes } = this.#source;
    const counts = { bytesRead, ...defined({ totalBytes }), bytesUnpacked: this.#size, entries: this.#entries };
    this.#request.onProgress?.(counts);
  }

  /** Once, at the end: the digests, held against what the request expects. */
  digests(decoded: Decoded): { diffID: DiffID; blobDigest?: Digest } {
    const diffID = `sha256:${this.#hash.digest('hex')}` as DiffID;
    const { blob, diffID: expected } = this.#request;
    if (blob !== undefined && this.#source.bytesRead !== blob.size) throw this.#blobSizeError(blob.size);
    const blobDigest = this.#source.digest() ?? (decoded.compression === 'none' ? diffID : undefined);
    if (blob !== undefined && blobDigest !== blob.digest) {
      throw digestMismatch('the digest of the blob', blobDigest, blob.digest);
    }
    if (expected !== undefined && diffID !== expected) throw digestMismatch('the diff id of the tar', diffID, expected);
    return { diffID, ...defined({ blobDigest }) };
  }

  #blobSizeError(size: number): LayerStoreError {
    return digestMismatch('the size of the blob in bytes', this.#source.bytesRead, size);
  }
}
