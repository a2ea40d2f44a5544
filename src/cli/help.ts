/** Help texts, made from the commands themselves. */
import { ALIASES } from './arguments.js';
import { SYSTEM_ROOT } from './default-root.js';
import type { Command } from './command.js';

const GLOBAL_HELP = `Options of every command:
  --root DIR                    data root; else LAYERSTORE_ROOT, else
                                ${SYSTEM_ROOT}, or below
                                XDG_DATA_HOME without root
  --driver overlay2|vfs         default: what the root has, else the best
  --engine native|js            default: native where the addon loads
  --durability strict|relaxed   default: strict
  --json                        one JSON value on standard output
  -h, --help                    help; \`layerstore help COMMAND\` for one command
  -v, --version`;

export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  return [
    'layerstore: container image layers',
    '',
    'Usage: layerstore [OPTIONS] COMMAND',
    '',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    '',
    `Other names: ${Object.entries(ALIASES)
      .map(([name, words]) => `${name} = ${words.join(' ')}`)
      .join(', ')}`,
    '',
    GLOBAL_HELP,
    '',
    'Exit codes: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C.',
  ].join('\n');
}

export function commandHelp(command: Command): string {
  return [
    `layerstore ${command.name}: ${command.summary}`,
    '',
    `Usage: layerstore ${command.name} ${command.usage}`.trimEnd(),
    ...(command.details === undefined ? [] : ['', command.details]),
    '',
    'Examples:',
    ...command.examples.map((example) => `  ${example}`),
    '',
    GLOBAL_HELP,
  ].join('\n');
}
