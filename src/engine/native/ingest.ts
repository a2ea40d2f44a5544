/** Registers one tar through the addon: source of any kind in, directory and record out, one result. */
import { stat } from 'node:fs/promises';
import type { Digest, DiffID } from '../../digest.js';
import { digestMismatch, invalidArgument, type LayerStoreError, systemError } from '../../errors.js';
import { raceAbort } from '../../util/abort.js';
import type { IngestRequest, IngestResult, TarSource } from '../engine.js';
import type { GrowingBytes, GrowingFile } from '../growing-file.js';
import { resolveLimitsFor } from '../limits.js';
import type { Binding, Ingest, NativeIngestResult } from './binding.js';
import { nativeError } from './errors.js';
import { watchProgress } from './run.js';
import { openSource, type ChunkSource, type FileSource } from './source.js';
import { withRecordFile } from './record-file.js';
import { defined } from '../../util/defined.js';

const ACTION = 'unpack the layer';

/** {@link Engine.ingest}. */
export async function ingest(binding: Binding, source: TarSource, request: IngestRequest): Promise<IngestResult> {
  const { signal } = request;
  const opened = openSource(source);
  try {
    signal?.throwIfAborted();
    const limits = await resolveLimitsFor(request.directory, request.limits);
    const file = 'file' in opened ? opened.file : undefined;
    const growing = 'growing' in opened ? await openGrowing(opened.growing, signal) : undefined;
    const totalBytes = file === undefined ? growing?.size : await sourceSize(file, request);
    const native = await withRecordFile(request.tarSplit, (tarSplit) => {
      const job = new binding.Ingest({
        directory: request.directory,
        whiteouts: request.whiteouts,
        privilege: request.privilege ?? 'full',
        tarSplit,
        hashBlob: request.hashBlob === true || request.blob !== undefined,
        limits,
        path: file?.path ?? growing?.path,
        growing: growing !== undefined,
        offset: file?.offset,
        length: file?.length,
      });
      const feed = 'chunks' in opened ? chunkFeed(job, opened.chunks, request) : growing && growingFeed(job, growing);
      return follow(job, feed, request, totalBytes);
    });
    checkExpectations(native, request);
    return toResult(native);
  } catch (error) {
    if ('chunks' in opened) opened.chunks.stop();
    throw nativeError(error, ACTION, signal);
  }
}

/** The file exists once a byte of it can be read. */
async function openGrowing(source: GrowingFile, signal: AbortSignal | undefined): Promise<GrowingBytes> {
  const bytes = await raceAbort(source.open(), signal);
  await raceAbort(bytes.readable(0), signal);
  return bytes;
}

/** Gives a job its next bytes; resolves with false when there are no more. */
type Feed = () => Promise<boolean>;

function chunkFeed(job: Ingest, chunks: ChunkSource, { blob }: IngestRequest): Feed {
  const maxBytes = blob?.size ?? Infinity;
  let taken = 0;
  return async () => {
    const { done, value } = await chunks.next();
    if (done) return false;
    if (!(value instanceof Uint8Array)) {
      throw invalidArgument(
        `a tar source must give Uint8Array chunks, and this one gave ${value === null ? 'null' : `a ${typeof value}`}; streams must have no encoding set`,
      );
    }
    taken += value.length;
    if (taken > maxBytes) throw sizeMismatch(`${taken} or more`, maxBytes);
    await job.write(value);
    return true;
  };
}

function growingFeed(job: Ingest, bytes: GrowingBytes): Feed {
  let told = 0;
  return async () => {
    const readable = await bytes.readable(told);
    if (readable === told) return false;
    told = readable;
    job.grow(readable);
    return true;
  };
}

/** Runs a job to its end, with its signal, its listener and its source. */
async function follow(
  job: Ingest,
  feed: Feed | undefined,
  request: IngestRequest,
  totalBytes: number | undefined,
): Promise<NativeIngestResult> {
  const { signal } = request;
  const cancel = (): void => job.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  const progress = watchProgress(request.onProgress, () => job.progress(), cancel, totalBytes);
  try {
    const running = job.start();
    // It may have fired while the limits were worked out.
    if (signal?.aborted === true) job.cancel();
    const result = feed === undefined ? await running : await push(job, running, feed, request);
    progress.finish();
    return result;
  } catch (error) {
    progress.rethrow();
    throw error;
  } finally {
    progress.stop();
    signal?.removeEventListener('abort', cancel);
  }
}

/** Feeds a job until either ends. An error of the source wins, unchanged, once the job has stopped. */
async function push(
  job: Ingest,
  running: Promise<NativeIngestResult>,
  feed: Feed,
  request: IngestRequest,
): Promise<NativeIngestResult> {
  let wake: (() => void) | undefined;
  let settled = false;
  const settle = (): void => {
    settled = true;
    wake?.();
  };
  running.then(settle, settle);
  let failure: { error: unknown } | undefined;
  try {
    while (!settled) {
      // A job that ends on its own does not wait for a source that gives nothing.
      const more = await new Promise<boolean | undefined>((resolve, reject) => {
        wake = () => resolve(undefined);
        feed().then(resolve, reject);
      });
      if (more === undefined) break;
      if (!more) {
        job.end();
        break;
      }
    }
  } catch (error) {
    failure = { error };
    job.fail();
  }
  try {
    const result = await running;
    if (failure !== undefined) throw failure.error;
    return result;
  } catch (error) {
    if (failure !== undefined && request.signal?.aborted !== true) throw failure.error;
    throw error;
  }
}

/** Size of a file source, for progress; a blob of another size is refused before a byte is read. */
async function sourceSize(file: FileSource, request: IngestRequest): Promise<number | undefined> {
  let size = file.length;
  if (size === undefined) {
    try {
      const status = await stat(file.path);
      size = status.isFile() ? status.size : undefined;
    } catch (error) {
      throw systemError(error, 'read the tar', 'check that the path is there');
    }
  }
  if (size !== undefined && request.blob !== undefined && size !== request.blob.size) {
    throw sizeMismatch(size, request.blob.size);
  }
  return size;
}

function sizeMismatch(found: number | string, expected: number): LayerStoreError {
  return digestMismatch('the size of the blob in bytes', found, expected);
}

function checkExpectations(result: NativeIngestResult, request: IngestRequest): void {
  const { blob, diffID } = request;
  if (blob !== undefined) {
    if (result.blobSize !== blob.size) throw sizeMismatch(result.blobSize, blob.size);
    if (result.blobDigest !== blob.digest)
      throw digestMismatch('the digest of the blob', result.blobDigest, blob.digest);
  }
  if (diffID !== undefined && result.diffID !== diffID)
    throw digestMismatch('the diff id of the tar', result.diffID, diffID);
}

/** The result in the engine's words. */
export function toResult(native: NativeIngestResult): IngestResult {
  const { blobDigest, diffID, ...rest } = native;
  return {
    ...rest,
    diffID: diffID as DiffID,
    ...defined({ blobDigest: blobDigest as Digest | undefined }),
  };
}
