/** What a command of the command line is made of. One file a command, under `commands/`. */
import type { ParseArgsConfig } from 'node:util';
import type { Images, Store } from '../index.js';
import type { Terminal } from './terminal.js';

/** A mistake in how the command was called: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The options that every command takes. */
export interface GlobalOptions {
  root: string;
  driver?: string;
  engine?: 'native' | 'js';
  durability?: 'strict' | 'relaxed';
  json: boolean;
}

export type CommandOptions = NonNullable<ParseArgsConfig['options']>;

/** What a running command has at hand. */
export interface Context {
  readonly options: GlobalOptions;
  readonly terminal: Terminal;
  /** Aborted by Ctrl-C and by SIGTERM. */
  readonly signal: AbortSignal;
  /** Opens the store once; it is closed after the command. */
  store(how?: { readOnly?: boolean }): Promise<Store>;
  images(how?: { readOnly?: boolean }): Promise<Images>;
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
  /** Gives the exit code; nothing is 0. */
  run(
    context: Context,
    positionals: readonly string[],
    values: Readonly<Record<string, string | boolean | undefined>>,
  ): Promise<number | void>;
}
