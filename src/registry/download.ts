/**
 * One blob on its way to a file: its bytes can be read in order while they come, and a body that breaks goes on from
 * where it broke. A big blob whose connection is slow comes by several ranges at once. Digests are checked by whoever
 * reads; this class knows sizes.
 */
import { constants } from 'node:fs';
import { open, readFile, rm, type FileHandle } from 'node:fs/promises';
import type { Digest } from '../digest.js';
import { digestMismatch, LayerStoreError, systemError } from '../errors.js';
import { connectionError, registryError } from './errors.js';
import type { BlobSource, ByteRange, Caller } from './registry.js';
import type { RangeSettings } from './settings.js';
import type { Answer } from './transport.js';

export interface DownloadRequest {
  readonly digest: Digest;
  readonly size: number;
  /** The file that grows. One that is there already is gone on with. */
  readonly path: string;
  /** Servers that may have it, asked in this order. */
  readonly sources: readonly BlobSource[];
  readonly retries: number;
  readonly ranges: RangeSettings;
  /** Bytes of the file that were fetched, the failures so far, and why it pauses where it does. */
  readonly onProgress: (progress: DownloadProgress) => void;
}

export interface DownloadProgress {
  readonly transferred: number;
  readonly failures: number;
  readonly pause: { inMs: number; reason: string } | undefined;
}

/** Bytes that are missing, from `at` to `end`. A worker moves `at`; a split moves `end`. */
interface Part {
  at: number;
  end: number;
}

/** What is written to the file in one go. */
const WRITE_BYTES = 512 * 1024;
/** How far a file with holes gets between two notes of its state. */
const STATE_BYTES = 4 * 1024 * 1024;
/** So much further on, and earlier failures are forgotten. */
const FORGIVEN_BYTES = 1024 * 1024;

/** Owns the descriptors of its file and of the note beside it from `run` to `close`. */
export class Download {
  readonly digest: Digest;
  readonly size: number;
  readonly #request: DownloadRequest;
  readonly #abort = new AbortController();
  #file: FileHandle | undefined;
  /** Open once the file may have holes. */
  #state: FileHandle | undefined;
  #recorded = 0;
  /** Every byte before it is in the file. */
  #contiguous = 0;
  /** Bytes in the file, also those that lie ahead. */
  #transferred = 0;
  /** Parts that nobody fetches yet, in their order; and those that are fetched. */
  #waiting: Part[] = [];
  #active = new Set<Part>();
  #workers = new Set<Promise<void>>();
  #parallel: 'possible' | 'on' | 'off' = 'possible';
  #source = 0;
  #etag: string | undefined;
  #failures = 0;
  #forgiveAt = 0;
  #answers = 0;
  /** Whether the file had bytes before. */
  #resumed = false;
  #error: unknown;
  #settled = false;
  #wake: () => void = () => undefined;
  #news = new Promise<void>((resolve) => (this.#wake = resolve));
  #running: Promise<void> | undefined;

  constructor(request: DownloadRequest) {
    this.#request = request;
    this.digest = request.digest;
    this.size = request.size;
  }

  /** Whether the bytes come from more than one answer, so that they may not belong together. */
  get mixed(): boolean {
    return this.#resumed || this.#answers > 1;
  }

  get complete(): boolean {
    return this.#settled && this.#error === undefined;
  }

  get path(): string {
    return this.#request.path;
  }

  /** Begins to fetch; resolves when every byte is there. Further calls give the same promise. */
  run(): Promise<void> {
    this.#running ??= this.#fetch();
    return this.#running;
  }

