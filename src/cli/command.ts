/** What a command of the command line is made of. One file a command, under `commands/`. */
import type { ParseArgsConfig } from 'node:util';
import type { Images, Store } from '../index.js';
import type { Terminal } from './terminal.js';
import type { Values } from './values.js';

/** The options that every command takes. */
export interface GlobalOptions {
  root: string;
  driver?: 'overlay2' | 'vfs';
  engine?: 'native' | 'js';
  durability?: 'strict' | 'relaxed';
  json: boolean;
  /** `--storage-opt`, for the driver. */
  driverOptions?: Readonly<Record<string, string>>;
}

export type CommandOptions = NonNullable<ParseArgsConfig['options']>;

/**
 * What a command does to the store: `read` it beside a writer, `change` one that is there, or `make` one where none is.
 * Only commands that bring content in make one, so that a mistyped root is told.
 */
export type Access = 'read' | 'change' | 'make';

/** What a running command has at hand. */
export interface Context {
  readonly options: GlobalOptions;
  readonly terminal: Terminal;
  /** Aborted by Ctrl-C and by SIGTERM. */
  readonly signal: AbortSignal;
  /** Opens the store once; it is closed after the command. */
  store(access: Access): Promise<Store>;
  images(access: Access): Promise<Images>;
}

export interface Command {
  readonly name: string;
  /** One line for the overview. */
  readonly summary: string;
  /** Arguments and options as shown after the name. */
  readonly usage: string;
  /** Further lines of help. */
  readonly details?: string;
  readonly examples: readonly string[];
  readonly options?: CommandOptions;
  /** Least and most positional arguments. */
  readonly positionals: readonly [number, number];
  /** All that follows the name is a program with its own options. */
  readonly verbatim?: boolean;
  /** What the arguments name, for shell completion. */
  readonly completes: readonly ('file' | 'rw' | 'layer' | 'image')[];
  /** Gives the exit code; nothing is 0. */
  run(context: Context, positionals: readonly string[], values: Values): Promise<number | void>;
}
