// `node scripts/release.mjs VERSION`: checks the tree, moves the changelog's "Unreleased" under the version, sets it in
// package.json, commits and tags. Publishing stays a human's step: `npm publish` from the tag.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const top = resolve(import.meta.dirname, '..');
const version = process.argv[2] ?? '';
const git = (...args) => execFileSync('git', args, { cwd: top, encoding: 'utf8' }).trim();
const stop = (text) => {
  console.error(`release: ${text}`);
  process.exit(1);
};

if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version)) stop(`"${version}" is no version; give MAJOR.MINOR.PATCH`);
if (git('status', '--porcelain') !== '') stop('the tree has changes; commit or drop them first');
if (git('tag', '--list', `v${version}`) !== '') stop(`v${version} is tagged already`);

const changelogPath = join(top, 'CHANGELOG.md');
const changelog = readFileSync(changelogPath, 'utf8');
const [before, after] = changelog.split('## Unreleased\n');
if (after === undefined) stop('CHANGELOG.md has no "## Unreleased"');
const entry = after.split('\n## ')[0];
if (entry.trim() === '') stop('nothing under "## Unreleased": what is new in this version?');
const today = new Date().toISOString().slice(0, 10);
writeFileSync(changelogPath, `${before}## Unreleased\n\n## ${version} - ${today}\n${after}`);

execFileSync('npm', ['version', version, '--no-git-tag-version', '--allow-same-version'], {
  cwd: top,
  stdio: 'inherit',
});
execFileSync('npm', ['run', 'check'], { cwd: top, stdio: 'inherit' });
git('commit', '-aqm', `Release ${version}`);
git('tag', '-a', `v${version}`, '-m', `layerstore ${version}\n${entry}`);
console.log(`tagged v${version}; publish with: git push --follow-tags && npm publish`);
