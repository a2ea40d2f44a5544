/** Processes killed while they work, one after the other on the same store: nothing promised is ever missing. */
import { test } from 'node:test';
import { runSeed, seededRandom } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { killRounds, killSummary } from './support/kill.js';
import { assertNoLosses } from './support/promises.js';

const ROUNDS = { overlay2: 16, vfs: 4 } as const;

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`kill -9 at any moment: ${driver}`, async (t) => {
    const seed = runSeed();
    const result = await killRounds(tempDir(t, 'kill'), driver, ROUNDS[driver], seededRandom(seed));
    t.diagnostic(`${driver}: ${killSummary(result)} (LAYERSTORE_SEED=${seed})`);
    assertNoLosses(result.losses, `LAYERSTORE_SEED=${seed}`);
  });
}
