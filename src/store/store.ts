/** The public object: checks arguments, then passes each call on to the file that knows. */
import * as check from './arguments.js';
import { type ChainID, parseChainID } from '../digest.js';
import type { Driver } from '../driver/driver.js';
import type { Engine, TarSource } from '../engine/engine.js';
import { invalidArgument } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { formatValue } from '../util/quote.js';
import type { CommitOptions, Commits } from './commit.js';
import type { DiskSpace, LeftoverSource } from './gc.js';
import type { LayerHandles } from './layer-handle.js';
import type { LayerMap, RWMap } from './layer-map.js';
import type { Lifecycle, Operation, OperationDetails } from './lifecycle.js';
import { noteLogger } from './log.js';
import type { Recovery } from './recovery.js';
import {
  checkExpiry,
  checkReferenceName,
  noSuchReference,
  type References,
  type ReferenceSource,
} from './references.js';
import type { Registrations } from './register.js';
import type { Removals } from './removal.js';
import type { RWHandles } from './rw-handle.js';
import type { RWLayers } from './rw-layers.js';
import { usingSources } from './source.js';
import { noteTrees, type Trees } from './trees.js';
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
import type { Verification } from './verify.js';

/** What the public methods pass calls on to. */
export interface StoreParts {
  readonly root: string;
  readonly readOnly: boolean;
  readonly durability: 'strict' | 'relaxed';
  readonly engine: Engine;
  readonly driver: Driver;
  readonly logger: LoggerLike;
  readonly lifecycle: Lifecycle;
  readonly layers: LayerMap;
  readonly rwLayers: RWMap;
  readonly references: References;
  readonly handles: LayerHandles;
  readonly registrations: Registrations;
  readonly removals: Removals;
  readonly rw: RWLayers;
  readonly rwHandles: RWHandles;
  readonly commits: Commits;
  readonly verification: Verification;
  readonly space: DiskSpace;
  readonly recovery: Recovery;
  readonly trees: Trees;
}

export class LayerStore implements Store {
  readonly #parts: StoreParts;
  readonly #shutdown: (how: CloseOptions) => Promise<void>;
  readonly #status: readonly (readonly [string, string])[];

