/** Everything that is counted and checked about the bytes of one tar on its way in: size, digests, limits, room, progress. */
import { createHash } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import type { DiffID, Digest } from '../../digest.js';
import { LayerStoreError } from '../../errors.js';
import { overLimit } from '../../tar/errors.js';
import type { IngestRequest } from '../engine.js';
import type { CompleteLimits } from '../limits.js';
import type { Decoded } from './decode.js';
import { ProgressMeter } from './progress.js';
import type { SourceReader } from './source.js';

const CHECK_SPACE_EVERY = 32 * 1024 * 1024;
const RATIO_FROM = 4 * 1024 ** 3;

export class TarMeter {
  readonly #source: SourceReader;
  readonly #request: IngestRequest;
  readonly #limits: CompleteLimits;
  readonly #progress: ProgressMeter;
  readonly #hash = createHash('sha256');
  #size = 0;
  #entries = 0;
  #implied = 0;
  #nextSpaceCheck = 0;

  constructor(source: SourceReader, request: IngestRequest, limits: CompleteLimits) {
    this.#source = source;
    this.#request = request;
    this.#limits = limits;
    this.#progress = new ProgressMeter(request.onProgress, source.totalBytes);
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
    if (blob !== undefined && bytesRead > blob.size) throw this.#blobSizeError(blob.size, 'more');
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
    this.#progress.report(this.#source.bytesRead, this.#size, this.#entries);
  }

  finish(): void {
    this.#progress.finish(this.#source.bytesRead, this.#size, this.#entries);
  }

  /** Once, at the end: the digests, held against what the request expects. */
  digests(decoded: Decoded): { diffID: DiffID; blobDigest?: Digest } {
    const diffID = `sha256:${this.#hash.digest('hex')}` as DiffID;
    const { blob, diffID: expected } = this.#request;
    if (blob !== undefined && this.#source.bytesRead !== blob.size) throw this.#blobSizeError(blob.size, 'fewer');
    const blobDigest = this.#source.digest() ?? (decoded.compression === 'none' ? diffID : undefined);
    if (blob !== undefined && blobDigest !== blob.digest) {
      throw mismatch('the layer as it came', blob.digest, blobDigest ?? 'none');
    }
    if (expected !== undefined && diffID !== expected) throw mismatch('the uncompressed tar', expected, diffID);
    return { diffID, ...(blobDigest === undefined ? {} : { blobDigest }) };
  }

  #blobSizeError(size: number, which: 'more' | 'fewer'): LayerStoreError {
    return new LayerStoreError(
      'ERR_DIGEST_MISMATCH',
      `the layer has ${which} bytes than its descriptor says: ${String(this.#source.bytesRead)} instead of ${String(size)}; fetch it again`,
    );
  }
}

function mismatch(what: string, expected: string, found: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_DIGEST_MISMATCH',
    `${what} has the digest ${found}, not ${expected} as expected; fetch it again`,
  );
}
