/** The public object: checks arguments, then passes each call on to the file that knows. */
import { parseChainID, type ChainID } from '../digest.js';
import type { TarSource } from '../engine/engine.js';
import { invalidArgument } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import * as check from './arguments.js';
import { registerChain } from './chain.js';
import { commit, type CommitOptions } from './commit.js';
import type { LeftoverSource, ReferenceSource, StoreContext } from './context.js';
import type { Operation, OperationDetails } from './lifecycle.js';
import { cleanup, gc, usage } from './gc.js';
import { createHandle, lend, releaseHandle } from './layer-handle.js';
import { noteLogger } from './log.js';
import { loadReadOnly } from './recovery.js';
import { checkExpiry, checkReferenceName, noSuchReference } from './references.js';
import { registerLayer } from './register.js';
import { removeUnheld } from './removal.js';
import { repair, verify } from './verify.js';
import { createRWHandle } from './rw-handle.js';
import { createRWLayer, releaseRWLayer } from './rw-layers.js';
import { usingSources } from './source.js';
import { noteTrees } from './trees.js';
import type {
  ChainLink,
  CleanupReport,
  CloseOptions,
  CreateRWLayerOptions,
  GcReport,
  Layer,
  LayerMetadata,
  Reference,
  RegisterOptions,
  RWLayer,
  RWLayerInfo,
  Store,
  StoreUsage,
  VerifyOptions,
  VerifyReport,
} from './types.js';
import { errorFields } from '../util/logger.js';
import { formatValue } from '../util/quote.js';

export class LayerStore implements Store {
  readonly #ctx: StoreContext;
  readonly #shutdown: (how: CloseOptions) => Promise<void>;
  readonly #status: readonly (readonly [string, string])[];

