/** From words to a command with its options: pure, everything wrong is a UsageError. */
import { parseArgs } from 'node:util';
import { UsageError, type Command, type CommandOptions, type GlobalOptions } from './command.js';
import { oneOf } from './values.js';

export const DEFAULT_ROOT = '/var/lib/layerstore';

export const GLOBAL_OPTIONS = {
  root: { type: 'string' },
  driver: { type: 'string' },
  engine: { type: 'string' },
  durability: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const satisfies CommandOptions;

export type Parsed =
  | { kind: 'help'; command: Command | undefined }
  | { kind: 'version' }
  | {
      kind: 'run';
      command: Command;
      options: GlobalOptions;
      positionals: string[];
      values: Record<string, string | boolean | undefined>;
    };

/** Options may stand before and after the command's name. */
export function parseArguments(
  words: readonly string[],
  commands: readonly Command[],
  env: Readonly<Record<string, string | undefined>>,
): Parsed {
  const command = findCommand(words, commands);
  const { values, positionals } = parse(words, { ...GLOBAL_OPTIONS, ...command?.options });
  if (values['version'] === true) return { kind: 'version' };
  if (command === undefined) {
    if (positionals.length > 0 && positionals[0] !== 'help')
      throw new UsageError(unknownCommand(positionals[0] ?? '', commands));
    const topic = positionals[1];
    const about = commands.find(({ name }) => name === topic);
    if (topic !== undefined && about === undefined) throw new UsageError(unknownCommand(topic, commands));
    return { kind: 'help', command: about };
  }
  if (values['help'] === true) return { kind: 'help', command };
  const given = positionals.slice(1);
  const [least, most] = command.positionals;
  if (given.length < least || given.length > most) {
    throw new UsageError(
      `${command.name} takes ${command.usage === '' ? 'no arguments' : command.usage}; ${given.length} given`,
    );
  }
  const engine = oneOf('--engine', values['engine'], ['native', 'js']);
  const durability = oneOf('--durability', values['durability'], ['strict', 'relaxed']);
  const options: GlobalOptions = {
    root: typeof values['root'] === 'string' ? values['root'] : (env['LAYERSTORE_ROOT'] ?? DEFAULT_ROOT),
    json: values['json'] === true,
    ...(typeof values['driver'] === 'string' ? { driver: values['driver'] } : {}),
    ...(engine === undefined ? {} : { engine }),
    ...(durability === undefined ? {} : { durability }),
  };
  return { kind: 'run', command, options, positionals: given, values };
}

function findCommand(words: readonly string[], commands: readonly Command[]): Command | undefined {
  // The first word that is neither an option nor the value of a global one.
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? '';
    if (word === '--') return undefined;
    if (!word.startsWith('-')) return commands.find(({ name }) => name === word);
    const name = word.replace(/^--/, '');
    if (name in GLOBAL_OPTIONS && GLOBAL_OPTIONS[name as keyof typeof GLOBAL_OPTIONS].type === 'string') i++;
  }
  return undefined;
}

function parse(
  words: readonly string[],
  options: CommandOptions,
): {
  values: Record<string, string | boolean | undefined>;
  positionals: string[];
} {
  try {
    const { values, positionals } = parseArgs({ args: [...words], options, allowPositionals: true, strict: true });
    return { values: values as Record<string, string | boolean | undefined>, positionals };
  } catch (error) {
    // parseArgs throws TypeErrors with a sentence of its own; the first line of it is enough.
    throw new UsageError(error instanceof Error ? (error.message.split('\n')[0] ?? error.message) : String(error));
  }
}

function unknownCommand(name: string, commands: readonly Command[]): string {
  const near = commands.find((command) => command.name.startsWith(name.slice(0, 2)));
  return `there is no command "${name}"${near === undefined ? '' : `; did you mean "${near.name}"?`}`;
}
