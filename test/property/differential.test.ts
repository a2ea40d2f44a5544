/** Any hostile archive is taken or refused alike by both engines and in both forms of a layer; see test/support/four-ways.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FourWays } from '../support/four-ways.js';
import { hostileArchives } from '../support/hostile-tars.js';
import { makeTempDir, removeTempDir } from '../support/temp.js';
import { holds } from './budget.js';

test('both engines and both forms agree on any archive', async (t) => {
  const fourWays = await FourWays.open();
  const property = fc.asyncProperty(hostileArchives, async (archive) => {
    const directory = makeTempDir('differential');
    try {
      const { differences } = await fourWays.check(archive, directory);
      assert.equal(differences.get('content'), undefined);
    } finally {
      removeTempDir(directory);
    }
  });
  await holds(t, property);
});
