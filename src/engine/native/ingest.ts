/** Registers one tar through the addon: source of any kind in, directory and record out, one result. */
import { stat } from 'node:fs/promises';
import type { Digest, DiffID } from '../../digest.js';
import { digestMismatch, invalidArgument, type LayerStoreError, systemError } from '../../errors.js';
import type { IngestRequest, IngestResult, TarSource } from '../engine.js';
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
    const totalBytes = file === undefined ? undefined : await sourceSize(file, request);
    const native = await withRecordFile(request.tarSplit, (tarSplit) => {
      const job = new binding.Ingest({
        directory: request.directory,
        whiteouts: request.whiteouts,
        privilege: request.privilege ?? 'full',
        tarSplit,
        hashBlob: request.hashBlob === true || request.blob !== undefined,
        limits,
        path: file?.path,
        offset: file?.offset,
        length: file?.length,
      });
      return follow(job, 'chunks' in opened ? opened.chunks : undefined, request, totalBytes);
    });
    checkExpectations(native, request);
    return toResult(native);
  } catch (error) {
    if ('chunks' in opened) opened.chunks.stop();
    throw nativeError(error, ACTION, signal);
  }
}

/** Runs a job to its end, with its signal, its listener and its source. */
async function follow(
  job: Ingest,
  chunks: ChunkSource | undefined,
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
    const result = chunks === undefined ? await running : await push(job, running, chunks, request);
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

/** Pushes a source into a job until either ends. An error of the source wins, unchanged, once the job has stopped. */
async function push(
  job: Ingest,
  running: Promise<NativeIngestResult>,
  chunks: ChunkSource,
  request: IngestRequest,
): Promise<NativeIngestResult> {
  let wake: (() => void) | undefined;
  let settled = false;
  const settle = (): void => {
    settled = true;
    wake?.();
  };
  running.then(settle, settle);
  const maxBytes = request.blob?.size ?? Infinity;
  let taken = 0;
  let failure: { error: unknown } | undefined;
  try {
    while (!settled) {
      const step = await new Promise<{ done: boolean; value?: unknown } | undefined>((resolve, reject) => {
        wake = () => resolve(undefined);
        chunks.next().then(resolve, reject);
      });
      if (step === undefined) break;
      if (step.done) {
        job.end();
        break;
      }
      if (!(step.value instanceof Uint8Array)) {
        throw invalidArgument(
          `a tar source must give Uint8Array chunks, and this one gave ${step.value === null ? 'null' : `a ${typeof step.value}`}; streams must have no encoding set`,
        );
      }
      taken += step.value.length;
      if (taken > maxBytes) throw sizeMismatch(`${taken} or more`, maxBytes);
      await job.write(step.value);
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
