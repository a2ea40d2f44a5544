/**
 * Assemble: the exact tar of a layer out of its tar-split record and its files. Also used by the native engine where the
 * record is a stream or the files are behind a driver's own DiffGetter.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { DiffID } from '../../digest.js';
import { invalidArgument, LayerStoreError, systemError } from '../../errors.js';
import { shown } from '../../tar/errors.js';
import { treePath } from '../../tar/path.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../../util/throttle.js';
import type { Assembled, AssembleRequest, AssembleToRequest, DiffGetter } from '../engine.js';
import { compressTo } from './compression.js';
import { Crc64 } from './crc64.js';
import * as fs from './fs.js';
import { readSplitEntries } from './tar-split.js';
import { TreeRoot } from './tree-root.js';
import { defined } from '../../util/defined.js';

/** Files up to this size are read whole, several ahead of what is given out. */
const SMALL_FILE = 128 * 1024;
const AHEAD = 16;
const AHEAD_BYTES = 4 * 1024 * 1024;
/** Small pieces are joined to chunks of about this size. */
const CHUNK = 64 * 1024;
const READ_SIZE = 256 * 1024;

/** See {@link Engine.assemble}. */
export async function assemble(request: AssembleRequest): Promise<Readable> {
  request.signal?.throwIfAborted();
  const chunks = assembled(request, () => undefined);
  return Readable.from(chunks, {
    objectMode: false,
    highWaterMark: 4 * CHUNK,
    ...defined({ signal: request.signal }),
  });
}

/** See {@link Engine.assembleTo}. */
export async function assembleTo(request: AssembleToRequest, fd: number): Promise<Assembled> {
  const { compression, signal, onProgress } = request;
  if (!Number.isInteger(fd) || fd < 0 || fd > 0x7fffffff) {
    throw invalidArgument(`cannot write the tar: fd must be a file descriptor, not ${String(fd)}`);
  }
  const result: Assembled = { bytes: 0, diffID: request.diffID };
  const due = atMostEvery(PROGRESS_INTERVAL);
  const report = (): void => onProgress?.({ bytesRead: result.bytes, bytesUnpacked: 0, entries: 0 });
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of assembled(request, (found) => (result.diffID = found))) {
      signal?.throwIfAborted();
      yield chunk;
      result.bytes += chunk.length;
      if (due()) report();
    }
    report();
  }
  if (compression !== undefined) {
    result.blob = await compressTo(counted(), compression, fd, signal);
    return result;
  }
  for await (const chunk of counted()) {
    try {
      await fs.writeAll(fd, chunk);
    } catch (error) {
      throw systemError(error, 'write the tar', 'check the space left and who reads it');
    }
  }
  return result;
}

/** See {@link Engine.recordedSize}. */
export async function recordedSize(
  tarSplit: AssembleRequest['tarSplit'],
  options: { signal?: AbortSignal } = {},
): Promise<number> {
  let size = 0;
  for await (const entry of readSplitEntries(tarSplit)) {
    options.signal?.throwIfAborted();
    size += entry.type === 2 ? entry.payload.length : entry.size;
  }
  return size;
}

/** Chunks of the tar, checked at its end. */
async function* assembled(request: AssembleRequest, onEnd: (diffID: DiffID) => void): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let held: Buffer[] = [];
  let bytes = 0;
  const tree = await LayerFiles.open(request.tree);
  try {
    for await (const piece of pieces(request, tree)) {
      request.signal?.throwIfAborted();
      hash.update(piece);
      held.push(piece);
      bytes += piece.length;
      if (bytes < CHUNK) continue;
      yield join(held);
      held = [];
      bytes = 0;
    }
  } finally {
    await tree.close();
  }
  const diffID = `sha256:${hash.digest('hex')}` as DiffID;
  if (diffID !== request.diffID) {
    throw new LayerStoreError(
      'ERR_LAYER_CORRUPT',
      `the layer does not give its tar any more: the digest is ${diffID} instead of ${request.diffID}; repair it from its tar`,
    );
  }
  // What is held back comes only now: whoever reads to the end has bytes that were checked.
  if (held.length > 0) yield join(held);
  onEnd(diffID);
}

function join(parts: readonly Buffer[]): Buffer {
  return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
}

type Ahead = { bytes: number; whole: Promise<Buffer> } | { bytes: number; stream: () => AsyncGenerator<Buffer> };

