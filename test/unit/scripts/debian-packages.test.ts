/** What `npm test` and its like install, and that the package's own install script installs nothing. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';

const top = resolve(import.meta.dirname, '../../..');
const packages = (await import(join(top, 'scripts/debian-packages.mjs'))) as {
  GROUPS: Record<string, Record<string, string>>;
  SUITES: string[];
  installedPackages(status: string): Set<string>;
  missingPackages(groups: string[], installed: Set<string>): Map<string, string>;
  announcement(missing: Map<string, string>): string;
};
const manifest = JSON.parse(readFileSync(join(top, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
  files: string[];
};

test('what is missing is said in one block, each package with its reason', () => {
  const status =
    'Package: jq\nStatus: install ok installed\n\nPackage: acl\nStatus: deinstall ok config-files\n\nPackage: attr\nStatus: install ok installed\n';
  const missing = packages.missingPackages(['tests'], packages.installedPackages(status));
  assert.ok(!missing.has('jq') && !missing.has('attr'));
  assert.equal(missing.get('acl'), 'POSIX ACLs');
  const lines = packages.announcement(missing).split('\n');
  assert.match(lines[0] ?? '', /apt-get install; LAYERSTORE_NO_APT=1 prevents it/);
  assert.equal(lines.length, 1 + missing.size);
  for (const [name, reason] of missing) assert.ok(lines.some((line) => line.includes(name) && line.endsWith(reason)));
});

test('the default suite needs no daemon, and every suite has a script that sets it up', () => {
  const names = Object.keys(packages.GROUPS['tests'] ?? {});
  for (const name of ['docker.io', 'podman', 'buildah', 'skopeo', 'umoci', 'containerd'])
    assert.ok(!names.includes(name), name);
  assert.equal(manifest.scripts['pretest'], 'node scripts/setup.mjs tests');
  const ci = readFileSync(join(top, '.ci/run'), 'utf8');
  for (const suite of packages.SUITES.slice(1)) {
    const script = manifest.scripts[`test:${suite}`] ?? '';
    assert.ok(script.includes(`scripts/setup.mjs ${suite}`) && script.includes(`scripts/test.mjs ${suite}`), suite);
    assert.ok(ci.includes(`test:${suite}`), `.ci/run runs test:${suite}`);
  }
});

test("the package's install script starts no package manager, and the one who does is not published", () => {
  const script = manifest.scripts['install'] ?? '';
  assert.equal(script, 'node scripts/install.mjs');
  const text = readFileSync(join(top, 'scripts/install.mjs'), 'utf8');
  assert.doesNotMatch(text, /debian-packages|spawnSync\([^)]*apt/);
  assert.doesNotMatch(text.replaceAll(/\/\/.*|`[^`]*`/g, ''), /apt-get/);
  assert.ok(!manifest.files.includes('scripts') && !manifest.files.includes('scripts/debian-packages.mjs'));
});
