// Runs the test files of one suite with node:test: `node scripts/test.mjs SUITE [WORD…]` takes only files whose path holds
// one of the words. The default suite, `tests`, is every file but those in the folder of another suite (test/peers).
// As root (in CI always) a skipped test is a failure: nothing here may pass by not running.
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { SUITES } from './debian-packages.mjs';

const top = resolve(import.meta.dirname, '..');
const [suite = 'tests', ...words] = process.argv.slice(2);
if (!SUITES.includes(suite)) {
  console.error(`there is no suite "${suite}": ${SUITES.join(', ')}`);
  process.exit(1);
}
const suiteOf = (name) => SUITES.find((each) => name.startsWith(`${each}/`)) ?? 'tests';
const all = readdirSync(join(top, 'test'), { recursive: true })
  .filter((name) => name.endsWith('.test.ts'))
  .filter((name) => words.length === 0 || words.some((word) => join('test', name).includes(word)))
  .sort();
const files = all.filter((name) => suiteOf(name) === suite).map((name) => join(top, 'test', name));
const elsewhere = new Set(all.map(suiteOf).filter((name) => name !== suite));
if (words.length > 0 && elsewhere.size > 0)
  console.log(`not run here: files of ${[...elsewhere].map((name) => `npm run test:${name}`).join(', ')}`);
if (files.length === 0) {
  console.error(`no test file of the suite "${suite}" matches ${words.join(' ')}`);
  process.exit(1);
}

// The tests are TypeScript: tsx compiles them as they load, in the child process of each file too. It is named by its
// place, since tests start Node in other directories.
process.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ''} --import ${import.meta.resolve('tsx')}`.trim();
const skipped = [];
const started = performance.now();
const timings = new Map();
const stream = run({ files, concurrency: Math.min(2, availableParallelism()), timeout: 1_200_000 });
stream.on('test:pass', (event) => {
  if (event.skip !== undefined || event.todo !== undefined) skipped.push(event.name);
});
for (const kind of ['test:pass', 'test:fail']) {
  stream.on(kind, ({ nesting, file, details }) => {
    if (nesting === 0 && file !== undefined) timings.set(file, (timings.get(file) ?? 0) + details.duration_ms);
  });
}
stream.on('test:fail', () => {
  process.exitCode = 1;
});
stream.compose(new spec()).pipe(process.stdout);
stream.on('end', () => {
  const slow = [...timings].sort((a, b) => b[1] - a[1]).slice(0, 5);
  for (const [file, ms] of slow) console.log(`  ${(ms / 1000).toFixed(1).padStart(6)} s  ${relative(top, file)}`);
  console.log(`${files.length} files in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  if (skipped.length > 0 && process.getuid?.() === 0) {
    console.error(`skipped although run as root: ${skipped.join(', ')}`);
    process.exitCode = 1;
  }
});