  /** `shutdown` ends what the store was made of. */
  constructor(parts: StoreParts, shutdown: (how: CloseOptions) => Promise<void>) {
    this.#parts = parts;
    this.#shutdown = shutdown;
    noteLogger(this, parts.logger);
    noteTrees(this, parts.trees);
    this.#status = [
      ['Engine', parts.engine.name],
      ['Kernel', parts.engine.features().kernel],
      ['Durability', parts.durability],
    ];
  }

  get driverName(): string {
    return this.#parts.driver.name;
  }

  get engineName(): 'native' | 'js' {
    return this.#parts.engine.name;
  }

  get root(): string {
    return this.#parts.root;
  }

  get readOnly(): boolean {
    return this.#parts.readOnly;
  }

  get durability(): 'strict' | 'relaxed' {
    return this.#parts.durability;
  }

  get closed(): boolean {
    return this.#parts.lifecycle.closed;
  }

  async register(tar: TarSource, parent?: ChainID, options?: RegisterOptions): Promise<Layer> {
    return usingSources([tar], async () => {
      const source = check.checkSource(tar);
      const below = check.checkParent(parent);
      const given = check.checkRegisterOptions(options, 'register');
      return this.#write('register', (details) =>
        this.#made(details, this.#parts.registrations.register(source, below, { ...given, details })),
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
        this.#made(details, this.#parts.registrations.register(source, below, { ...given, details }, described)),
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
        return this.#made(details, this.#parts.registrations.registerChain(links, below, { ...given, details }));
      });
    });
  }

  async get(chainID: ChainID): Promise<Layer> {
    const id = parseChainID(chainID);
    return this.#read('get', async (details) => {
      details.chainID = id;
      return this.#parts.handles.create(this.#parts.layers.require(id));
    });
  }

  map(): ReadonlyMap<ChainID, Layer> {
    this.#parts.lifecycle.check('map');
    return new Map([...this.#parts.layers].map((node) => [node.chainID, this.#parts.handles.lend(node)]));
  }

  async release(layer: Layer): Promise<LayerMetadata[]> {
    // A reader's handles end too; it only removes nothing.
    return this.#read('release', async (details) =>
      this.#removed(
        details,
        this.#parts.handles.release(layer, async (node) => {
          details.chainID = node.chainID;
          return this.#parts.readOnly ? [] : this.#parts.removals.removeUnheld(node);
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
      this.#parts.layers.require(id);
      await this.#parts.references.set(as, id, expires);
    });
  }

  async dropReference(name: string): Promise<LayerMetadata[]> {
    const dropped = checkReferenceName(name);
    return this.#write('dropReference', async (details) => {
      const reference = this.#parts.references.find(dropped);
      if (reference === undefined) throw noSuchReference(dropped);
      details.name = dropped;
      details.chainID = reference.chainID;
      await this.#parts.references.drop([dropped]);
      const node = this.#parts.layers.find(reference.chainID);
      if (node === undefined) return [];
      try {
        return await this.#removed(details, this.#parts.removals.removeUnheld(node));
      } catch (error) {
        // The reference is dropped, as asked. Its layer has no reference now and stays until it can be removed.
        const { chainID } = node;
        this.#parts.logger.error({ chainID, ...errorFields(error) }, 'an unreferenced layer stays; gc tries again');
        return [];
      }
    });
  }

  references(): readonly Reference[] {
    this.#parts.lifecycle.check('references');
    return this.#parts.references.list();
  }

  addReferenceSource(source: ReferenceSource): void {
    this.#parts.lifecycle.check('addReferenceSource');
    if (typeof source !== 'function')
      throw invalidArgument(`a reference source must be a function, not ${formatValue(source)}`);
    this.#parts.references.addSource(source);
  }

  addLeftoverSource(source: LeftoverSource): void {
    this.#parts.lifecycle.check('addLeftoverSource');
    if (typeof source !== 'function')
      throw invalidArgument(`a leftover source must be a function, not ${formatValue(source)}`);
    this.#parts.space.addLeftoverSource(source);
  }

  async createRWLayer(name: string, parent?: ChainID, options?: CreateRWLayerOptions): Promise<RWLayer> {
    const as = check.checkRWName(name);
    const below = check.checkParent(parent);
    const given = check.checkCreateOptions(options);
    return this.#write('createRWLayer', (details) => {
      details.name = as;
      if (below !== undefined) details.parent = below;
      return this.#parts.rw.create(as, below, given);
    });
  }

  async getRWLayer(name: string): Promise<RWLayer> {
    const wanted = check.checkRWName(name);
    return this.#read('getRWLayer', async (details) => {
      details.name = wanted;
      return this.#parts.rwHandles.create(this.#parts.rwLayers.require(wanted));
    });
  }

  async getMountID(name: string): Promise<string> {
    const wanted = check.checkRWName(name);
    this.#parts.lifecycle.check('getMountID');
    return this.#parts.rwLayers.require(wanted).mountID;
  }

  mounts(): ReadonlyMap<string, RWLayerInfo> {
    this.#parts.lifecycle.check('mounts');
    return new Map([...this.#parts.rwLayers].map((node) => [node.name, node.info()]));
  }

  async releaseRWLayer(layer: RWLayer): Promise<LayerMetadata[]> {
    return this.#write('releaseRWLayer', (details) => this.#removed(details, this.#parts.rw.release(layer)));
  }

  async commit(layer: RWLayer, options?: CommitOptions): Promise<Layer> {
    const given: CommitOptions = check.checkRegisterOptions(options, 'commit', ['consume']);
    check.checkBoolean(given.consume, '"consume"');
    if (given.verifyExisting !== undefined) throw invalidArgument('"verifyExisting" needs a tar: commit() has none');
    return this.#write('commit', (details) =>
      this.#made(details, this.#parts.commits.commit(layer, { ...given, details })),
    );
  }

  async verify(chainID?: ChainID, options?: VerifyOptions): Promise<VerifyReport> {
    const id = chainID === undefined ? undefined : parseChainID(chainID);
    const given = check.checkVerifyOptions(options);
    return this.#read('verify', async (details) => {
      const report = await this.#parts.verification.verify(id, given);
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
        return this.#parts.verification.repair(id, source, { details });
      });
    });
  }

  async cleanup(): Promise<CleanupReport> {
    return this.#write('cleanup', async (details) => {
      const report = await this.#parts.space.cleanup();
      details.bytes = report.bytes;
      return report;
    });
  }

  async gc(options?: { dryRun?: boolean }): Promise<GcReport> {
    check.checkOptions(options, 'options of gc', ['dryRun']);
    check.checkBoolean(options?.dryRun, '"dryRun"');
    const dryRun = options?.dryRun === true;
    const run = async (details: OperationDetails): Promise<GcReport> => {
      const report = await this.#parts.space.gc(dryRun);
      details.bytes = report.bytes;
      details.removed = report.removed.length;
      return report;
    };
    return dryRun ? this.#read('gc', run) : this.#write('gc', run);
  }

  async usage(): Promise<StoreUsage> {
    return this.#read('usage', () => this.#parts.space.usage());
  }

  async refresh(): Promise<void> {
    // A writer has seen everything, since it alone publishes.
    return this.#read('refresh', async () => {
      if (this.#parts.readOnly) await this.#parts.recovery.refresh();
    });
  }

  driverStatus(): readonly (readonly [string, string])[] {
    this.#parts.lifecycle.check('driverStatus');
    const status = this.#parts.driver.status();
    const said = new Set(status.map(([key]) => key));
    return [...status, ...this.#status.filter(([key]) => !said.has(key))];
  }

  async close(options: CloseOptions = {}): Promise<void> {
    check.checkOptions(options, 'options of close', ['signal', 'onPending']);
    check.checkSignal(options.signal);
    check.checkFunction(options.onPending, '"onPending"');
    return this.#parts.lifecycle.close(() => this.#shutdown(options));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #read<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#parts.lifecycle.read(operation, work);
  }

  #write<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    return this.#parts.lifecycle.write(operation, work);
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
