/** What an operation is: set up once, run many times, torn down. */
import type { Sample } from './sample.js';

export interface Parameters {
  engine: 'native' | 'js';
  /** A directory of this operation's own. */
  scratch: string;
  /** The engine that makes what a run starts from, where that is not measured; default `engine`. */
  prepare?: 'native' | 'js';
  durability: 'strict' | 'relaxed';
  /** Tars, base first. */
  tars: readonly string[];
  diffIDs?: readonly string[];
  count?: number;
  inFlight?: number;
}

export interface Operation {
  run(): Promise<Sample>;
  teardown(): Promise<void>;
}

export type Setup = (parameters: Parameters) => Promise<Operation>;
