// Holds the direction of imports (docs/architecture.md): TypeScript rooms and C++ rooms, each only downwards; and no circle
// of files anywhere, types included. Prints every import that goes the wrong way and every circle, and exits 1; exits 2 when
// it found nothing to check at all.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';

const top = resolve(import.meta.dirname, '..');

/** Room -> rooms it may import from (itself always). */
const below = {
  errors: [],
  digest: ['util', 'errors'],
  util: ['errors'],
  tar: ['digest', 'errors', 'util'],
  engine: ['tar', 'digest', 'errors', 'util'],
};
const core = ['engine', ...below.engine];
const typescript = {
  ...below,
  metadata: core,
  driver: core,
  store: ['metadata', 'driver', ...core],
  // Knows HTTP and digests, no store.
  registry: ['digest', 'errors', 'util'],
  image: ['store', 'registry', 'metadata', 'driver', ...core],
  containerd: ['store', 'metadata', 'driver', ...core],
  // The suites take implementations from their caller; they know every interface, no implementation.
  testing: ['store', 'metadata', 'driver', ...core],
  index: ['image', 'registry', 'store', 'metadata', 'driver', ...core],
  cli: ['index', 'containerd', 'image', 'registry', 'store', 'metadata', 'driver', ...core],
};
const cpp = {
  sys: [],
  hash: ['sys'],
  codec: ['hash', 'sys'],
  tar: ['codec', 'hash', 'sys'],
  mount: ['sys'],
  tarsplit: ['tar', 'codec', 'hash', 'sys'],
  tree: ['tarsplit', 'tar', 'codec', 'hash', 'sys'],
  unpack: ['tree', 'tarsplit', 'tar', 'codec', 'hash', 'sys'],
  pack: ['tree', 'tarsplit', 'tar', 'codec', 'hash', 'sys'],
  binding: ['unpack', 'pack', 'tree', 'tarsplit', 'mount', 'tar', 'codec', 'hash', 'sys'],
};
/** Drivers and metadata stores never know each other, nor two drivers one another. */
const apart = [['driver/overlay2', 'driver/vfs']];

function files(folder, endings) {
  return readdirSync(join(top, folder), { recursive: true })
    .filter((name) => endings.some((ending) => name.endsWith(ending)))
    .map((name) => join(folder, name));
}

const roomOf = (path, base) =>
  relative(base, path)
    .split(sep)[0]
    .replace(/\.(ts|js)$/, '');

let wrong = 0;
let seen = 0;
function judge(rules, from, to, file, what) {
  seen++;
  if (from === to || rules[from] === undefined) {
    if (rules[from] === undefined) complain(file, `is in no room that the rules know ("${from}")`);
    return;
  }
  if (!rules[from].includes(to)) complain(file, `(${from}) must not import ${what} (${to})`);
}
function complain(file, text) {
  wrong++;
  console.error(`${file}: ${text}`);
}

/** The files that `file` imports, as written and from the top. */
function importsOf(file) {
  const text = readFileSync(join(top, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(([, specifier]) => ({
    specifier,
    target: relative(top, resolve(top, dirname(file), specifier)),
  }));
}

/** Groups of files that import one another, each at least two (Tarjan's strongly connected components). */
function circles(graph) {
  const index = new Map();
  const low = new Map();
  const stack = [];
  const found = [];
  const visit = (file) => {
    index.set(file, index.size);
    low.set(file, index.get(file));
    stack.push(file);
    for (const next of graph.get(file) ?? []) {
      if (!index.has(next)) visit(next);
      if (stack.includes(next)) low.set(file, Math.min(low.get(file), low.get(next)));
    }
    if (low.get(file) !== index.get(file)) return;
    const group = stack.splice(stack.indexOf(file));
    if (group.length > 1) found.push(group.sort());
  };
  for (const file of graph.keys()) if (!index.has(file)) visit(file);
  return found;
}

const graph = new Map();
for (const folder of ['src', 'bench', 'examples', 'test']) {
  for (const file of files(folder, ['.ts'])) {
    graph.set(
      file,
      importsOf(file).map(({ target }) => target.replace(/\.js$/, '.ts')),
    );
  }
}
for (const group of circles(graph)) complain(group[0], `is in a circle of imports: ${group.join(', ')}`);

for (const file of files('src', ['.ts'])) {
  for (const { specifier, target } of importsOf(file)) {
    judge(typescript, roomOf(file, 'src'), roomOf(target, 'src'), file, specifier);
    for (const [a, b] of apart) {
      if (
        [
          [a, b],
          [b, a],
        ].some(([x, y]) => file.startsWith(`src/${x}/`) && target.startsWith(`src/${y}/`))
      ) {
        complain(file, `must not import ${specifier}: these two know nothing of each other`);
      }
    }
  }
}
for (const file of files('native', ['.cc', '.h'])) {
  const room = roomOf(file, 'native');
  if (room === 'test' || room === 'fuzz') continue;
  const text = readFileSync(join(top, file), 'utf8');
  for (const [, header] of text.matchAll(/^#include "([^"]+)"/gm)) {
    if (header.includes('/')) judge(cpp, room, header.split('/')[0], file, header);
    else complain(file, `includes "${header}" without its room`);
  }
  if (room !== 'binding' && /#include <(napi|node_api)/.test(text))
    complain(file, 'only native/binding may include napi.h');
}
if (seen === 0) {
  console.error('check-imports found no import at all: is it looking in the right place?');
  process.exit(2);
}
console.log(`check-imports: ${seen} imports, ${wrong} wrong`);
process.exit(wrong === 0 ? 0 : 1);
