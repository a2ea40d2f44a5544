import type { Command } from '../command.js';
import { GLOBAL_OPTIONS } from '../arguments.js';
import { UsageError } from '../usage-error.js';

const SHELLS = ['bash', 'zsh', 'fish'];

export const completion = (commands: () => readonly Command[]): Command => ({
  name: 'completion',
  summary: 'print a completion script for a shell',
  usage: 'bash|zsh|fish',
  examples: ['source <(layerstore completion bash)', 'layerstore completion fish | source'],
  positionals: [1, 1],
  completes: [],
  async run(context, [shell = '']) {
    if (!SHELLS.includes(shell)) throw new UsageError(`completion knows bash, zsh and fish, not "${shell}"`);
    const script = shell === 'fish' ? fish(commands()) : shell === 'zsh' ? zsh(commands()) : bash(commands());
    context.terminal.result({ shell, script }, () => script);
  },
});

function optionWords(command: Command): string[] {
  return [...Object.keys(command.options ?? {}), ...Object.keys(GLOBAL_OPTIONS)].map((name) => `--${name}`);
}

function bash(commands: readonly Command[]): string {
  return [
    '_layerstore() {',
    '  local word=${COMP_WORDS[COMP_CWORD]} command= each',
    '  for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do case $each in -*) ;; *) command=$each; break ;; esac; done',
    '  case $command in',
    ...commands.map((c) => `    ${c.name}) COMPREPLY=($(compgen -f -W "${optionWords(c).join(' ')}" -- "$word")) ;;`),
    `    *) COMPREPLY=($(compgen -W "${[...commands.map((c) => c.name), ...Object.keys(GLOBAL_OPTIONS).map((o) => `--${o}`)].join(' ')}" -- "$word")) ;;`,
    '  esac',
    '}',
    'complete -o filenames -F _layerstore layerstore',
  ].join('\n');
}

function zsh(commands: readonly Command[]): string {
  return ['#compdef layerstore', 'autoload -U +X bashcompinit && bashcompinit', bash(commands)].join('\n');
}

function fish(commands: readonly Command[]): string {
  return commands
    .flatMap((c) => [
      `complete -c layerstore -n __fish_use_subcommand -a ${c.name} -d '${c.summary.replaceAll("'", "\\'")}'`,
      ...Object.keys(c.options ?? {}).map(
        (o) => `complete -c layerstore -n '__fish_seen_subcommand_from ${c.name}' -l ${o}`,
      ),
    ])
    .join('\n');
}
