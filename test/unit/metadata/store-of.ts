/** A file store for the unit tests of this folder, with the plainest engine there is, which also tells what it was asked. */
import { mkdirSync } from 'node:fs';
import type { ChainID, DiffID } from '../../../src/digest.js';
import { createChainID } from '../../../src/digest.js';
import type { BatchOp, Engine } from '../../../src/engine/engine.js';
import { runBatch } from '../../../src/engine/js/batch.js';
import { createJsEngine } from '../../../src/engine/js/index.js';
import { openFileMetadataStore } from '../../../src/metadata/file-store.js';
import type { FullMetadataStore, MetadataStore } from '../../../src/metadata/metadata-store.js';
import { silentLogger } from '../../../src/util/logger.js';
import type { RecordEngine } from '../../../src/metadata/record-directory.js';

export interface Opened {
  store: Required<MetadataStore> & FullMetadataStore;
  /** Every step of every batch, in order. */
  steps: BatchOp[];
}

export async function openAt(
  directory: string,
  options: {
    durability?: 'strict' | 'relaxed';
    readOnly?: boolean;
    fail?: (op: BatchOp) => boolean;
    /** Reads records in bulk with this one. */
    reader?: Engine;
  } = {},
): Promise<Opened> {
  const steps: BatchOp[] = [];
  const { reader } = options;
  const engine: RecordEngine = {
    readSmallFiles: (...request) => (reader ?? createJsEngine()).readSmallFiles(...request),
    async batch(ops: readonly BatchOp[]): Promise<void> {
      const failing = ops.findIndex((op) => options.fail?.(op) === true);
      // As a real engine does: what came before the failure is done and, where it made something, taken back.
      if (failing >= 0) {
        await runBatch([...ops.slice(0, failing), { op: 'fsync', path: '/nonexistent/of/this/test' }]);
      }
      steps.push(...ops);
      await runBatch(ops);
    },
  };
  const { durability = 'strict', readOnly = false } = options;
  const pendingMounts = `${directory}-pending`;
  if (!readOnly) mkdirSync(pendingMounts, { recursive: true });
  const store = await openFileMetadataStore({
    directory,
    pendingMounts,
    engine,
    durability,
    readOnly,
    logger: silentLogger,
  });
  return { store: store, steps };
}

/** A diff id (or any other digest) made of one repeated hex digit. */
export function digestOf(digit: string): DiffID {
  return `sha256:${digit.repeat(64)}` as DiffID;
}

/** `sha256:abcd…` without its prefix. */
export function hexOf(digest: string): string {
  return digest.slice('sha256:'.length);
}

/** Publishes a layer with a one-line tar-split record. */
export async function addLayer(
  store: MetadataStore,
  { diffID, parent, cacheID, size = 7 }: { diffID: DiffID; parent?: ChainID; cacheID: string; size?: number },
): Promise<ChainID> {
  const id = createChainID([diffID], parent);
  if (id === undefined) throw new Error('one diff id always has a chain id');
  const transaction = await store.startTransaction();
  await transaction.setCacheID(cacheID);
  await transaction.setDiffID(diffID);
  await transaction.setSize(size);
  if (parent !== undefined) await transaction.setParent(parent);
  const writer = await transaction.tarSplitWriter(true);
  await new Promise<void>((resolve, reject) => {
    writer.on('error', reject).end('{"type":2,"payload":"AAAA","position":0}\n', resolve);
  });
  await transaction.commit(id);
  return id;
}
