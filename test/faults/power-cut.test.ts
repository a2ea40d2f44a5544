/** Power cuts at steps, after promises and at random moments: whatever was promised is there, and nothing else. */
import { test } from 'node:test';
import { runSeed } from '../support/random.js';
import { powerCuts, summary, type PowerCutOptions } from './support/power-cut.js';
import { assertNoLosses } from './support/promises.js';

const RUNS: Omit<PowerCutOptions, 'seed'>[] = [
  { fileSystem: 'ext4', operations: 30, clones: 30 },
  { fileSystem: 'ext4', operations: 10, clones: 8, driver: 'vfs' },
  { fileSystem: 'xfs', operations: 16, clones: 12 },
  { fileSystem: 'btrfs', operations: 16, clones: 10 },
];

for (const options of RUNS) {
  const name = `${options.driver ?? 'overlay2'} on ${options.fileSystem}`;
  test(`power cuts: ${name}`, async (t) => {
    const seed = runSeed();
    const result = await powerCuts(t, { ...options, seed });
    t.diagnostic(`${name}: ${summary(result)} (LAYERSTORE_SEED=${seed})`);
    assertNoLosses(result.losses, `LAYERSTORE_SEED=${seed}`);
  });
}
