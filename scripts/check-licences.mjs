// Holds the licences of what users install: every package of package-lock.json that is not for development alone. Prints
// each whose licence is not on the list, or not told, and exits 1; exits 2 when it found no package at all.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/** All of them allow what Apache-2.0 allows, and ask for no more than their notice. */
const ALLOWED = new Set(['0BSD', 'Apache-2.0', 'BlueOak-1.0.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT']);

const lockPath = process.argv[2] ?? resolve(import.meta.dirname, '../package-lock.json');
const { packages } = JSON.parse(readFileSync(lockPath, 'utf8'));
const shipped = Object.entries(packages).filter(([path, { dev }]) => path !== '' && dev !== true);
if (shipped.length === 0) {
  console.error('check-licences found no package at all: is it looking in the right place?');
  process.exit(2);
}
const wrong = shipped.filter(([, { license }]) => !ALLOWED.has(license));
for (const [path, { license }] of wrong)
  console.error(
    `${path}: its licence is ${license ?? 'not told'}; use another package, or add it to the list with a reason`,
  );
console.log(`check-licences: ${shipped.length} packages, ${wrong.length} wrong`);
process.exit(wrong.length === 0 ? 0 : 1);
