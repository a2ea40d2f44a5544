// Makes a checkout ready, whatever state it is in: Debian packages (as root on Debian; what is installed is said first,
// and LAYERSTORE_NO_APT=1 prevents it), npm packages, addon, compiled TypeScript. `node scripts/setup.mjs [SUITE…]` also
// installs what these suites of tests use. Needs Node and npm alone. Does nothing where nothing is to do, so `npm start`
// and `npm test` call it first.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { installPackages, SUITES } from './debian-packages.mjs';

const top = resolve(import.meta.dirname, '..');
const suites = process.argv.slice(2);
const unknown = suites.find((name) => !SUITES.includes(name));
if (unknown !== undefined) {
  console.error(`setup: there is no suite "${unknown}": ${SUITES.join(', ')}`);
  process.exit(1);
}

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: top, stdio: ['ignore', 'inherit', 'inherit'], ...options });
  if (error) throw error;
  return status;
}

function must(what, command, args) {
  const status = run(command, args);
  if (status !== 0) {
    console.error(`setup: ${what} failed (${command} ${args.join(' ')} exited with ${status})`);
    process.exit(1);
  }
}

function newest(...places) {
  let latest = 0;
  for (const place of places) {
    const path = join(top, place);
    if (!existsSync(path)) continue;
    const names = statSync(path).isDirectory()
      ? readdirSync(path, { recursive: true }).map((name) => join(path, name))
      : [path];
    for (const name of names) latest = Math.max(latest, statSync(name).mtimeMs);
  }
  return latest;
}

/** Runs `work` unless `stamp` is newer than all of `inputs`. */
function unlessFresh(stamp, inputs, work) {
  const path = join(top, stamp);
  if (existsSync(path) && statSync(path).mtimeMs > newest(...inputs)) return;
  work();
  writeFileSync(path, '');
}

installPackages(['build', ...suites]);
unlessFresh('node_modules/.layerstore-packages', ['package-lock.json'], () => {
  must('installing npm packages', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  // npm's install script has built the addon.
  writeFileSync(join(top, 'node_modules/.layerstore-addon'), '');
});
unlessFresh('node_modules/.layerstore-addon', ['native', 'binding.gyp', 'scripts/install.mjs'], () => {
  must('building the addon', process.execPath, ['scripts/install.mjs']);
});
unlessFresh(
  'node_modules/.layerstore-dist',
  ['src', 'tsconfig.json', 'tsconfig.build.json', 'node_modules/.layerstore-packages'],
  () => {
    must('compiling TypeScript', process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json']);
  },
);
