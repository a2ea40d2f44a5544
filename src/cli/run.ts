/** Runs one command: parse, open what it asks for, print one result or one line of error, close. */
import { LayerStoreError, openImages, openStore, type Images, type Store } from '../index.js';
import { parseArguments, type Parsed } from './arguments.js';
import { UsageError, type Context, type GlobalOptions } from './command.js';
import { commands } from './commands/index.js';
import { commandHelp, overview } from './help.js';
import type { ErrorJson } from './json.js';
import { Terminal, type TerminalStreams } from './terminal.js';
import { packageVersion } from './version.js';

export async function run(words: readonly string[], streams: TerminalStreams, signal: AbortSignal): Promise<number> {
  const wantsJson = words.includes('--json');
  const terminal = new Terminal(streams, wantsJson);
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
  const opened = new Opened(options, terminal);
  try {
    const context: Context = {
      options,
      terminal,
      signal,
      store: (how) => opened.store(how?.readOnly === true),
      images: async (how) => opened.images(how?.readOnly === true),
    };
    return (await command.run(context, positionals, values)) ?? 0;
  } catch (error) {
    if (error instanceof UsageError) {
      return fail(
        terminal,
        2,
        'ERR_INVALID_ARGUMENT',
        `${error.message} (\`layerstore ${command.name} --help\` shows how)`,
      );
    }
    if (signal.aborted) return fail(terminal, 1, 'ABORT_ERR', 'interrupted; nothing was left behind');
    return fail(terminal, 1, errorCode(error), error instanceof Error ? error.message : String(error));
  } finally {
    terminal.done();
    await opened.close();
  }
}

/** What a command opened, at most once each. */
class Opened {
  readonly #options: GlobalOptions;
  readonly #terminal: Terminal;
  #store: Promise<Store> | undefined;
  #images: Promise<Images> | undefined;

  constructor(options: GlobalOptions, terminal: Terminal) {
    this.#options = options;
    this.#terminal = terminal;
  }

  store(readOnly: boolean): Promise<Store> {
    this.#store ??= this.#open(readOnly);
    return this.#store;
  }

  images(readOnly: boolean): Promise<Images> {
    this.#images ??= this.store(readOnly).then(openImages);
    return this.#images;
  }

  #open(readOnly: boolean): Promise<Store> {
    const { root, driver, engine, durability } = this.#options;
    if (driver !== undefined && driver !== 'overlay2' && driver !== 'vfs') {
      throw new UsageError(`--driver takes overlay2 or vfs, not "${driver}"`);
    }
    const say = (_fields: object, message: string): void => this.#terminal.note(message);
    const quiet = (): void => undefined;
    return openStore({
      root,
      readOnly,
      logger: { debug: quiet, info: quiet, warn: say, error: say },
      ...(driver === undefined ? {} : { driver }),
      ...(engine === undefined ? {} : { engine }),
      ...(durability === undefined ? {} : { durability }),
    });
  }

  async close(): Promise<void> {
    const store = await this.#store?.catch(() => undefined); // a failed open was reported by the command itself
    await store?.close();
  }
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
