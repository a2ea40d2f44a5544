/** Runs one command: parse, open what it asks for, print one result or one line of error, close. */
import { constants } from 'node:os';
import { LayerStoreError } from '../index.js';
import { formatValue } from '../util/quote.js';
import { parseArguments, type Parsed } from './arguments.js';
import type { Context } from './command.js';
import { commands } from './commands/index.js';
import { commandHelp, overview } from './help.js';
import type { ErrorJson } from './json.js';
import { Opened } from './opened.js';
import { Terminal, type TerminalStreams } from './terminal.js';
import { UsageError } from './usage-error.js';
import { packageVersion } from './version.js';

/** The reason of the signal that stops a command. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP';

  constructor(signal: Interrupted['signal']) {
    super(`stopped by ${signal}`);
    this.signal = signal;
  }
}

/** What the shell reports of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM. */
export function signalExitCode(signal: Interrupted['signal']): number {
  return 128 + constants.signals[signal];
}

/** How a running command is stopped. */
export interface Stop {
  /** Ends the work; what was begun is removed. Its reason is an {@link Interrupted}. */
  readonly signal: AbortSignal;
  /** Ends that removal, too. */
  readonly hurry: AbortSignal;
}

export async function run(
  words: readonly string[],
  streams: TerminalStreams,
  { signal, hurry }: Stop,
): Promise<number> {
  const terminal = new Terminal(streams, words.includes('--json'));
  let parsed: Parsed;
  try {
    parsed = parseArguments(words, commands, streams.env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return fail(terminal, 2, 'ERR_INVALID_ARGUMENT', `${error.message} (\`layerstore --help\` shows how)`);
  }
  if (parsed.kind === 'help') {
    streams.stdout.write(`${parsed.command === undefined ? overview(commands) : commandHelp(parsed.command)}\n`);
    return 0;
  }
  if (parsed.kind === 'version') {
    streams.stdout.write(`${packageVersion()}\n`);
    return 0;
  }
  const { command, options, positionals, values } = parsed;
  const stopping = (): void => {
    if (terminal.interactive)
      terminal.note('layerstore: stopping, and removing what was begun; Ctrl-C again ends at once');
  };
  signal.addEventListener('abort', stopping);
  const opened = new Opened(options, terminal);
  const context: Context = {
    options,
    terminal,
    signal,
    store: (access) => opened.store(access),
    images: (access) => opened.images(access),
  };
  let code = 0;
  let failure: unknown;
  let pending = 0;
  try {
    code = (await command.run(context, positionals, values)) ?? 0;
  } catch (error) {
    failure = error;
  }
  terminal.done();
  try {
    // What a failed command made is taken away before anything is said of it.
    pending = await opened.close(hurry);
  } catch (error) {
    failure ??= error;
  }
  signal.removeEventListener('abort', stopping);
  const left =
    pending === 0
      ? ''
      : `files of ${pending} removed or unfinished layers are still on disk: the next command that changes this store removes them`;
  if (left !== '' && !signal.aborted) terminal.note(`layerstore: ${left}`);
  if (failure === undefined) return code;
  if (failure instanceof UsageError) {
    const message = `${failure.message} (\`layerstore ${command.name} --help\` shows how)`;
    return fail(terminal, 2, 'ERR_INVALID_ARGUMENT', message);
  }
  const reason: unknown = signal.reason;
  if (reason instanceof Interrupted) {
    const message = `interrupted by ${reason.signal}${left === '' ? '' : `; ${left}`}`;
    return fail(terminal, signalExitCode(reason.signal), 'ABORT_ERR', message);
  }
  return fail(
    terminal,
    1,
    errorCode(failure),
    failure instanceof Error ? failure.message : `a failure that is not an error: ${formatValue(failure)}`,
  );
}

function errorCode(error: unknown): string {
  if (error instanceof LayerStoreError) return error.code;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return 'ERR_INTERNAL';
}

function fail(terminal: Terminal, exitCode: number, code: string, message: string): number {
  const oneLine = message.replaceAll(/\s*\n\s*/g, ' ');
  if (terminal.json) terminal.result({ error: { code, message: oneLine } } satisfies ErrorJson, () => '');
  terminal.note(`layerstore: ${oneLine}`);
  return exitCode;
}
