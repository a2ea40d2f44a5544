/** One layer's record in the making: a directory below `tmp/` that one rename turns into `sha256/<hex>`. */
import { createWriteStream } from 'node:fs';
import { lstat, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { ChainID, DiffID } from '../digest.js';
import { parseChainID, parseDiffID } from '../digest.js';
import type { BatchOp } from '../engine/engine.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { formatValue } from '../util/quote.js';
import { LAYER_FILES, MODES, layerName, temporaryName } from './layout.js';
import type { Descriptor, MetadataTransaction } from './metadata-store.js';
import type { RecordDirectory } from './record-directory.js';
import { readCacheID, writeDescriptor } from './record-text.js';

type State = 'open' | 'committing' | 'over';

/**
 * The setters keep values in memory; `commit` writes, syncs and renames them in one batch. What is on disk before that
 * rename is a directory that nothing lists as a layer.
 */
export class FileTransaction implements MetadataTransaction {
  readonly #place: RecordDirectory;
  /** Relative to the layerdb. */
  readonly name: string;
  readonly #path: string;
  readonly #files = new Map<string, string>();
  #state: State = 'open';
  #made = false;
  #hasTarSplit = false;
  /** Settles when the tar-split file is complete. */
  #tarSplitDone: Promise<void> | undefined;
  #tarSplitStream: Writable | undefined;
  #committing: Promise<void> | undefined;

  constructor(place: RecordDirectory) {
    this.#place = place;
    this.name = temporaryName('write-set');
    this.#path = place.at(this.name);
    place.busy.add(this.name);
  }

  async setSize(bytes: number): Promise<void> {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw invalidArgument(`a layer's size is a count of bytes, not ${bytes}`);
    }
    this.#set(LAYER_FILES.size, String(bytes));
  }

  async setParent(parent: ChainID): Promise<void> {
    this.#set(LAYER_FILES.parent, parseChainID(parent));
  }

  async setDiffID(id: DiffID): Promise<void> {
    this.#set(LAYER_FILES.diff, parseDiffID(id));
  }

  async setCacheID(id: string): Promise<void> {
    try {
      if (readCacheID(id) !== id) throw new Error('has blanks around it');
    } catch (cause) {
      throw new LayerStoreError('ERR_INVALID_ARGUMENT', `${formatValue(id)} is not a driver id`, { cause });
    }
    this.#set(LAYER_FILES.cacheID, id);
  }

  async setDescriptor(descriptor: Descriptor): Promise<void> {
    this.#set(LAYER_FILES.descriptor, writeDescriptor(descriptor));
  }

  async tarSplitWriter(compressInput: boolean): Promise<Writable> {
    const { path } = await this.tarSplitTarget();
    const file = createWriteStream(path, { flags: 'wx', mode: MODES.file });
    const writer = compressInput ? gzipInto(file) : file;
    this.#tarSplitStream = writer;
    this.#tarSplitDone = finished(writer, { readable: false });
    // The writer gets the stream's error. commit awaits this promise later; until then a rejection must not count as unhandled.
    this.#tarSplitDone.catch(() => undefined);
    return writer;
  }

  async tarSplitTarget(): Promise<{ path: string }> {
    this.#mustBeOpen();
    if (this.#hasTarSplit) {
      throw invalidArgument(`the record "${this.name}" has its tar-split file already`);
    }
    this.#hasTarSplit = true;
    try {
      await this.#place.batch([{ op: 'mkdir', path: this.#path, mode: MODES.writeSet }]);
    } catch (error) {
      throw systemError(error, "make a directory for the layer's record", 'check space and rights there');
    }
    this.#made = true;
    return { path: join(this.#path, LAYER_FILES.tarSplit) };
  }

  async commit(id: ChainID): Promise<void> {
    const final = layerName(id);
    this.#mustBeOpen();
    for (const needed of [LAYER_FILES.cacheID, LAYER_FILES.diff, LAYER_FILES.size]) {
      if (!this.#files.has(needed)) {
        throw invalidArgument(`the record of ${id} is not complete: "${needed}" was never set`);
      }
    }
    this.#state = 'committing';
    this.#committing = this.#finish(this.#place.at(final), id);
    await this.#committing;
  }

  async #finish(final: string, id: ChainID): Promise<void> {
    try {
      await this.#tarSplitDone;
      await this.#publish(final, id);
    } catch (error) {
      this.#state = 'open';
      throw systemError(error, `publish the record of ${id}`);
    }
    this.#over();
  }

  async #publish(final: string, id: ChainID): Promise<void> {
    const place = this.#place;
    const path = this.#path;
    const ops: BatchOp[] = [];
    if (!this.#made) ops.push({ op: 'mkdir', path, mode: MODES.writeSet });
    for (const [name, data] of this.#files) {
      ops.push({ op: 'write', path: join(path, name), mode: MODES.file, data, sync: place.strict });
    }
    if (this.#hasTarSplit) {
      const tarSplit = join(path, LAYER_FILES.tarSplit);
      // An engine makes the file 0600; Docker gives it the mode of the other files.
      ops.push({ op: 'chmod', path: tarSplit, mode: MODES.file });
      ops.push(...place.syncs(tarSplit));
    }
    ops.push(...place.syncs(path));
    // A plain rename: it replaces an empty directory that a crash of Docker's left, and fails on one that holds anything.
    ops.push({ op: 'rename', path, dest: final }, ...place.syncs(dirname(final)));
    try {
      await this.#clearWay(final, id);
      await this.#place.batch(ops);
    } catch (error) {
      await this.#takeBack(final);
      throw error;
    }
  }

  /** A complete record of that name is the caller's mistake; an incomplete one is moved to where recovery finds it. */
  async #clearWay(final: string, id: ChainID): Promise<void> {
    if ((await statOf(final)) === undefined) return;
    const complete = await Promise.all(
      [LAYER_FILES.cacheID, LAYER_FILES.diff].map((name) => statOf(join(final, name))),
    );
    if (complete.every((stat) => stat !== undefined && stat.size > 0)) {
      throw new LayerStoreError('ERR_LAYER_IN_USE', `there is a record of ${id} already; remove that layer first`);
    }
    await rename(final, this.#place.at(temporaryName('bad')));
  }

  /** Only a sync can fail after the rename: then the record must not stay visible. */
  async #takeBack(final: string): Promise<void> {
    if ((await statOf(this.#path)) !== undefined) return;
    // The batch may have removed the directory itself, with nothing published.
    if ((await statOf(final)) === undefined) {
      this.#made = false;
      return;
    }
    await rename(final, this.#path);
    this.#made = true;
  }

  /** Puts this transaction's tar-split record in the place of another record's; one rename, nothing in between. */
  async giveTarSplit(id: ChainID): Promise<void> {
    this.#mustBeOpen();
    if (!this.#hasTarSplit) {
      throw invalidArgument(`"${this.name}" has no tar-split record to give to ${id}`);
    }
    try {
      await this.#tarSplitDone;
      const path = join(this.#path, LAYER_FILES.tarSplit);
      const dest = this.#place.at(layerName(id), LAYER_FILES.tarSplit);
      await this.#place.batch([
        { op: 'chmod', path, mode: MODES.file },
        ...this.#place.syncs(path),
        { op: 'rename', path, dest },
        ...this.#place.syncs(dirname(dest)),
      ]);
    } catch (error) {
      throw systemError(error, `replace the tar-split record of ${id}`);
    }
    this.#hasTarSplit = false;
  }

  async cancel(): Promise<void> {
    // A rename under way is not called back; the committer hears how it went.
    if (this.#state === 'committing') await this.#committing?.catch(() => undefined);
    if (this.#state === 'over') return;
    this.#over();
    if (this.#tarSplitStream !== undefined) {
      this.#tarSplitStream.destroy();
      await this.#tarSplitDone?.catch(() => undefined); // ends with the destruction that was asked for
    }
    try {
      await rm(this.#path, { recursive: true, force: true });
    } catch (error) {
      throw systemError(error, 'remove an unfinished record', 'the next open removes it');
    }
  }

  toString(): string {
    return this.#path;
  }

  #set(name: string, text: string): void {
    this.#mustBeOpen();
    this.#files.set(name, text);
  }

  #mustBeOpen(): void {
    if (this.#state !== 'open') {
      throw invalidArgument(`the transaction "${this.name}" is over: start a new one`);
    }
  }

  #over(): void {
    this.#state = 'over';
    this.#place.busy.delete(this.name);
  }
}

/** Plain bytes in, a gzip file out; it finishes when the file is closed. */
function gzipInto(file: Writable): Writable {
  const gzip = createGzip();
  const done = pipeline(gzip, file);
  // Reported through the callbacks below; without this an error between two writes would count as unhandled.
  done.catch(() => undefined);
  return new Writable({
    write(chunk: Buffer, _encoding, callback) {
      if (gzip.write(chunk)) callback();
      else
        void Promise.race([new Promise<void>((resolve) => gzip.once('drain', resolve)), done]).then(
          () => callback(),
          callback,
        );
    },
    final(callback) {
      gzip.end();
      done.then(() => callback(), callback);
    },
    destroy(error, callback) {
      gzip.destroy();
      done.then(
        () => callback(error),
        () => callback(error),
      );
    },
  });
}

async function statOf(path: string): Promise<{ size: number } | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
