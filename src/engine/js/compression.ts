/**
 * Compression of a tar. In: told by the first bytes, plain, gzip (several members, zero padding) or zstd. Out: gzip or zstd,
 * hashed on the way into a descriptor.
 *
 * zstd (RFC 8878): frames are told apart here, so that several frames, skippable frames and the limit of the window work
 * the same whatever decodes them: node:zlib where it can (Node 22.15 and later), else the optional dependency fzstd.
 * fzstd does not check a frame's own checksum; a diff id does.
 */
import { createHash } from 'node:crypto';
import type { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as zlib from 'node:zlib';
import type * as fzstdModule from 'fzstd';
import type { Digest } from '../../digest.js';
import { LayerStoreError, systemError } from '../../errors.js';
import { ByteReader } from '../../tar/byte-reader.js';
import { overLimit } from '../../tar/errors.js';
import type { BlobCompression } from '../engine.js';
import * as fs from './fs.js';
import { defined } from '../../util/defined.js';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface Decoded {
  compression: Compression;
  chunks: AsyncIterable<Buffer>;
}

/** Looks at the first bytes of `input` and gives its decompressed chunks. */
export async function decode(input: AsyncIterable<Buffer>, limits: { maxWindow: number }): Promise<Decoded> {
  const iterator = input[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  let ended = false;
  while (head.length < 4 && !ended) {
    const next = await iterator.next();
    if (next.done === true) ended = true;
    else head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  const all = resume(head, iterator, ended);
  // The third byte too: a name of a tar may begin with the first two.
  if (head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return { compression: 'gzip', chunks: gunzip(all) };
  if (isZstd(head)) return { compression: 'zstd', chunks: await unzstd(all, limits) };
  return { compression: 'none', chunks: all };
}

async function* resume(head: Buffer, rest: AsyncIterator<Buffer>, ended: boolean): AsyncGenerator<Buffer> {
  try {
    if (head.length > 0) yield head;
    while (!ended) {
      const next = await rest.next();
      if (next.done === true) ended = true;
      else yield next.value;
    }
  } finally {
    if (!ended) await rest.return?.();
  }
}

function gunzip(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  // Node's own class goes on with the next member of a file, and ends at zero padding.
  return through(zlib.createGunzip({ chunkSize: 256 * 1024 }), input, 'gzip');
}

/**
 * Chunks of `input` through a transform of node:zlib. Its errors become ERR_BAD_COMPRESSION; those of the input come
 * through unchanged. Input behind the end of the compressed data is read and dropped.
 */
export async function* through(
  transform: Transform,
  input: AsyncIterable<Buffer>,
  format: string,
): AsyncGenerator<Buffer> {
  let inputError: { error: unknown } | undefined;
  let closed = false;
  transform.once('close', () => (closed = true));
  const feed = async (): Promise<void> => {
    try {
      for await (const chunk of input) {
        if (closed || transform.readableEnded) continue;
        if (!transform.write(chunk)) await room(transform);
      }
      if (!closed) transform.end();
    } catch (error) {
      inputError = { error };
      transform.destroy(error instanceof Error ? error : new Error('the input failed'));
    }
  };
  const feeding = feed();
  try {
    for await (const chunk of transform) yield chunk as Buffer;
    await feeding;
  } catch (error) {
    if (inputError !== undefined) throw inputError.error;
    throw compressionError(error, format);
  } finally {
    transform.destroy();
  }
  if (inputError !== undefined) throw inputError.error;
}

function room(transform: Transform): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['drain', 'end', 'close']) transform.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'end', 'close']) transform.on(event, done);
  });
}

/** ERR_BAD_COMPRESSION for an error of a decompressor. */
function compressionError(error: unknown, format: string): unknown {
  if (error instanceof LayerStoreError || !(error instanceof Error)) return error;
  return new LayerStoreError(
    'ERR_BAD_COMPRESSION',
    `cannot decompress the ${format} data: ${error.message}; it is damaged or truncated`,
    {
      cause: error,
    },
  );
}

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;

