import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatName, fullName, parseName, tryParseName } from '../../../src/registry/reference.js';

const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('image names', () => {
  const names: [text: string, familiar: string, full: string][] = [
    ['debian', 'debian:latest', 'docker.io/library/debian:latest'],
    ['debian:12', 'debian:12', 'docker.io/library/debian:12'],
    ['docker.io/library/debian:12', 'debian:12', 'docker.io/library/debian:12'],
    ['index.docker.io/library/debian:12', 'debian:12', 'docker.io/library/debian:12'],
    ['docker.io/debian:12', 'debian:12', 'docker.io/library/debian:12'],
    ['library/debian:12', 'debian:12', 'docker.io/library/debian:12'],
    ['team/app:1.0', 'team/app:1.0', 'docker.io/team/app:1.0'],
    ['docker.io/team/app', 'team/app:latest', 'docker.io/team/app:latest'],
    ['ghcr.io/a/b/c:x_Y-9', 'ghcr.io/a/b/c:x_Y-9', 'ghcr.io/a/b/c:x_Y-9'],
    ['localhost/app', 'localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/app:1', 'localhost:5000/app:1', 'localhost:5000/app:1'],
    ['Host/app:1', 'Host/app:1', 'Host/app:1'],
    ['[::1]:5000/app:1', '[::1]:5000/app:1', '[::1]:5000/app:1'],
    [`debian@${DIGEST}`, `debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`],
    [`debian:12@${DIGEST}`, `debian@${DIGEST}`, `docker.io/library/debian@${DIGEST}`],
  ];
  for (const [text, familiar, full] of names) {
    it(text, () => {
      const name = parseName(text);
      assert.equal(formatName(name), familiar);
      assert.equal(fullName(name), full);
      assert.equal(formatName(parseName(full)), familiar, 'the full form means the same');
    });
  }

  for (const text of [
    '',
    ':',
    'Debian',
    'a b',
    '../x',
    '/x',
    'x/',
    'x//y',
    'x:',
    'x:-1',
    `x:${'t'.repeat(129)}`,
    'x@sha256:1',
    'a'.repeat(64),
    'x_',
    '_x',
    'x..y',
    'x:a/b:c:d',
    `${'p/'.repeat(200)}x`,
  ]) {
    it(`refuses ${JSON.stringify(text.slice(0, 40))}`, () => {
      assert.equal(tryParseName(text), undefined);
      assert.throws(() => parseName(text), { code: 'ERR_INVALID_ARGUMENT' });
    });
  }
});