async function* pieces(request: AssembleRequest, tree: LayerFiles): AsyncGenerator<Buffer> {
  const queue: Ahead[] = [];
  let queued = 0;
  const give = async function* (): AsyncGenerator<Buffer> {
    const next = queue.shift();
    if (next === undefined) return;
    queued -= next.bytes;
    if ('whole' in next) yield await next.whole;
    else yield* next.stream();
  };
  try {
    for await (const entry of readSplitEntries(request.tarSplit)) {
      if (entry.type === 2) {
        queue.push({ bytes: entry.payload.length, whole: Promise.resolve(entry.payload) });
        queued += entry.payload.length;
      } else if (entry.size > 0) {
        queue.push(tree.read(entry.name, entry.size, entry.crc));
        queued += entry.size <= SMALL_FILE ? entry.size : 0;
      }
      while (queue.length >= AHEAD || queued > AHEAD_BYTES) yield* give();
    }
    while (queue.length > 0) yield* give();
  } finally {
    // What was begun ends before the tree is closed.
    for (const ahead of queue) if ('whole' in ahead) await ahead.whole.catch(() => undefined);
  }
}

/** The files of a layer: read by the engine where they lie in a directory, else through the driver's getter. */
class LayerFiles {
  readonly #tree: DiffGetter;
  readonly #root: TreeRoot | undefined;

  private constructor(tree: DiffGetter, root: TreeRoot | undefined) {
    this.#tree = tree;
    this.#root = root;
  }

  static async open(tree: DiffGetter): Promise<LayerFiles> {
    return new LayerFiles(tree, tree.directory === undefined ? undefined : await TreeRoot.open(tree.directory));
  }

  async close(): Promise<void> {
    await this.#root?.close();
  }

  read(name: string, size: number, crc: Buffer | undefined): Ahead {
    const check = checker(name, size, crc);
    if (size > SMALL_FILE) return { bytes: 0, stream: () => check(this.#chunks(name, READ_SIZE)) };
    const whole = collect(check(this.#chunks(name, size + 1)));
    whole.catch(() => undefined); // It is awaited in its turn, and must not count as unhandled until then.
    return { bytes: size, whole };
  }

  async *#chunks(name: string, readSize: number): AsyncGenerator<Buffer> {
    if (this.#root === undefined) {
      for await (const chunk of await this.#tree.open(Buffer.from(name, 'latin1')))
        yield Buffer.from(chunk as Uint8Array);
      return;
    }
    const fd = await this.#open(this.#root, name);
    try {
      for (let position = 0; ;) {
        const buffer = Buffer.allocUnsafe(readSize);
        const count = await fs.read(fd, buffer, 0, buffer.length, position);
        if (count === 0) return;
        position += count;
        yield buffer.subarray(0, count);
      }
    } finally {
      await fs.close(fd);
    }
  }

  async #open(root: TreeRoot, name: string): Promise<number> {
    try {
      const fd = await root.openRegularFile(treePath(name, 0));
      if (fd !== undefined) return fd;
    } catch (error) {
      const errno = LayerStoreError.is(error) ? error.errnoName : fs.errnoName(error);
      if (!['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(errno ?? '')) {
        throw systemError(error, 'read the file', undefined, { path: root.describe(name) });
      }
    }
    throw corrupt(name, 'the file is gone');
  }
}

async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return join(parts);
}

/** Checks the content of a file against its line. */
function checker(
  name: string,
  size: number,
  crc: Buffer | undefined,
): (chunks: AsyncIterable<Buffer>) => AsyncGenerator<Buffer> {
  return async function* (chunks) {
    const found = new Crc64();
    let bytes = 0;
    for await (const chunk of chunks) {
      bytes += chunk.length;
      if (bytes > size) throw corrupt(name, `the file is larger than the ${String(size)} bytes it had`);
      found.update(chunk);
      yield chunk;
    }
    if (bytes !== size) throw corrupt(name, `the file has ${String(bytes)} bytes instead of ${String(size)}`);
    const digest = found.digest();
    if (crc === undefined || !digest.equals(crc)) {
      throw corrupt(
        name,
        `the checksum of the file is ${digest.toString('hex')} instead of ${crc?.toString('hex') ?? 'none'}`,
      );
    }
  };
}

function corrupt(name: string, why: string): LayerStoreError {
  const path = shown(name);
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `the layer does not give its tar any more: "${path}" was changed, ${why}; repair it from its tar`,
    { path, detail: why },
  );
}
