/**
 * A draft is a layer that is being made: a driver directory and a metadata transaction, invisible until published. The
 * code that begins a draft publishes or discards it; after a crash recovery finds its intent and discards it.
 */
import { type ChainID, createChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { ApplyOptions, ApplyResult } from '../driver/graph-driver.js';
import type { TarSource, TarSplitTarget, UnpackLimits } from '../engine/engine.js';
import { digestMismatch } from '../errors.js';
import type {
  Descriptor,
  FullMetadataStore,
  FullMetadataTransaction,
  LayerRecord,
} from '../metadata/metadata-store.js';
import { raceAbort } from '../util/abort.js';
import { defined } from '../util/defined.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { randomID } from '../util/random-id.js';
import type { TaskQueue } from '../util/task-queue.js';
import { withTimeout } from '../util/timeout.js';
import type { Intent, Intents } from './intents.js';
import type { LayerMap, LayerNode } from './layer-map.js';
import type { Observed, OperationDetails } from './lifecycle.js';
import type { RegisterOptions } from './types.js';

/** Milliseconds to wait for the removal of a discarded draft, so that small ones are removed when the caller gets the error. */
const DISCARD_PATIENCE = 50;

/** A draft after its filling. */
type Filled = Draft & { tx: FullMetadataTransaction; record: LayerRecord };

export interface Draft {
  readonly cacheID: string;
  /** Of the event of the operation that it is made for. */
  readonly details: OperationDetails;
  /** Set when the draft is filled. */
  tx: FullMetadataTransaction | undefined;
  record: LayerRecord | undefined;
  /** Publication has begun: the record may exist even if it failed. */
  publishing: boolean;
}

/** A draft of the driver's `cacheID` that holds nothing yet. */
export function newDraft(cacheID: string, details: OperationDetails): Draft {
  return { cacheID, details, tx: undefined, record: undefined, publishing: false };
}

interface DraftParts {
  readonly background: TaskQueue;
  readonly driver: Driver;
  readonly durability: 'strict' | 'relaxed';
  readonly intents: Intents;
  readonly layers: LayerMap;
  readonly limits: UnpackLimits | undefined;
  readonly locks: KeyedMutex;
  readonly logger: LoggerLike;
  readonly metadata: FullMetadataStore;
}

export class Drafts {
  readonly #parts: DraftParts;

  constructor(parts: DraftParts) {
    this.#parts = parts;
  }

  /** The options that register, registerChain and commit pass to the driver. */
  applyOptions(options: RegisterOptions, descriptor: Descriptor | undefined): ApplyOptions {
    const limits = { ...this.#parts.limits, ...options.limits };
    return {
      ...defined({ signal: options.signal, onProgress: options.onProgress, diffID: options.diffID }),
      ...(Object.keys(limits).length === 0 ? {} : { limits }),
      ...defined({ blob: descriptor && { digest: descriptor.digest, size: descriptor.size } }),
    };
  }

  /** Writes the intent, before the driver makes anything. */
  async begin(intent: Intent, { details }: Observed<object>): Promise<Draft> {
    const cacheID = randomID();
    await this.#parts.intents.begin(cacheID, intent, { sync: this.#parts.durability === 'strict' });
    return newDraft(cacheID, details);
  }

  /** Unpacks `source` into the draft's directory, which `driver.create` made. */
  async unpack(
    draft: Draft,
    parent: { chainID: ChainID; cacheID: string } | undefined,
    source: TarSource,
    options: ApplyOptions,
    descriptor?: Descriptor,
  ): Promise<void> {
    await this.fill(draft, parent?.chainID, descriptor, options, (tarSplit) =>
      this.#parts.driver.applyDiff(draft.cacheID, parent?.cacheID, source, { ...options, ...tarSplit }),
    );
  }

  /** Runs `fill` with a target for tar-split, checks its result, and completes the record. */
  async fill(
    draft: Draft,
    parent: ChainID | undefined,
    descriptor: Descriptor | undefined,
    expected: Pick<ApplyOptions, 'blob' | 'diffID'>,
    fill: (tarSplit: { tarSplit?: TarSplitTarget }) => Promise<ApplyResult>,
  ): Promise<void> {
    draft.tx = await this.#parts.metadata.startTransaction();
    const { tx } = draft;
    const result = await fill(
      this.#parts.driver.capabilities.reproducesExactDiffs ? {} : { tarSplit: await tx.tarSplitTarget() },
    );
    // A driver from outside may not have checked these.
    if (expected.diffID !== undefined && result.diffID !== expected.diffID) {
      throw digestMismatch('the diff id of the tar', result.diffID, expected.diffID);
    }
    const { blob } = expected;
    if (blob !== undefined && result.blobDigest !== undefined && result.blobDigest !== blob.digest) {
      throw digestMismatch('the digest of the blob', result.blobDigest, blob.digest);
    }
    if (blob !== undefined && result.blobSize !== blob.size) {
      throw digestMismatch('the size of the blob in bytes', result.blobSize, blob.size);
    }
    const chainID = createChainID([result.diffID], parent) as ChainID; // one diff id always gives one
    this.tellIgnored(draft.details, chainID, result);
    draft.record = {
      chainID,
      diffID: result.diffID,
      cacheID: draft.cacheID,
      size: result.size,
      ...defined({ parent, descriptor }),
    };
    await Promise.all([
      tx.setSize(result.size),
      tx.setDiffID(result.diffID),
      tx.setCacheID(draft.cacheID),
      parent === undefined ? undefined : tx.setParent(parent),
      descriptor === undefined ? undefined : tx.setDescriptor(descriptor),
    ]);
  }

  /** Logs what an archive holds and the kernel cannot: it is not a failure. */
  tellIgnored(details: OperationDetails, of: string, { ignoredXattrs, ignoredOwners }: ApplyResult): void {
    details.ignoredXattrs = (details.ignoredXattrs ?? 0) + ignoredXattrs;
    details.ignoredOwners = (details.ignoredOwners ?? 0) + ignoredOwners;
    if (!(ignoredXattrs > 0 || ignoredOwners > 0)) return;
    this.#parts.logger.warn(
      { layer: of, ignoredXattrs, ignoredOwners },
      'attributes or owners of the archive were not set, since the system cannot hold them; an export gives them back',
    );
  }

  /**
   * Publishes the draft by one rename and returns the layer, pinned. If the layer exists already, `fresh` is false and the
   * caller must discard the draft. The parent must be pinned.
   */
  async publish(draft: Draft, parent: LayerNode | undefined): Promise<{ node: LayerNode; fresh: boolean }> {
    const { record, tx } = draft as Filled;
    const { chainID } = record;
    for (;;) {
      // Waits for a removal of the same layer that began earlier.
      await this.#parts.layers.erasing(chainID);
      const published = await this.#parts.locks.run(`layer:${chainID}`, async () => {
        if (this.#parts.layers.erasing(chainID) !== undefined) return undefined;
        const there = this.#parts.layers.find(chainID);
        if (there !== undefined) {
          there.pins += 1;
          return { node: there, fresh: false };
        }
        draft.publishing = true;
        await tx.commit(chainID);
        const node = this.#parts.layers.add(record, parent);
        node.pins += 1;
        return { node, fresh: true };
      });
      if (published !== undefined) return published;
    }
  }

  /** The draft is published: ends its intent. */
  async end(draft: Draft): Promise<void> {
    try {
      await this.#parts.intents.end(draft.cacheID);
    } catch (error) {
      this.#parts.intents.letGo(draft.cacheID);
      this.#parts.logger.warn(
        { id: draft.cacheID, ...errorFields(error) },
        'an intent that is done stays behind; the next cleanup drops it',
      );
    }
  }

  /** Removes the draft. Never rejects: if something cannot be removed, the intent stays for cleanup() and the next open. */
  async discard(draft: Draft): Promise<void> {
    try {
      await this.withdraw(draft);
      await draft.tx?.cancel();
      await this.#removeSoon(draft.cacheID);
      await this.#parts.intents.end(draft.cacheID);
    } catch (error) {
      this.#parts.intents.letGo(draft.cacheID);
      this.#parts.logger.warn(
        { id: draft.cacheID, ...errorFields(error) },
        'an unfinished layer cannot be removed; the next cleanup tries again',
      );
    }
  }

  /** Removes the record that a failed publication left, before its files are removed. */
  async withdraw(draft: Draft): Promise<void> {
    if (!draft.publishing || draft.record === undefined) return;
    const { chainID, cacheID } = draft.record;
    let recorded: string | undefined;
    try {
      recorded = await this.#parts.metadata.getCacheID(chainID);
    } catch {
      return; // no such record, the usual case
    }
    if (recorded === cacheID) await this.#parts.metadata.remove(chainID);
  }

  async #removeSoon(id: string): Promise<void> {
    if (!(await this.#parts.driver.exists(id))) return;
    const unlinked = this.#parts.background.push(await this.#parts.driver.detach(id));
    await withTimeout(unlinked, DISCARD_PATIENCE);
  }

  /** Syncs what was written for these driver ids before this call. An abort rejects at once, without waiting for the disk. */
  async sync(ids: readonly string[], signal?: AbortSignal): Promise<void> {
    if (this.#parts.durability !== 'strict' || ids.length === 0) return;
    await raceAbort(this.#parts.driver.sync(ids), signal);
  }
}
