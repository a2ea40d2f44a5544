/**
 * Verifies layers against what was registered, in parallel and within a budget, and repairs a damaged layer from its tar:
 * unpacks the tar beside it, then exchanges the two directories in one step, so that children stay valid and a crash leaves
 * either the old contents or the new.
 */
import type { ChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { TarSource, TreeProblem } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor, FullMetadataStore } from '../metadata/metadata-store.js';
import { mapConcurrent } from '../util/concurrent.js';
import { defined } from '../util/defined.js';
import type { KeyedMutex } from '../util/keyed-mutex.js';
import type { Draft, Drafts } from './draft.js';
import type { Exports } from './export.js';
import { type LayerMap, type LayerNode, missingLayer } from './layer-map.js';
import type { Observed } from './lifecycle.js';
import type { Removals } from './removal.js';
import type { RegisterOptions, VerifyOptions, VerifyReport } from './types.js';

const CONCURRENCY = 2;

interface VerificationParts {
  readonly drafts: Drafts;
  readonly driver: Driver;
  readonly exports: Exports;
  readonly layers: LayerMap;
  readonly locks: KeyedMutex;
  readonly metadata: FullMetadataStore;
  readonly removals: Removals;
  readonly root: string;
}

export class Verification {
  readonly #parts: VerificationParts;

  constructor(parts: VerificationParts) {
    this.#parts = parts;
  }

  async verify(chainID: ChainID | undefined, options: VerifyOptions): Promise<VerifyReport> {
    const nodes = chainID === undefined ? [...this.#parts.layers] : [this.#parts.layers.require(chainID)];
    const concurrency = Math.min(options.concurrency ?? CONCURRENCY, Math.max(1, nodes.length));
    // Each reader has a share of the budget, so that the sum stays within it.
    const share = options.bytesPerSecond === undefined ? undefined : options.bytesPerSecond / concurrency;
    const layers = await mapConcurrent(nodes, concurrency, async (node) => {
      options.signal?.throwIfAborted();
      const content = node.gone ? [] : await this.#problemsOf(node, options.signal, share);
      const record = node.gone ? [] : await this.#recordProblems(node);
      const problems = [...content, ...record];
      return {
        chainID: node.chainID,
        diffID: node.diffID,
        ok: problems.every((problem) => problem.cosmetic),
        problems: problems.map((problem) => ({ chainID: node.chainID, ...problem })),
      };
    });
    if (chainID !== undefined && nodes[0]?.gone === true) throw missingLayer(chainID);
    return { layers, ok: layers.every((layer) => layer.ok) };
  }

  /** Whether the layer has a problem that a program could notice. */
  async isDamaged(node: LayerNode, signal?: AbortSignal): Promise<boolean> {
    return (await this.#problemsOf(node, signal)).some((problem) => !problem.cosmetic);
  }

  async #problemsOf(node: LayerNode, signal: AbortSignal | undefined, bytesPerSecond?: number): Promise<TreeProblem[]> {
    const leave = node.readers.enter();
    try {
      const problems = await this.#parts.driver.verify(
        this.#parts.exports.exactLayer(node),
        defined({ bytesPerSecond, signal }),
      );
      return problems.map((problem) => ({ ...problem, found: adviceOn(problem) }));
    } catch (error) {
      if (signal?.aborted === true) throw error;
      // An error in reading this layer is reported as its problem; the others are still read.
      if (error instanceof LayerStoreError) return [this.#problemOf(error, node)];
      throw error;
    } finally {
      leave();
    }
  }

  /** Whether the record on disk still matches the layer in memory. */
  async #recordProblems(node: LayerNode): Promise<TreeProblem[]> {
    const { metadata } = this.#parts;
    const problem = (expected: string, found: string): TreeProblem => ({
      path: '/',
      what: 'record',
      expected,
      found,
      cosmetic: false,
    });
    try {
      const fields = [
        ['diff id', node.diffID, await metadata.getDiffID(node.chainID)],
        ['cache id', node.cacheID, await metadata.getCacheID(node.chainID)],
        ['parent', node.parent?.chainID, await metadata.getParent(node.chainID)],
      ] as const;
      return fields.flatMap(([name, expected, found]) =>
        expected === found
          ? []
          : [
              problem(
                `the ${name} ${expected ?? '(none)'}`,
                `its record says ${found ?? '(none)'}; release the layer and register it again`,
              ),
            ],
      );
    } catch (error) {
      if (!(error instanceof LayerStoreError)) throw error;
      // Released while it was read.
      if (node.gone) return [];
      return [problem('a record that can be read', error.message.replaceAll(`${this.#parts.root}/`, ''))];
    }
  }

  #problemOf(error: LayerStoreError, node: LayerNode): TreeProblem {
    const { code, path, message } = error;
    // A path of the store is the record's, or another file of ours; paths of problems are the layer's.
    const ours = path?.startsWith(`${this.#parts.root}/`) === true;
    const content = code === 'ERR_LAYER_CORRUPT' && !ours;
    return {
      path: content ? (path ?? '/') : '/',
      what: content ? 'content' : 'record',
      expected: content ? `a tar of digest ${node.diffID}` : 'one that can be read',
      found: ours ? message.replaceAll(` "${path}"`, '') : message,
      cosmetic: false,
    };
  }

  /** The tar must have the layer's diff id; otherwise ERR_DIGEST_MISMATCH and nothing has changed. */
  async repair(chainID: ChainID, tar: TarSource, observed: Observed<object>): Promise<void> {
    let node: LayerNode | undefined;
    try {
      node = this.#parts.layers.require(chainID);
      node.pins += 1;
      await this.repairLayer(node, tar, observed);
    } finally {
      await this.#parts.removals.unpin(node);
    }
  }

  async repairLayer(
    node: LayerNode,
    tar: TarSource,
    options: Observed<RegisterOptions>,
    descriptor?: Descriptor,
  ): Promise<void> {
    checkExchange(this.#parts.driver, node);
    const draft = await this.#parts.drafts.begin({ kind: 'repair' }, options);
    try {
      await this.#parts.driver.create(draft.cacheID, node.parent?.cacheID);
      const apply = this.#parts.drafts.applyOptions({ ...options, diffID: node.diffID }, descriptor);
      await this.#parts.drafts.unpack(draft, node.parent, tar, apply, descriptor);
      await this.#parts.drafts.sync([draft.cacheID], options.signal);
      await this.exchangeDraft(node, draft);
    } finally {
      await this.#parts.drafts.discard(draft);
    }
  }

  /** Swaps a complete draft of the same layer in; the draft then holds the damaged contents, for the caller to discard. */
  async exchangeDraft(node: LayerNode, draft: Draft): Promise<void> {
    checkExchange(this.#parts.driver, node);
    await this.#parts.locks.run(`layer:${node.chainID}`, async () => {
      await this.#parts.driver.exchange(node.cacheID, draft.cacheID);
      // A damaged tar-split record is put back with it, where the metadata store can.
      if (draft.tx !== undefined && !this.#parts.driver.capabilities.reproducesExactDiffs) {
        await this.#parts.metadata.replaceTarSplit(node.chainID, draft.tx);
      }
    });
  }
}

/** What is wrong with a record names no file of the layer, so it says what helps. Messages of errors say it themselves. */
function adviceOn({ what, found }: TreeProblem): string {
  return what === 'record' ? `${found}; repair the layer from its tar` : found;
}

function checkExchange(driver: Driver, node: LayerNode): void {
  if (driver.exchanges) return;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `cannot repair layer "${node.chainID}": the driver "${driver.name}" cannot exchange contents; release the layer and register it again`,
  );
}
