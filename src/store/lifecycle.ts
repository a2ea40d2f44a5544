/**
 * Operations of a store: whether it takes them, which of them run, and how each is told to who watches, by one
 * `node:diagnostics_channel` an operation, named `layerstore:OPERATION`. A message is published when the operation has ended;
 * building it costs nothing without a listener.
 */
import { channel, type Channel } from 'node:diagnostics_channel';
import { LayerStoreError } from '../errors.js';

/** Every operation that has a channel. */
export const OPERATIONS = [
  'open',
  'register',
  'registerChain',
  'get',
  'release',
  'retain',
  'dropReference',
  'createRWLayer',
  'getRWLayer',
  'releaseRWLayer',
  'commit',
  'verify',
  'repair',
  'cleanup',
  'gc',
  'usage',
  'refresh',
  'close',
  'tarStream',
  'tarStreamFrom',
  'exportTo',
  'tarSize',
  'entries',
  'view',
  'mount',
  'unmount',
  'changes',
  'size',
  'applyDiff',
  'metadata',
] as const;
export type Operation = (typeof OPERATIONS)[number];

/** Sizes are bytes; ids are those of the operation's subject and result. */
export interface OperationDetails {
  chainID?: string;
  diffID?: string;
  parent?: string;
  name?: string;
  bytes?: number;
  entries?: number;
  layers?: number;
  removed?: number;
  /** Of the archives that were unpacked: extended attributes that were not set, summed up over a chain. */
  ignoredXattrs?: number;
  /** The same: files whose owner or group was not set. */
  ignoredOwners?: number;
}

/** The options of an operation, with the details of its event. */
export type Observed<Options> = Options & { readonly details: OperationDetails };

/** The message on each channel. */
export interface OperationEvent extends OperationDetails {
  operation: Operation;
  root: string;
  /** Milliseconds from call to settlement. */
  duration: number;
  outcome: 'ok' | 'error';
  /** What the operation rejected with. */
  error?: unknown;
}

const channels = new Map<Operation, Channel>(OPERATIONS.map((name) => [name, channel(`layerstore:${name}`)]));

/** Runs `work` and publishes how it went; `work` may fill in `details` as it learns them. */
export async function observed<T>(
  operation: Operation,
  root: string,
  work: (details: OperationDetails) => Promise<T>,
): Promise<T> {
  const listeners = channels.get(operation);
  if (listeners?.hasSubscribers !== true) return work({});
  const details: OperationDetails = {};
  const began = performance.now();
  const publish = (outcome: 'ok' | 'error', error?: unknown): void => {
    const event: OperationEvent = { operation, root, duration: performance.now() - began, outcome, ...details };
    if (outcome === 'error') event.error = error;
    listeners.publish(event);
  };
  try {
    const result = await work(details);
    publish('ok');
    return result;
  } catch (error) {
    publish('error', error);
    throw error;
  }
}

export class Lifecycle {
  readonly #root: string;
  readonly #readOnly: boolean;
  readonly #running = new Set<Promise<unknown>>();
  /** Ends streams and views that are still open when the store closes. */
  readonly #open = new Set<() => Promise<void>>();
  #closing: Promise<void> | undefined;

  constructor(root: string, readOnly: boolean) {
    this.#root = root;
    this.#readOnly = readOnly;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Throws ERR_STORE_CLOSED after `close` was called. */
  check(operation: string): void {
    if (this.closed) {
      throw new LayerStoreError(
        'ERR_STORE_CLOSED',
        `cannot ${operation}: the store at "${this.#root}" is closed; open it again with openStore()`,
      );
    }
  }

  /** Throws ERR_READ_ONLY in a store that was opened so. */
  checkWritable(operation: string): void {
    if (this.#readOnly) {
      throw new LayerStoreError(
        'ERR_READ_ONLY',
        `cannot ${operation}: the store at "${this.#root}" is open read-only; open it without "readOnly" to change it`,
      );
    }
  }

  /** One operation: refused after close, counted until it settles, published on its channel. */
  async read<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    this.check(operation);
    const run = observed(operation, this.#root, work);
    this.#running.add(run);
    try {
      return await run;
    } finally {
      this.#running.delete(run);
    }
  }

  /** The same, for an operation that changes something. */
  async write<T>(operation: Operation, work: (details: OperationDetails) => Promise<T>): Promise<T> {
    this.check(operation);
    this.checkWritable(operation);
    return this.read(operation, work);
  }

  /** Something outlives its operation: `end` is called when the store closes, unless it has {@link ended} before. */
  opened(end: () => Promise<void>): void {
    this.#open.add(end);
  }

  ended(end: () => Promise<void>): void {
    this.#open.delete(end);
  }

  /** Refuses new work, waits for what runs, ends what is open, then the rest by `finish`; the second caller waits for the first. */
  close(finish: () => Promise<void>): Promise<void> {
    this.#closing ??= observed('close', this.#root, async () => {
      // What fails there is its caller's to hear, not ours.
      await Promise.allSettled(this.#running);
      for (const end of [...this.#open]) await end();
      await finish();
    });
    return this.#closing;
  }
}
