/** From words to a command with its options: pure, everything wrong is a UsageError. */
import { parseArgs } from 'node:util';
import type { Command, CommandOptions, GlobalOptions } from './command.js';
import { defaultRoot } from './default-root.js';
import { UsageError } from './usage-error.js';
import { Values, type RawValues } from './values.js';
import { defined } from '../util/defined.js';

export const GLOBAL_OPTIONS = {
  root: { type: 'string' },
  driver: { type: 'string' },
  engine: { type: 'string' },
  durability: { type: 'string' },
  'storage-opt': { type: 'string', multiple: true },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
} as const satisfies CommandOptions;

/** Other names of commands, and what they stand for. */
export const ALIASES: Readonly<Record<string, readonly string[]>> = {
  rmi: ['rm', '--type', 'image'],
  unmount: ['umount'],
  version: ['--version'],
};

export type Parsed =
  | { kind: 'help'; command: Command | undefined }
  | { kind: 'version' }
  | { kind: 'run'; command: Command; options: GlobalOptions; positionals: string[]; values: Values };

/** Options may stand before and after the command's name. */
export function parseArguments(
  given: readonly string[],
  commands: readonly Command[],
  env: Readonly<Record<string, string | undefined>>,
): Parsed {
  const expanded = expandAlias(given);
  const at = commandIndex(expanded);
  const words = keepVerbatim(expanded, at, commands);
  const command = at === -1 ? undefined : commands.find(({ name }) => name === words[at]);
  const options: CommandOptions = { ...GLOBAL_OPTIONS, ...command?.options };
  const { values: raw, positionals } = parse(words, options, command?.name ?? 'layerstore');
  const values = new Values(raw);
  if (values.flag('version')) return { kind: 'version' };
  if (command === undefined) {
    const [name, topic] = positionals;
    if (name !== undefined && name !== 'help') throw new UsageError(unknownCommand(name, commands));
    const about = commands.find((each) => each.name === (ALIASES[topic ?? '']?.[0] ?? topic));
    if (topic !== undefined && about === undefined) throw new UsageError(unknownCommand(topic, commands));
    return { kind: 'help', command: about };
  }
  if (values.flag('help')) return { kind: 'help', command };
  const rest = positionals.slice(1);
  const [least, most] = command.positionals;
  if (rest.length < least || rest.length > most) {
    throw new UsageError(
      `${command.name} takes ${command.usage === '' ? 'no arguments' : command.usage}; ${rest.length} given`,
    );
  }
  const driver = values.oneOf('driver', ['overlay2', 'vfs']);
  const engine = values.oneOf('engine', ['native', 'js']);
  const durability = values.oneOf('durability', ['strict', 'relaxed']);
  return {
    kind: 'run',
    command,
    options: {
      root: values.text('root') ?? env['LAYERSTORE_ROOT'] ?? defaultRoot(env),
      json: values.flag('json'),
      ...defined({ driver, engine, durability, driverOptions: driverOptionsOf(values) }),
    },
    positionals: rest,
    values,
  };
}

/** Where the command stands: the first word that is neither an option nor the value of a global one; -1: nowhere. */
function commandIndex(words: readonly string[]): number {
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? '';
    if (word === '--') return -1;
    if (!word.startsWith('-')) return i;
    const name = word.replace(/^--/, '');
    if (name in GLOBAL_OPTIONS && GLOBAL_OPTIONS[name as keyof typeof GLOBAL_OPTIONS].type === 'string') i++;
  }
  return -1;
}

/** Puts `--` before the arguments of a command that passes them on; options before the first of them are its own. */
function keepVerbatim(words: readonly string[], at: number, commands: readonly Command[]): readonly string[] {
  const command = at === -1 ? undefined : commands.find(({ name }) => name === words[at]);
  const next = words[at + 1];
  if (command?.verbatim !== true || next === undefined || next.startsWith('-')) return words;
  return [...words.slice(0, at + 1), '--', ...words.slice(at + 1)];
}

function driverOptionsOf(values: Values): Record<string, string> | undefined {
  const given = values.list('storage-opt');
  if (given.length === 0) return undefined;
  return Object.fromEntries(
    given.map((text) => {
      const equals = text.indexOf('=');
      if (equals < 1) throw new UsageError(`--storage-opt takes KEY=VALUE, not "${text}"`);
      return [text.slice(0, equals), text.slice(equals + 1)];
    }),
  );
}

function expandAlias(words: readonly string[]): readonly string[] {
  const at = commandIndex(words);
  const meant = at === -1 ? undefined : ALIASES[words[at] ?? ''];
  return meant === undefined ? words : [...words.slice(0, at), ...meant, ...words.slice(at + 1)];
}

/** `parseArgs` without its own checks, whose sentences are about programming; `name` is for ours. */
function parse(
  words: readonly string[],
  options: CommandOptions,
  name: string,
): { values: RawValues; positionals: string[] } {
  const { values, positionals, tokens } = parseArgs({
    args: [...words],
    options,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const option = options[token.name];
    if (option === undefined)
      throw new UsageError(`${name} has no option "${token.rawName}"${nearOption(token.name, options)}`);
    const valued = token.value !== undefined;
    if (option.type === 'string' && (!valued || (token.inlineValue !== true && token.value.startsWith('-'))))
      throw new UsageError(
        `${token.rawName} needs a value${valued ? `: write ${token.rawName}=${token.value} if it begins with "-"` : ''}`,
      );
    if (option.type === 'boolean' && valued) throw new UsageError(`${token.rawName} takes no value`);
  }
  return { values, positionals };
}

function nearOption(name: string, options: CommandOptions): string {
  const near = Object.keys(options).find((each) => each.startsWith(name.slice(0, 2)) && name.length > 1);
  return near === undefined ? '' : `; did you mean "--${near}"?`;
}

function unknownCommand(name: string, commands: readonly Command[]): string {
  const near = commands.find((command) => command.name.startsWith(name.slice(0, 2)));
  return `there is no command "${name}"${near === undefined ? '' : `; did you mean "${near.name}"?`}`;
}
