/**
 * What an embedding program can watch: one `node:diagnostics_channel` an operation, named `layerstore:OPERATION`. A
 * message is published when the operation has ended; building it costs nothing where nobody listens.
 */
import { channel, type Channel } from 'node:diagnostics_channel';

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
}

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
