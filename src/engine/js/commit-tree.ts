/** The changes of an RW layer become a read-only layer's directory. */
import { createHash } from 'node:crypto';
import { mkdir, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DiffID } from '../../digest.js';
import { invalidArgument, LayerStoreError, systemError } from '../../errors.js';
import { defined } from '../../util/defined.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../../util/throttle.js';
import type { IngestResult, CommitTreeRequest } from '../engine.js';
import { Crc64 } from './crc64.js';
import * as fs from './fs.js';
import { ingest } from './ingest.js';
import { removeTree, usage } from './remove.js';
import { SplitWriter } from './tar-split.js';
import { type DroppedWhiteout, openForTar, tarPieces, treeTar, whiteoutTar } from './tree-tar.js';

/** See {@link Engine.commitTree}. */
export async function commitTree(request: CommitTreeRequest): Promise<IngestResult> {
  return request.consume ? takeOver(request) : cloneChanges(request);
}

/** By definition the result is that of the tar registered; so that is what is done, in one pass. */
async function cloneChanges(request: CommitTreeRequest): Promise<IngestResult> {
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
      ...defined({ signal, onProgress }),
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
async function takeOver(request: CommitTreeRequest): Promise<IngestResult> {
  const { directory, signal } = request;
  const upper = { ...request.upper, directories: [directory, ...request.upper.directories.slice(1)] };
  if (upper.directories.length !== 1 || upper.whiteouts === 'plain') {
    throw invalidArgument(
      'only one directory in overlay form can be taken over as a layer; commit it without "consume"',
    );
  }
  const comparison = await openForTar({ ...request, upper });
  const hash = createHash('sha256');
  let tarSize = 0;
  let entries = 0;
  const due = atMostEvery(PROGRESS_INTERVAL);
  const report = (): void => request.onProgress?.({ bytesRead: tarSize, bytesUnpacked: tarSize, entries });
  const count = (bytes: Buffer): void => {
    hash.update(bytes);
    tarSize += bytes.length;
    if (due()) report();
  };
  let split: SplitWriter | undefined;
  const dropped: DroppedWhiteout[] = [];
  try {
    split = await SplitWriter.open(request.tarSplit);
    let raw: Buffer[] = [];
    for await (const piece of tarPieces({ ...request, upper }, comparison, dropped)) {
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
      // Nothing is replaced in a tree that is read.
      find: () => Promise.resolve(undefined),
    });
    split = undefined;
    await dropWhiteouts(dropped, request.removedWhiteoutsTar);
    await comparison.stripOverlayXattrs();
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    await comparison.close();
    await split?.abort();
  }
  const { size } = await usage(directory);
  const diffID = `sha256:${hash.digest('hex')}` as DiffID;
  report();
  return {
    diffID,
    tarSize,
    size,
    entries,
    compression: 'none',
    blobSize: tarSize,
    blobDigest: diffID,
    ignoredXattrs: 0,
    ignoredOwners: 0,
  };
}

/** Last of all, and written down first: a commit that is stopped before leaves each of them where it was. */
async function dropWhiteouts(dropped: readonly DroppedWhiteout[], list: string | undefined): Promise<void> {
  if (dropped.length === 0) return;
  if (list !== undefined) {
    await writeDurably(list, whiteoutTar(dropped.map(({ path }) => path)));
  }
  for (const { source } of dropped) {
    if (source === undefined) continue; // of a plain tree: there is no file that stands for it
    try {
      await source.layer.root.at(source.path, (place) => fs.unlink(place.path));
    } catch (error) {
      throw systemError(error, 'remove the whiteout', undefined, { path: source.layer.root.describe(source.path) });
    }
  }
}

/** There whole or not at all, and on disk when this resolves. */
async function writeDurably(path: string, data: Buffer): Promise<void> {
  const unfinished = `${path}.new`;
  try {
    const file = await open(unfinished, 'w', 0o600);
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(unfinished, path);
    const directory = await open(dirname(path), 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (error) {
    throw systemError(error, 'write', undefined, { path });
  }
}