  /** `shutdown` ends what the store was made of. */
  constructor(ctx: StoreContext, shutdown: (how: CloseOptions) => Promise<void>) {
    this.#ctx = ctx;
    this.#shutdown = shutdown;
    noteLogger(this, ctx.logger);
    noteTrees(this, ctx);
    this.#status = [
      ['Engine', ctx.engine.name],
      ['Kernel', ctx.engine.features().kernel],
      ['Durability', ctx.durability],
    ];
  }

  get driverName(): string {
    return this.#ctx.driver.name;
  }

  get engineName(): 'native' | 'js' {
    return this.#ctx.engine.name;
  }

  get root(): string {
    return this.#ctx.root;
  }

  get readOnly(): boolean {
    return this.#ctx.readOnly;
  }

  get durability(): 'strict' | 'relaxed' {
    return this.#ctx.durability;
  }

  get closed(): boolean {
    return this.#ctx.lifecycle.closed;
  }

  async register(tar: TarSource, parent?: ChainID, options?: RegisterOptions): Promise<Layer> {
    return usingSources([tar], async () => {
      const source = check.checkSource(tar);
      const below = check.checkParent(parent);
      const given = check.checkRegisterOptions(options, 'register');
      return this.#write('register', (details) =>
        this.#made(details, registerLayer(this.#ctx, source, below, { ...given, details })),
      );
    });
  }

  async registerWithDescriptor(
    tar: TarSource,
    parent: ChainID | undefined,
    descriptor: Descriptor,
    options?: RegisterOptions,
  ): Promise<Layer> {
    return usingSources([tar], async () => {
      const source = check.checkSource(tar);
      const below = check.checkParent(parent);
      const described = check.checkDescriptor(descriptor);
      const given = check.checkRegisterOptions(options, 'registerWithDescriptor');
      return this.#write('register', (details) =>
        this.#made(details, registerLayer(this.#ctx, source, below, { ...given, details }, described)),
      );
    });
  }

  async registerChain(layers: readonly ChainLink[], parent?: ChainID, options?: RegisterOptions): Promise<Layer> {
    return usingSources(sourcesOf(layers), async () => {
      const links = check.checkLinks(layers);
      const below = check.checkParent(parent);
      const given = check.checkChainOptions(options);
      return this.#write('registerChain', (details) => {
        details.layers = links.length;
        return this.#made(details, registerChain(this.#ctx, links, below, { ...given, details }));
      });
    });
  }

  async get(chainID: ChainID): Promise<Layer> {
    const id = parseChainID(chainID);
    return this.#read('get', async (details) => {
      details.chainID = id;
      return createHandle(this.#ctx, this.#ctx.layers.require(id));
    });
  }

  map(): ReadonlyMap<ChainID, Layer> {
    this.#ctx.lifecycle.check('map');
    return new Map([...this.#ctx.layers].map((node) => [node.chainID, lend(this.#ctx, node)]));
  }

  async release(layer: Layer): Promise<LayerMetadata[]> {
    // A reader's handles end too; it only removes nothing.
    return this.#read('release', async (details) =>
      this.#removed(
        details,
        releaseHandle(this.#ctx, layer, async (node) => {
          details.chainID = node.chainID;
          return this.#ctx.readOnly ? [] : removeUnheld(this.#ctx, node);
        }),
      ),
    );
  }

  async retain(chainID: ChainID, name: string, options?: { expires?: Date }): Promise<void> {
    const id = parseChainID(chainID);
    const as = checkReferenceName(name);
    check.checkOptions(options, 'options of retain', ['expires']);
    const expires = checkExpiry(options?.expires);
    return this.#write('retain', async (details) => {
      details.chainID = id;
      details.name = as;
      // In the list from the first synchronous step on, so that no release comes in between.
      this.#ctx.layers.require(id);
      await this.#ctx.references.set(as, id, expires);
    });
  }

  async dropReference(name: string): Promise<LayerMetadata[]> {
    const dropped = checkReferenceName(name);
    return this.#write('dropReference', async (details) => {
      const reference = this.#ctx.references.find(dropped);
      if (reference === undefined) throw noSuchReference(dropped);
      details.name = dropped;
      details.chainID = reference.chainID;
      await this.#ctx.references.drop([dropped]);
      const node = this.#ctx.layers.find(reference.chainID);
      if (node === undefined) return [];
      try {
        return await this.#removed(details, removeUnheld(this.#ctx, node));
      } catch (error) {
        // The reference is dropped, as asked. Its layer has no reference now and stays until it can be removed.
        const { chainID } = node;
        this.#ctx.logger.error({ chainID, ...errorFields(error) }, 'an unreferenced layer stays; gc tries again');
        return [];
      }
    });
  }

  references(): readonly Reference[] {
    this.#ctx.lifecycle.check('references');
    return this.#ctx.references.list();
  }

  addReferenceSource(source: ReferenceSource): void {
    this.#ctx.lifecycle.check('addReferenceSource');
    if (typeof source !== 'function')
      throw invalidArgument(`a reference source must be a function, not ${formatValue(source)}`);
    this.#ctx.referenceSources.push(source);
  }

  addLeftoverSource(source: LeftoverSource): void {
    this.#ctx.lifecycle.check('addLeftoverSource');
    if (typeof source !== 'function')
      throw invalidArgument(`a leftover source must be a function, not ${formatValue(source)}`);
    this.#ctx.leftoverSources.push(source);
  }

  async createRWLayer(name: string, parent?: ChainID, options?: CreateRWLayerOptions): Promise<RWLayer> {
    const as = check.checkRWName(name);
    const below = check.checkParent(parent);
    const given = check.checkCreateOptions(options);
    return this.#write('createRWLayer', (details) => {
      details.name = as;
      if (below !== undefined) details.parent = below;
      return createRWLayer(this.#ctx, as, below, given);
    });
  }

  async getRWLayer(name: string): Promise<RWLayer> {
    const wanted = check.checkRWName(name);
    return this.#read('getRWLayer', async (details) => {
      details.name = wanted;
      return createRWHandle(this.#ctx, this.#ctx.rwLayers.require(wanted));
    });
  }

  async getMountID(name: string): Promise<string> {
    const wanted = check.checkRWName(name);
    this.#ctx.lifecycle.check('getMountID');
    return this.#ctx.rwLayers.require(wanted).mountID;
  }

  mounts(): ReadonlyMap<string, RWLayerInfo> {
    this.#ctx.lifecycle.check('mounts');
    return new Map([...this.#ctx.rwLayers].map((node) => [node.name, node.info()]));
  }

  async releaseRWLayer(layer: RWLayer): Promise<LayerMetadata[]> {
    return this.#write('releaseRWLayer', (details) => this.#removed(details, releaseRWLayer(this.#ctx, layer)));
  }

  async commit(layer: RWLayer, options?: CommitOptions): Promise<Layer> {
    const given: CommitOptions = check.checkRegisterOptions(options, 'commit', ['consume']);
    check.checkBoolean(given.consume, '"consume"');
    if (given.verifyExisting !== undefined) throw invalidArgument('"verifyExisting" needs a tar: commit() has none');
    return this.#write('commit', (details) => this.#made(details, commit(this.#ctx, layer, { ...given, details })));
  }

  async verify(chainID?: ChainID, options?: VerifyOptions): Promise<VerifyReport> {
    const id = chainID === undefined ? undefined : parseChainID(chainID);
    const given = check.checkVerifyOptions(options);
    return this.#read('verify', async (details) => {
      const report = await verify(this.#ctx, id, given);
      details.layers = report.layers.length;
      return report;
    });
  }

  async repair(chainID: ChainID, tar: TarSource): Promise<void> {
    return usingSources([tar], async () => {
      const id = parseChainID(chainID);
      const source = check.checkSource(tar);
      return this.#write('repair', (details) => {
        details.chainID = id;
        return repair(this.#ctx, id, source, { details });
      });
    });
  }

  async cleanup(): Promise<CleanupReport> {
    return this.#write('cleanup', async (details) => {
      const report = await cleanup(this.#ctx);
      details.bytes = report.bytes;
      return report;
    });
  }

  async gc(options?: { dryRun?: boolean }): Promise<GcReport> {
    check.checkOptions(options, 'options of gc', ['dryRun']);
    check.checkBoolean(options?.dryRun, '"dryRun"');
    const dryRun = options?.dryRun === true;
    const run = async (details: OperationDetails): Promise<GcReport> => {
      const report = await gc(this.#ctx, dryRun);
      details.bytes = report.bytes;
      details.removed = report.removed.length;
      return report;
    };
    return dryRun ? this.#read('gc', run) : this.#write('gc', run);
  }

  async usage(): Promise<StoreUsage> {
    return this.#read('usage', () => usage(this.#ctx));
  }

  async refresh(): Promise<void> {
    // A writer has seen everything, since it alone publishes.
    return this.#read('refresh', async () => {
      if (this.#ctx.readOnly) await this.#ctx.locks.run('refresh', () => loadReadOnly(this.#ctx));
    });
  }

  driverStatus(): readonly (readonly [string, string])[] {
    this.#ctx.lifecycle.check('driverStatus');
    const status = this.#ctx.driver.status();
    const said = new Set(status.map(([key]) => key));
    return [...status, ...this.#status.filter(([key]) => !said.has(key))];
  }

  async close(options: CloseOptions = {}): Promise<void> {
    check.checkOptions(options, 'options of close', ['signal', 'onPending']);
    check.checkSignal(options.signal);
    check.checkFunction(options.onPending, '"onPending"');
    return this.#ctx.lifecycle.close(() => this.#shutdown(options));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #read<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#ctx.lifecycle.read(operation, work);
  }

  #write<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#ctx.lifecycle.write(operation, work);
  }

  async #made(details: OperationDetails, making: Promise<Layer>): Promise<Layer> {
    const layer = await making;
    details.chainID = layer.chainID;
    details.diffID = layer.diffID;
    if (layer.parent !== undefined) details.parent = layer.parent.chainID;
    return layer;
  }

  async #removed(details: OperationDetails, removing: Promise<LayerMetadata[]>): Promise<LayerMetadata[]> {
    const removed = await removing;
    details.removed = removed.length;
    details.bytes = removed.reduce((sum, { diffSize }) => sum + diffSize, 0);
    return removed;
  }
}

/** Whatever a caller passed as the sources of a chain, before anything of it is checked. */
function sourcesOf(layers: unknown): unknown[] {
  return Array.isArray(layers) ? layers.map((link: { tar?: unknown } | null | undefined) => link?.tar) : [];
}