/** Whether bytes (at least 4) begin a zstd frame, skippable or not. */
function isZstd(head: Buffer): boolean {
  if (head.length < 4) return false;
  const magic = head.readUInt32LE(0);
  return magic === MAGIC || isSkippable(magic);
}

function isSkippable(magic: number): boolean {
  return (magic & 0xfffffff0) >>> 0 === SKIPPABLE;
}

type FrameDecoder = (frame: AsyncIterable<Buffer>) => AsyncGenerator<Buffer>;

async function importFzstd(): Promise<typeof fzstdModule | undefined> {
  try {
    return await import('fzstd');
  } catch {
    return undefined; // An optional dependency: not installed is an answer.
  }
}

async function frameDecoder(): Promise<FrameDecoder> {
  if ('createZstdDecompress' in zlib) {
    // Typed for Node 20, which has no such functions.
    const { createZstdDecompress, constants } = zlib as unknown as {
      createZstdDecompress: (options: object) => Transform;
      constants: { ZSTD_d_windowLogMax: number };
    };
    // The window was checked against the caller's limit already; 31 is what the library can do.
    const options = { params: { [constants.ZSTD_d_windowLogMax]: 31 }, chunkSize: 256 * 1024 };
    return (frame) => through(createZstdDecompress(options), frame, 'zstd');
  }
  const fzstd = await importFzstd();
  if (fzstd === undefined) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      'cannot decompress zstd: this Node has no zstd in node:zlib (22.15 and later do) and the optional dependency "fzstd" is not installed: install it, or use the native engine',
    );
  }
  return (frame) => decodeByFzstd(frame, fzstd);
}

async function* decodeByFzstd(frame: AsyncIterable<Buffer>, fzstd: typeof fzstdModule): AsyncGenerator<Buffer> {
  let out: Buffer[] = [];
  const decoder = new fzstd.Decompress((bytes) => {
    // The window moves on under what it gave.
    if (bytes.length > 0) out.push(Buffer.from(bytes));
  });
  const push = (chunk: Uint8Array, final: boolean): Buffer[] => {
    try {
      decoder.push(chunk, final);
    } catch (error) {
      throw compressionError(error, 'zstd');
    }
    const given = out;
    out = [];
    return given;
  };
  for await (const chunk of frame) yield* push(chunk, false);
  yield* push(new Uint8Array(0), true);
}

/** Decompressed chunks of zstd data. ERR_NOT_SUPPORTED where nothing here can decode it. */
async function unzstd(input: AsyncIterable<Buffer>, limits: { maxWindow: number }): Promise<AsyncIterable<Buffer>> {
  const decodeFrame = await frameDecoder();
  return decodeFrames(new ByteReader(input), limits, decodeFrame);
}

async function* decodeFrames(
  reader: ByteReader,
  limits: { maxWindow: number },
  decodeFrame: FrameDecoder,
): AsyncGenerator<Buffer> {
  try {
    for (;;) {
      const magic = await reader.exactly(4);
      if (magic.length === 0) return;
      const value = magic.length < 4 ? 0 : magic.readUInt32LE(0);
      if (isSkippable(value)) {
        await skip(reader, (await need(reader, 4)).readUInt32LE(0));
      } else if (value === MAGIC) {
        const header = await readHeader(reader, limits.maxWindow);
        let given = 0;
        for await (const chunk of decodeFrame(frameBytes(reader, magic, header))) {
          given += chunk.length;
          yield chunk;
        }
        if (header.contentSize !== undefined && BigInt(given) !== header.contentSize) {
          throw bad(`a frame gave ${String(given)} bytes instead of the ${String(header.contentSize)} it announced`);
        }
      } else {
        throw bad(`there is no frame at byte ${String(reader.position - magic.length)}`);
      }
    }
  } finally {
    await reader.close();
  }
}

interface FrameHeader {
  bytes: Buffer;
  checksum: boolean;
  contentSize: bigint | undefined;
}

