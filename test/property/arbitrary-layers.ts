/** Random layers for fast-check: abstract steps, made concrete against a model of the tree so that each can be done. */
import fc from 'fast-check';
import type { TreeChange } from '../../src/testing/change-list.js';
import {
  append,
  chmod,
  createFile,
  link,
  mkdir,
  mknod,
  remove,
  rename,
  sparseFile,
  symlink,
  touch,
} from '../../src/testing/change-list.js';

/** What a step wants; `pick` chooses among what the tree then holds. */
interface Step {
  kind:
    | 'mkdir'
    | 'file'
    | 'sparse'
    | 'symlink'
    | 'fifo'
    | 'link'
    | 'append'
    | 'chmod'
    | 'touch'
    | 'remove'
    | 'rename'
    | 'replace';
  pick: number;
  name: string;
  text: string;
  mode: number;
}

/** Bytes as latin1 text: plain words mostly, and what trips archivers. */
const name: fc.Arbitrary<string> = fc
  .oneof(
    { weight: 6, arbitrary: fc.constantFrom('a', 'b', 'c', 'etc', 'lib', 'file.txt', 'A', 'z-9', '.hidden', 'a b') },
    {
      weight: 2,
      arbitrary: fc.constantFrom(
        '..a',
        '...',
        '-rf',
        '\\n',
        "it's",
        '"q"',
        'tab\there',
        'new\nline',
        'x'.repeat(255),
        '%s',
        '=',
        '#',
      ),
    },
    {
      weight: 2,
      arbitrary: fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    },
    {
      weight: 1,
      arbitrary: fc
        .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
        .map((text) => Buffer.from(text).toString('latin1')),
    },
  )
  .filter(
    (text) => !/[/\0]/.test(text) && text !== '.' && text !== '..' && !text.startsWith('.wh.') && text.length <= 255,
  );

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(
    'mkdir',
    'mkdir',
    'file',
    'file',
    'file',
    'sparse',
    'symlink',
    'fifo',
    'link',
    'append',
    'chmod',
    'touch',
    'remove',
    'rename',
    'replace',
  ),
  pick: fc.nat(1_000_000),
  name,
  text: fc.oneof(
    fc.constantFrom('', 'x', 'hello\n', 'y'.repeat(511), 'z'.repeat(512), 'w'.repeat(70_000)),
    fc.string({ maxLength: 600 }).map((text) => Buffer.from(text).toString('latin1')),
  ),
  mode: fc.constantFrom(0o644, 0o755, 0o600, 0o400, 0o4755, 0o2755, 0o1777, 0o000, 0o777),
});

/** One to `max` layers of up to `steps` steps each. */
export function layersOfChanges(max = 3, steps = 14): fc.Arbitrary<TreeChange[][]> {
  return fc.array(fc.array(step, { minLength: 1, maxLength: steps }), { minLength: 1, maxLength: max }).map(concrete);
}

interface Known {
  type: 'directory' | 'file' | 'other';
  layer: number;
  /** Has had a second name at some time: overlayfs breaks such groups when one name changes, as it says it does. */
  linked: boolean;
}

function concrete(layers: readonly (readonly Step[])[]): TreeChange[][] {
  const tree = new Map<string, Known>();
  return layers.map((steps, layer) => steps.flatMap((each) => concreteStep(tree, each, layer)));
}

function concreteStep(
  tree: Map<string, Known>,
  { kind, pick, name: last, text, mode }: Step,
  layer: number,
): TreeChange[] {
  const directories = ['', ...[...tree].filter(([, { type }]) => type === 'directory').map(([path]) => path)];
  const parent = directories[pick % directories.length] ?? '';
  const path = parent === '' ? last : `${parent}/${last}`;
  const free = !tree.has(path) && path.length < 900;
  const choose = (wanted: (known: Known) => boolean): string | undefined => {
    const fitting = [...tree].filter(([, known]) => wanted(known)).map(([each]) => each);
    return fitting.length === 0 ? undefined : fitting[pick % fitting.length];
  };
  const make = (type: Known['type'], change: TreeChange): TreeChange[] => {
    if (!free) return [];
    tree.set(path, { type, layer, linked: false });
    return [change];
  };
  const plain = choose(({ type, linked }) => type === 'file' && !linked);
  switch (kind) {
    case 'mkdir':
      return make('directory', mkdir(path, mode));
    case 'file':
      return make('file', createFile(path, text, mode));
    case 'sparse':
      return make('file', sparseFile(path, 200_000 + text.length, [{ at: 100_000, content: text }], mode));
    case 'symlink':
      return make('other', symlink(path, text.slice(0, 200).replace(/\0/g, '') || 'target'));
    case 'fifo':
      // mknod(1) takes its path as text.
      return /^[\x20-\x7e]*$/.test(path) ? make('other', mknod(path, 'p', 0, 0, mode)) : [];
    case 'link': {
      const from = choose((known) => known.type === 'file' && known.layer === layer);
      if (from === undefined || !free) return [];
      for (const each of [from, path]) tree.set(each, { type: 'file', layer, linked: true });
      return [link(from, path)];
    }
    case 'append':
      return plain === undefined ? [] : [append(plain, text === '' ? '+' : text)];
    case 'chmod': {
      const target = choose(({ type, linked }) => type !== 'other' && !linked);
      return target === undefined ? [] : [chmod(target, mode)];
    }
    case 'touch':
      return plain === undefined ? [] : [touch(plain, 1_000_000_000 + pick + 0.5)];
    case 'remove': {
      const target = choose(() => true);
      return target === undefined ? [] : removed(tree, target);
    }
    case 'rename':
      if (plain === undefined || !free) return [];
      tree.delete(plain);
      tree.set(path, { type: 'file', layer, linked: false });
      return [rename(plain, path)];
    case 'replace': {
      // Something else under the same name: directory for file, file for directory.
      const target = choose(() => true);
      if (target === undefined) return [];
      const was = tree.get(target)?.type;
      const gone = removed(tree, target);
      const now = was === 'directory' ? 'file' : 'directory';
      tree.set(target, { type: now, layer, linked: false });
      return [...gone, now === 'file' ? createFile(target, text, mode) : mkdir(target, mode)];
    }
  }
}

function removed(tree: Map<string, Known>, target: string): TreeChange[] {
  for (const path of [...tree.keys()]) if (path === target || path.startsWith(`${target}/`)) tree.delete(path);
  return [remove(target)];
}
