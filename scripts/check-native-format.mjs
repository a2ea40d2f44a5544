// Checks (or with --write makes) the format of the C++ sources by clang-format, and the length of the files.
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

const native = resolve(import.meta.dirname, '..', 'native');
const files = readdirSync(native, { recursive: true })
  .filter((name) => /\.(cc|h)$/.test(name))
  .map((name) => join(native, name));
const MAX_LINES = 450;
const long = files.filter((name) => readFileSync(name, 'utf8').split('\n').length - 1 > MAX_LINES);
for (const name of long) console.error(`${name}: longer than ${MAX_LINES} lines: more than one reason to exist?`);
const write = process.argv.includes('--write');
const { status, error } = spawnSync('clang-format', [...(write ? ['-i'] : ['--dry-run', '--Werror']), ...files], {
  stdio: 'inherit',
});
if (error) {
  console.error(`clang-format does not run (${error.message}): apt-get install clang-format`);
  process.exit(1);
}
process.exit(status === 0 && long.length === 0 ? 0 : 1);
