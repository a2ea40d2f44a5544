/** Runs a property for a while, with a seed from the environment or a new one, and says both. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { runSeed } from '../support/random.js';

/** Seconds for each property, in a run of all tests; `LAYERSTORE_PROPERTY_SECONDS` for long runs. */
const SECONDS = Number(process.env['LAYERSTORE_PROPERTY_SECONDS'] ?? 4);

export async function holds<T>(t: TestContext, property: fc.IAsyncProperty<T>): Promise<void> {
  const seed = runSeed() | 0;
  let details = await fc.check(property, {
    seed,
    numRuns: 100_000,
    interruptAfterTimeLimit: SECONDS * 1000,
    markInterruptAsFailure: false,
  });
  // On a busy machine not even one may fit into the time: that one is then run to its end.
  if (details.numRuns === 0) details = await fc.check(property, { seed, numRuns: 1 });
  t.diagnostic(`${details.numRuns} runs with LAYERSTORE_SEED=${seed}`);
  if (details.failed) {
    const { errorInstance } = details;
    const why = errorInstance instanceof Error ? (errorInstance.stack ?? errorInstance.message) : String(errorInstance);
    throw new Error(`${fc.defaultReportMessage(details)}\n${why}`);
  }
  assert.ok(details.numRuns > 0);
}