async function readHeader(reader: ByteReader, maxWindow: number): Promise<FrameHeader> {
  const descriptor = (await need(reader, 1))[0]!;
  const single = (descriptor & 0x20) !== 0;
  const sizeCode = descriptor >> 6;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = sizeCode === 0 ? (single ? 1 : 0) : 1 << sizeCode;
  const rest = await need(reader, (single ? 0 : 1) + dictionaryBytes + sizeBytes);
  const sizeAt = rest.length - sizeBytes;
  if (rest.subarray(sizeAt - dictionaryBytes, sizeAt).some((byte) => byte !== 0)) throw bad('it needs a dictionary');
  let contentSize: bigint | undefined;
  if (sizeBytes > 0) {
    contentSize = 0n;
    for (let index = sizeBytes - 1; index >= 0; index--)
      contentSize = (contentSize << 8n) | BigInt(rest[sizeAt + index]!);
    if (sizeBytes === 2) contentSize += 256n;
  }
  let window = contentSize ?? 0n;
  if (!single) {
    const base = 1n << BigInt(10 + (rest[0]! >> 3));
    window = base + (base >> 3n) * BigInt(rest[0]! & 7);
  }
  if (Number(window) > maxWindow) {
    throw overLimit('maxWindow', maxWindow, `the zstd data wants a window of ${String(window)} bytes`);
  }
  return { bytes: Buffer.concat([Buffer.of(descriptor), rest]), checksum: (descriptor & 4) !== 0, contentSize };
}

/** The bytes of one frame, block by block. */
async function* frameBytes(reader: ByteReader, magic: Buffer, header: FrameHeader): AsyncGenerator<Buffer> {
  yield Buffer.concat([magic, header.bytes]);
  for (let last = false; !last;) {
    const block = await need(reader, 3);
    const bits = block.readUIntLE(0, 3);
    last = (bits & 1) !== 0;
    const kind = (bits >> 1) & 3;
    if (kind === 3) throw bad('a block is of no known kind');
    const length = kind === 1 ? 1 : bits >> 3;
    if (bits >> 3 > 128 * 1024) throw bad('a block is longer than 128 KiB');
    yield block;
    if (length > 0) yield await need(reader, length);
  }
  if (header.checksum) yield await need(reader, 4);
}

async function need(reader: ByteReader, length: number): Promise<Buffer> {
  const bytes = await reader.exactly(length);
  if (bytes.length < length) throw bad('it ends inside a frame');
  return bytes;
}

async function skip(reader: ByteReader, length: number): Promise<void> {
  for (let left = length; left > 0;) {
    const some = await reader.some(left);
    if (some === undefined) throw bad('it ends inside a skippable frame');
    left -= some.length;
  }
}

function bad(why: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_BAD_COMPRESSION',
    `cannot decompress the zstd data: ${why}; it is damaged or truncated`,
  );
}

const CHUNK = 256 * 1024;

/** Writes `chunks` compressed where the descriptor stands. ERR_NOT_SUPPORTED for zstd where the running Node has none. */
export async function compressTo(
  chunks: AsyncIterable<Uint8Array>,
  form: BlobCompression,
  fd: number,
  signal?: AbortSignal,
): Promise<{ digest: Digest; size: number }> {
  const hash = createHash('sha256');
  let size = 0;
  await pipeline(
    chunks,
    compressor(form),
    async (compressed: AsyncIterable<Uint8Array>) => {
      for await (const chunk of compressed) {
        hash.update(chunk);
        size += chunk.length;
        try {
          await fs.writeAll(fd, chunk);
        } catch (error) {
          throw systemError(error, 'write the compressed tar', 'check the space left and who reads it');
        }
      }
    },
    defined({ signal }),
  );
  return { digest: `sha256:${hash.digest('hex')}`, size };
}

function compressor(form: BlobCompression): Transform {
  if (form === 'gzip') return zlib.createGzip({ chunkSize: CHUNK });
  // In Node since 22.15; unknown to the types of Node 20.
  const { createZstdCompress } = zlib as unknown as { createZstdCompress?: (options: object) => Transform };
  if (createZstdCompress === undefined) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `Node ${process.version} cannot write zstd by itself (22.15 and later can, and so can the native engine); choose "gzip" or "none"`,
    );
  }
  return createZstdCompress({ chunkSize: CHUNK });
}
