import { ALIASES, GLOBAL_OPTIONS } from '../arguments.js';
import type { Command, CommandOptions, Context } from '../command.js';
import { shortID } from '../format.js';
import { hasStore } from '../opened.js';
import { UsageError } from '../usage-error.js';

const SHELLS = { bash, zsh, fish };
const KINDS = ['rw', 'image', 'layer'] as const;

/** `commands` gives all commands, this one among them. */
export const completion = (commands: () => readonly Command[]): Command => ({
  name: 'completion',
  summary: 'print a completion script for a shell',
  usage: 'bash|zsh|fish',
  details: 'The script completes commands, options, and names of images, layers and RW layers.',
  examples: [
    'source <(layerstore completion bash)',
    'layerstore completion zsh > "${fpath[1]}/_layerstore"',
    'layerstore completion fish | source',
  ],
  positionals: [1, 1 + KINDS.length],
  completes: [],
  async run(context, [shell = '', ...kinds]) {
    // What the scripts call, as `completion names rw image`; not in the help, since only they need it.
    if (shell === 'names') {
      const names = await namesOf(context, kinds);
      context.terminal.result(names, () => names.join('\n'));
      return;
    }
    const write = Object.entries(SHELLS).find(([name]) => name === shell)?.[1];
    if (write === undefined || kinds.length > 0) {
      throw new UsageError(`completion knows bash, zsh and fish, not "${[shell, ...kinds].join(' ')}"`);
    }
    const script = write(completions(commands()));
    context.terminal.result({ shell, script }, () => script);
  },
});

/** Names that exist, without a complaint where there is no store. */
async function namesOf(context: Context, kinds: readonly string[]): Promise<string[]> {
  if (!hasStore(context.options.root)) return [];
  const store = await context.store('read');
  const names: string[] = [];
  if (kinds.includes('rw')) names.push(...store.mounts().keys());
  if (kinds.includes('image')) {
    const images = (await context.images('read')).list();
    names.push(...images.flatMap((image) => (image.names.length > 0 ? image.names : [shortID(image.id)])));
  }
  if (kinds.includes('layer')) names.push(...[...store.map().keys()].map(shortID));
  return names;
}

/** What a script needs to know of a command. */
interface Completion {
  name: string;
  summary: string;
  options: string[];
  /** Options after which a value comes. */
  valued: string[];
  kinds: string[];
  files: boolean;
}

function completions(commands: readonly Command[]): Completion[] {
  const own = commands.map((command): Completion => {
    const options = { ...command.options, ...GLOBAL_OPTIONS };
    return {
      name: command.name,
      summary: command.summary,
      options: Object.keys(options).map((name) => `--${name}`),
      valued: valuedOptions(options),
      kinds: KINDS.filter((kind) => command.completes.includes(kind)),
      files: command.completes.includes('file'),
    };
  });
  const others = Object.entries(ALIASES).flatMap(([name, [meant]]) =>
    own.filter((each) => each.name === meant).map((each) => ({ ...each, name })),
  );
  return [...own, ...others];
}

function valuedOptions(options: CommandOptions): string[] {
  return Object.entries(options)
    .filter(([, { type }]) => type === 'string')
    .flatMap(([name, { short }]) => [`--${name}`, ...(short === undefined ? [] : [`-${short}`])]);
}

const GLOBAL_VALUED = valuedOptions(GLOBAL_OPTIONS);
const GLOBAL_WORDS = Object.keys(GLOBAL_OPTIONS).map((name) => `--${name}`);

/** Cases of a shell's `case $command in`, the same in bash and zsh. */
function cases(all: readonly Completion[]): string[] {
  return all.map(
    ({ name, options, valued, kinds, files }) =>
      `    ${name}) options='${options.join(' ')}' valued=' ${valued.join(' ')} ' kinds='${kinds.join(' ')}' files=${files ? 1 : ''} ;;`,
  );
}

