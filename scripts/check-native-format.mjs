// Checks (or with --write makes) the format of the C++ sources by clang-format.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

const native = resolve(import.meta.dirname, '..', 'native');
const files = readdirSync(native, { recursive: true })
  .filter((name) => /\.(cc|h)$/.test(name))
  .map((name) => join(native, name));
const write = process.argv.includes('--write');
const { status, error } = spawnSync('clang-format', [...(write ? ['-i'] : ['--dry-run', '--Werror']), ...files], {
  stdio: 'inherit',
});
if (error) {
  console.error(`clang-format does not run (${error.message}): apt-get install clang-format`);
  process.exit(1);
}
process.exit(status === 0 ? 0 : 1);
