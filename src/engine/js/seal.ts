/** Seal: the changes of an RW layer become a read-only layer's directory. */
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import type { DiffID } from '../../digest.js';
import { LayerStoreError, systemError } from '../../errors.js';
import type { IngestResult, SealRequest } from '../engine.js';
import { Crc64 } from './crc64.js';
import { ingest } from './ingest.js';
import { stripOverlayXattrs } from './overlay-xattrs.js';
import { ProgressMeter } from './progress.js';
import { removeTree, usage } from './remove.js';
import { SplitWriter } from './split-writer.js';
import { openForTar, tarPieces, treeTar } from './tree-tar.js';

/** See {@link Engine.seal}. */
export async function seal(request: SealRequest): Promise<IngestResult> {
  return request.consume ? takeOver(request) : cloneChanges(request);
}

/** By definition the result is that of the tar registered; so that is what is done, in one pass. */
async function cloneChanges(request: SealRequest): Promise<IngestResult> {
  const { directory, tarSplit, signal, onProgress } = request;
  const source = await treeTar(request);
  try {
    await mkdir(directory, 0o755);
  } catch (error) {
    source.destroy();
    throw systemError(error, 'make the directory', undefined, { path: directory });
  }
  try {
    return await ingest(source, {
      directory,
      whiteouts: request.upper.whiteouts,
      tarSplit,
      // The tree is ours: nothing about it is limited but the disk.
      limits: LIFTED,
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
  } catch (error) {
    await removeTree(directory);
    throw error;
  }
}

const LIFTED = {
  maxEntries: Infinity,
  maxPathLength: Infinity,
  maxPathDepth: Infinity,
  maxHeaderBytes: Infinity,
  maxXattrBytes: Infinity,
  maxXattrs: Infinity,
};

/** The upper directory was renamed to the layer's: it is read once for the digest and the record, and nothing is copied. */
async function takeOver(request: SealRequest): Promise<IngestResult> {
  const { directory, signal } = request;
  const upper = { ...request.upper, directories: [directory, ...request.upper.directories.slice(1)] };
  if (upper.directories.length !== 1 || upper.whiteouts === 'apply') {
    throw new LayerStoreError('ERR_INVALID_ARGUMENT', 'only one directory in overlay form can be taken over as a layer; seal it without "consume"');
  }
  const comparison = await openForTar({ ...request, upper });
  const progress = new ProgressMeter(request.onProgress, undefined);
  const hash = createHash('sha256');
  let tarSize = 0;
  let entries = 0;
  const count = (bytes: Buffer): void => {
    hash.update(bytes);
    tarSize += bytes.length;
    progress.report(tarSize, tarSize, entries);
  };
  let split: SplitWriter | undefined;
  try {
    split = await SplitWriter.open(request.tarSplit);
    let raw: Buffer[] = [];
    for await (const piece of tarPieces({ ...request, upper }, comparison)) {
      signal?.throwIfAborted();
      if ('raw' in piece) {
        count(piece.raw);
        raw.push(piece.raw);
        if (piece.entry === undefined) continue;
        await split.segment(Buffer.concat(raw));
        await split.file(piece.entry.name, 0, undefined);
      } else {
        await split.segment(Buffer.concat(raw));
        const crc = new Crc64();
        for await (const chunk of piece.file.content()) {
          signal?.throwIfAborted();
          count(chunk);
          crc.update(chunk);
        }
        await split.file(piece.file.name, piece.file.size, crc.digest());
      }
      raw = [];
      entries++;
    }
    await split.segment(Buffer.concat(raw));
    await split.finish({
      path: (name) => name,
      read: (path) => {
        throw new LayerStoreError('ERR_LAYER_CORRUPT', `"${path}" is in the tree twice`);
      },
    });
    split = undefined;
    await stripOverlayXattrs(directory, signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    await comparison.close();
    await split?.abort();
  }
  const { size } = await usage(directory);
  const diffID = `sha256:${hash.digest('hex')}` as DiffID;
  progress.finish(tarSize, tarSize, entries);
  return { diffID, tarSize, size, entries, compression: 'none', blobSize: tarSize, blobDigest: diffID, ignoredXattrs: 0 };
}