function bash(all: readonly Completion[]): string {
  return `_layerstore() {
  # The words as they are typed: COMP_WORDS would split names at colons.
  local line=\${COMP_LINE:0:COMP_POINT} words=() command= root=() i previous word options valued kinds files
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  word=\${words[-1]} previous=\${words[-2]}
  for ((i = 1; i < \${#words[@]} - 1; i++)); do
    case \${words[i]} in
      --root) root=(--root "\${words[i+1]}"); ((i++)) ;;
      ${GLOBAL_VALUED.filter((each) => each !== '--root').join('|')}) ((i++)) ;;
      --root=*) root=("\${words[i]}") ;;
      -*) ;;
      *) [[ -n $command ]] || command=\${words[i]} ;;
    esac
  done
  case $command in
${cases(all).join('\n')}
    *) options='${GLOBAL_WORDS.join(' ')} ${all.map(({ name }) => name).join(' ')}' valued=' ${GLOBAL_VALUED.join(' ')} ' ;;
  esac
  local IFS=$'\\n'
  if [[ $valued == *" $previous "* ]]; then
    COMPREPLY=($(compgen -f -- "$word"))
  elif [[ -z $command || $word == -* ]]; then
    COMPREPLY=($(compgen -W "\${options// /$'\\n'}" -- "$word"))
  else
    local names=
    [[ -n $kinds ]] && names=$(IFS=' '; layerstore "\${root[@]}" completion names $kinds 2>/dev/null)
    COMPREPLY=($(compgen -W "$names" -- "$word") \${files:+$(compgen -f -- "$word")})
  fi
  # Readline has replaced only what follows the last colon.
  if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
    local before=\${word%"\${word##*:}"}
    COMPREPLY=("\${COMPREPLY[@]#"$before"}")
  fi
}
complete -o filenames -F _layerstore layerstore`;
}

function zsh(all: readonly Completion[]): string {
  return `#compdef layerstore
_layerstore() {
  local command= options valued kinds files i
  local -a root names
  for ((i = 2; i < CURRENT; i++)); do
    case $words[i] in
      --root) root=(--root $words[i+1]); ((i++)) ;;
      ${GLOBAL_VALUED.filter((each) => each !== '--root').join('|')}) ((i++)) ;;
      --root=*) root=($words[i]) ;;
      -*) ;;
      *) [[ -n $command ]] || command=$words[i] ;;
    esac
  done
  case $command in
${cases(all).join('\n')}
    *) options='${GLOBAL_WORDS.join(' ')} ${all.map(({ name }) => name).join(' ')}' valued=' ${GLOBAL_VALUED.join(' ')} ' ;;
  esac
  if [[ $valued == *" $words[CURRENT-1] "* ]]; then
    _files
  elif [[ -z $command || $words[CURRENT] == -* ]]; then
    compadd -- \${=options}
  else
    [[ -n $kinds ]] && names=(\${(f)"$(layerstore $root completion names \${=kinds} 2>/dev/null)"}) && compadd -- $names
    [[ -n $files ]] && _files
  fi
}
if [[ $funcstack[1] == _layerstore ]]; then _layerstore "$@"; else compdef _layerstore layerstore; fi`;
}

function fish(all: readonly Completion[]): string {
  const quoted = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const root = [
    'function __layerstore_root',
    '  set -l words (commandline -opc)',
    '  for i in (seq (count $words))',
    "    string match -q -- '--root=*' $words[$i]; and echo $words[$i]",
    '    test "$words[$i]" = --root; and echo --root=$words[(math $i + 1)]',
    '  end',
    'end',
  ];
  const options = (given: CommandOptions): string[] =>
    Object.entries(given).map(
      ([name, { type, short }]) =>
        `-l ${name}${short === undefined ? '' : ` -s ${short}`}${type === 'string' ? ' -r' : ''}`,
    );
  return [
    ...root,
    'complete -c layerstore -f',
    ...options(GLOBAL_OPTIONS).map((each) => `complete -c layerstore ${each}`),
    ...all.flatMap(({ name, summary, options: own, valued, kinds, files }) => {
      const inside = `complete -c layerstore -n '__fish_seen_subcommand_from ${name}'`;
      return [
        `complete -c layerstore -n __fish_use_subcommand -a ${name} -d ${quoted(summary)}`,
        ...own
          .filter((each) => !GLOBAL_WORDS.includes(each))
          .map((each) => `${inside} -l ${each.slice(2)}${valued.includes(each) ? ' -r -F' : ''}`),
        ...(kinds.length > 0
          ? [`${inside} -a '(layerstore (__layerstore_root) completion names ${kinds.join(' ')} 2>/dev/null)'`]
          : []),
        ...(files ? [`${inside} -F`] : []),
      ];
    }),
  ].join('\n');
}