  /**
   * Resolves when more than `position` bytes of the file, or all, are there: with their number. Rejects as `run` does, also
   * where a download failed at its very end.
   */
  async readable(position: number): Promise<number> {
    for (;;) {
      if (this.#contiguous > position) return this.#contiguous;
      if (this.#settled && this.#error !== undefined) throw this.#error;
      if (this.#settled || (position > 0 && this.#contiguous === this.size)) return this.#contiguous;
      await this.#news;
    }
  }

  /** Stops what runs. The file stays, for the next time. */
  async close(reason: unknown): Promise<void> {
    this.#abort.abort(reason);
    await this.#running?.catch(() => undefined); // whoever waits for it hears of it
    if (!this.#settled) {
      this.#error = reason;
      this.#settled = true;
      this.#tell();
    }
    const files = [this.#file, this.#state];
    this.#file = this.#state = undefined;
    for (const file of files) await file?.close();
  }

  /** Stops and removes the file. */
  async discard(): Promise<void> {
    await this.close(new Error('the download is given up'));
    await rm(this.#request.path, { force: true });
    await rm(statePath(this.#request.path), { force: true });
  }

  async #fetch(): Promise<void> {
    try {
      await this.#open();
      this.#waiting = this.#contiguous < this.size ? [{ at: this.#contiguous, end: this.size }] : [];
      this.#forgiveAt = this.#contiguous + FORGIVEN_BYTES;
      this.#report(undefined);
      do {
        this.#startWorker(true);
        while (this.#workers.size > 0) await Promise.race(this.#workers);
        if (this.#error !== undefined) throw this.#error;
        // A worker beside the first may have given its part back when that one had ended.
      } while (this.#waiting.length > 0);
      await rm(statePath(this.#request.path), { force: true });
    } catch (error) {
      this.#error ??= error;
      throw this.#error;
    } finally {
      this.#settled = true;
      this.#tell();
    }
  }

  async #open(): Promise<void> {
    const { path } = this.#request;
    try {
      this.#file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
      const length = (await this.#file.stat()).size;
      // Beyond the recorded place the file may have holes.
      const trusted = Math.min(length, await readState(path), this.size);
      this.#contiguous = trusted;
      this.#transferred = trusted;
      this.#resumed = trusted > 0;
      if (length > this.size) await this.#file.truncate(this.size);
    } catch (error) {
      throw systemError(error, 'keep a blob on disk');
    }
  }

  #startWorker(first: boolean): void {
    const worker: Promise<void> = this.#work(first)
      .catch((error: unknown) => {
        this.#error ??= error;
        this.#abort.abort(error);
      })
      .finally(() => this.#workers.delete(worker));
    this.#workers.add(worker);
  }

  /** Fetches parts until none is left. Only the first worker takes pauses; the others leave when it gets difficult. */
  async #work(first: boolean): Promise<void> {
    for (;;) {
      const part = first || this.#parallel === 'on' ? this.#waiting.shift() : undefined;
      if (part === undefined) return;
      this.#active.add(part);
      try {
        if (first) await this.#fetchPart(part);
        else if (!(await this.#fetchBeside(part))) return;
      } finally {
        this.#active.delete(part);
        if (part.at < part.end) this.#giveBack(part);
      }
    }
  }

  #giveBack(part: Part): void {
    this.#waiting.push({ ...part });
    this.#waiting.sort((a, b) => a.at - b.at);
  }

  /** One part whole, with as many tries as it takes and is allowed. */
  async #fetchPart(part: Part): Promise<void> {
    const { sources, retries } = this.#request;
    while (part.at < part.end) {
      const source = sources[this.#source] as BlobSource;
      let failure: LayerStoreError;
      try {
        const answer = await source.open(this.#rangeOf(part), retries, this.#caller());
        const kind = this.#kindOf(answer, part);
        if (kind !== 'next') await this.#beginAgain(part);
        if (kind === 'other') answer.body.destroy();
        else await this.#take(answer, part, true);
        if (part.at >= part.end) return;
        failure = this.#broken(source, undefined);
      } catch (error) {
        this.#abort.signal.throwIfAborted();
        if (!(error instanceof LayerStoreError)) {
          failure = this.#broken(source, error);
        } else if (error.status === 416 && part.at > 0) {
          await this.#beginAgain(part);
          failure = error;
        } else {
          // Asked for often enough by now: only another server may do better, and none does where the fault is ours.
          if (error.code === 'ERR_SYSTEM' || !this.#nextSource()) throw error;
          continue;
        }
      }
      if (this.#contiguous >= this.#forgiveAt) this.#failures = 0;
      this.#forgiveAt = this.#contiguous + FORGIVEN_BYTES;
      this.#failures++;
      if (this.#failures > retries) {
        if (!this.#nextSource()) throw failure;
        continue;
      }
      this.#report(undefined);
      await source.pause(this.#failures - 1, failure, this.#caller());
    }
  }

  /** One range by a connection beside the first. False where this server is not to be asked for ranges any more. */
  async #fetchBeside(part: Part): Promise<boolean> {
    const source = this.#request.sources[this.#source] as BlobSource;
    try {
      const answer = await source.open(this.#rangeOf(part), 0, { ...this.#caller(), onRetry: () => undefined });
      if (!this.#isNext(answer, part)) {
        answer.body.destroy();
        this.#parallel = 'off';
        return false;
      }
      await this.#take(answer, part, false);
      return part.at >= part.end;
    } catch (error) {
      this.#abort.signal.throwIfAborted();
      if (error instanceof LayerStoreError && error.code === 'ERR_SYSTEM') throw error;
      // The first worker fetches what is missing here, in its own time: 429 is a wish for fewer connections.
      this.#parallel = 'off';
      return false;
    }
  }

  #rangeOf({ at, end }: Part): ByteRange | undefined {
    if (at === 0 && end === this.size) return undefined;
    return { start: at, end: end === this.size ? undefined : end, etag: this.#etag };
  }

  /** What an answer holds: the bytes that come next, all of them from the beginning, or a range that nobody asked for. */
  #kindOf(answer: Answer, part: Part): 'next' | 'all' | 'other' {
    if (answer.status === 206) return this.#isNext(answer, part) ? 'next' : 'other';
    const length = answer.headers['content-length'];
    if (length !== undefined && Number(length) !== this.size) {
      answer.body.destroy();
      throw this.#wrongSize(length);
    }
    return part.at > 0 || part.end < this.size ? 'all' : 'next';
  }

  #isNext({ status, headers }: Answer, part: Part): boolean {
    const range = /^bytes ([0-9]+)-[0-9]+\/([0-9]+|\*)$/.exec(headers['content-range'] ?? '');
    if (status !== 206 || range === null) return false;
    return Number(range[1]) === part.at && (range[2] === '*' || Number(range[2]) === this.size);
  }

  /** Everything once more: what is there does not go together with what comes, and the next answer brings all. */
  async #beginAgain(part: Part): Promise<void> {
    this.#parallel = 'off';
    // Workers beside this one may still write; their bytes are overwritten, in the order of the file.
    for (const other of this.#active) if (other !== part) other.end = other.at;
    this.#waiting = [];
    [part.at, part.end] = [0, this.size];
    this.#etag = undefined;
    // Readers keep what they have read: the bytes of one digest are the same, and whoever checks them says so if not.
    this.#transferred = 0;
    await this.#recordState(0);
  }

  /** Writes a body from `part.at` on, as far as the part goes. */
  async #take(answer: Answer, part: Part, measured: boolean): Promise<void> {
    this.#answers++;
    this.#etag = answer.headers['etag'];
    const ranges = answer.status === 206 || answer.headers['accept-ranges'] === 'bytes';
    const started = performance.now();
    const from = part.at;
    let buffered: Buffer[] = [];
    let bytes = 0;
    const flush = async (): Promise<void> => {
      const chunks = buffered;
      buffered = [];
      const length = bytes;
      bytes = 0;
      if (length > 0) await this.#write(chunks, length, part);
    };
    try {
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        const room = Math.max(0, part.end - part.at - bytes);
        const taken = chunk.length > room ? chunk.subarray(0, room) : chunk;
        if (chunk.length > room && part.end === this.size && answer.status === 200)
          throw this.#wrongSize(`more than ${this.size}`);
        buffered.push(taken);
        bytes += taken.length;
        if (bytes >= WRITE_BYTES || part.at + bytes >= part.end) {
          await flush();
          if (measured && ranges) await this.#considerRanges(part, part.at - from, performance.now() - started);
        }
        if (part.at >= part.end && part.end < this.size) break; // the rest is fetched by others
      }
    } finally {
      await flush();
    }
  }

  async #write(chunks: Buffer[], length: number, part: Part): Promise<void> {
    const position = part.at;
    const file = this.#file as FileHandle;
    try {
      for (let left = chunks, at = position; left.length > 0;) {
        const { bytesWritten } = await file.writev(left, at);
        at += bytesWritten;
        left = dropBytes(left, bytesWritten);
      }
    } catch (error) {
      throw systemError(error, 'keep a blob on disk', 'make room');
    }
    part.at = position + length;
    this.#transferred += length;
    await this.#advance();
    this.#report(undefined);
  }

  /** The first byte that is missing has moved: readers hear of it, and the next process of it. */
  async #advance(): Promise<void> {
    const missing = [...this.#waiting, ...this.#active].filter(({ at, end }) => at < end).map(({ at }) => at);
    const before = this.#contiguous;
    this.#contiguous = Math.max(before, Math.min(this.size, ...missing));
    if (this.#contiguous === before) return;
    this.#tell();
    if (this.#state !== undefined && this.#contiguous >= this.#recorded + STATE_BYTES)
      await this.#recordState(this.#contiguous);
  }

  /** A slow connection with much before it: what is left is cut into ranges, and others help. */
  async #considerRanges(part: Part, fetched: number, elapsed: number): Promise<void> {
    const { rangeBytes, connections, probeMs, slowRate } = this.#request.ranges;
    const left = part.end - part.at;
    if (this.#parallel !== 'possible' || elapsed < probeMs || left < 2 * rangeBytes) return;
    if ((fetched / elapsed) * 1000 >= slowRate) {
      this.#parallel = 'off'; // one connection is as fast as what reads it
      return;
    }
    this.#parallel = 'on';
    await this.#recordState(this.#contiguous);
    const end = part.end;
    part.end = part.at + rangeBytes;
    for (let at = part.end; at < end; at += rangeBytes) this.#waiting.push({ at, end: Math.min(end, at + rangeBytes) });
    for (let count = 1; count < connections; count++) this.#startWorker(false);
  }

  /** Noted before anything lies beyond it, so that a file with holes is never taken for a whole one. */
  async #recordState(contiguous: number): Promise<void> {
    this.#recorded = contiguous;
    try {
      this.#state ??= await open(statePath(this.#request.path), 'w', 0o600);
      await this.#state.write(String(contiguous).padStart(16, '0'), 0);
    } catch (error) {
      throw systemError(error, 'keep a blob on disk');
    }
  }

  #nextSource(): boolean {
    if (this.#source + 1 >= this.#request.sources.length) return false;
    this.#source++;
    this.#failures = 0;
    this.#etag = undefined;
    return true;
  }

  #caller(): Caller {
    return { signal: this.#abort.signal, onRetry: (pause) => this.#report(pause) };
  }

  #report(pause: DownloadProgress['pause']): void {
    this.#request.onProgress({ transferred: this.#transferred, failures: this.#failures, pause });
  }

  #tell(): void {
    const wake = this.#wake;
    this.#news = new Promise((resolve) => (this.#wake = resolve));
    wake();
  }

  #broken({ host }: BlobSource, error: unknown): LayerStoreError {
    const action = `fetch the blob ${this.digest}`;
    if (error !== undefined) return connectionError(action, host, error);
    return registryError(`cannot ${action}: ${host} ended it early`, { host });
  }

  /** @param found what the registry says, or sends */
  #wrongSize(found: string): LayerStoreError {
    return digestMismatch(`the size of the blob ${this.digest} in bytes`, found, this.size);
  }
}

/** Where it is written how far a file with holes can be trusted; without it, a file is whole as far as it goes. */
export function statePath(path: string): string {
  return `${path}.state`;
}

async function readState(path: string): Promise<number> {
  let text: string;
  try {
    text = await readFile(statePath(path), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Infinity;
    throw error;
  }
  return /^[0-9]+$/.test(text) ? Number(text) : 0;
}

function dropBytes(chunks: Buffer[], bytes: number): Buffer[] {
  let left = bytes;
  let index = 0;
  while (index < chunks.length && left >= (chunks[index] as Buffer).length) left -= (chunks[index++] as Buffer).length;
  const rest = chunks.slice(index);
  if (left > 0 && rest[0] !== undefined) rest[0] = rest[0].subarray(left);
  return rest;
}
