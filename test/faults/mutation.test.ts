/**
 * Are the power-cut suites able to find a loss at all? With a sync or the order of the protocol taken out on purpose they
 * must; without, the very same runs must find none.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Mutation } from './support/instrument.js';
import { powerCuts, summary } from './support/power-cut.js';

const MUTATIONS: (Mutation | undefined)[] = ['no data sync', 'no record sync', 'publish before data', undefined];
// The same work and the same cuts each time: a run that finds losses differs from one that does not by the mutation alone.
const SEED = 4;

for (const mutation of MUTATIONS) {
  test(mutation === undefined ? 'nothing taken out: no loss' : `${mutation}: losses are found`, async (t) => {
    const result = await powerCuts(t, {
      fileSystem: 'ext4',
      seed: SEED,
      operations: 14,
      clones: 30,
      // One lane, cuts at fixed steps: the same clones in each run.
      lanes: 1,
      cutAt: (step) => /late data sync|fsync layerdb|syncFs/.test(step),
      ...(mutation === undefined ? {} : { mutation }),
    });
    t.diagnostic(`${mutation ?? 'as it is'}: ${summary(result)}; first: ${result.losses[0] ?? 'none'}`);
    if (mutation === undefined) assert.deepEqual(result.losses, []);
    else assert.ok(result.losses.length > 0, `the suite notices nothing of "${mutation}"`);
  });
}
