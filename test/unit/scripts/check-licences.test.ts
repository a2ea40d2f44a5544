import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../support/temp.js';

const script = join(import.meta.dirname, '../../../scripts/check-licences.mjs');

test('licences of packages that users get are held to a list', (t) => {
  const directory = tempDir(t, 'licences');
  for (const [name, packages, status, message] of [
    [
      'good',
      { '': {}, 'node_modules/a': { license: 'MIT' }, 'node_modules/b': { dev: true, license: 'GPL-3.0' } },
      0,
      '',
    ],
    ['copyleft', { '': {}, 'node_modules/a': { license: 'GPL-3.0' } }, 1, 'node_modules/a: its licence is GPL-3.0;'],
    ['unknown', { '': {}, 'node_modules/a': { optional: true } }, 1, 'node_modules/a: its licence is not told;'],
    ['empty', { '': {} }, 2, 'found no package'],
  ] as const) {
    const path = join(directory, `${name}.json`);
    writeFileSync(path, JSON.stringify({ packages }));
    const ran = spawnSync(process.execPath, [script, path], { encoding: 'utf8' });
    assert.equal(ran.status, status, `${name}: ${ran.stderr}`);
    assert.ok(ran.stderr.includes(message), `${name}: ${ran.stderr}`);
  }
  assert.equal(spawnSync(process.execPath, [script]).status, 0, 'our own');
});
