/** Runs a property with a seed from the environment or a new one, and says it and how often the property ran. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { runSeed } from '../support/random.js';

/** Seconds for each property, in a run of all tests; `LAYERSTORE_PROPERTY_SECONDS` for long runs. */
const SECONDS = Number(process.env['LAYERSTORE_PROPERTY_SECONDS'] ?? 4);

/** As often as the time allows. */
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
  report(t, details);
}

/** `runs` times, whatever it takes: a seed always gives the same inputs. */
export async function holdsTimes<T>(t: TestContext, property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  report(t, await fc.check(property, { seed: runSeed() | 0, numRuns: runs }));
}

function report<T>(t: TestContext, details: fc.RunDetails<T>): void {
  t.diagnostic(`${details.numRuns} runs with LAYERSTORE_SEED=${details.seed}`);
  if (details.failed) {
    const { errorInstance } = details;
    const why = errorInstance instanceof Error ? (errorInstance.stack ?? errorInstance.message) : String(errorInstance);
    throw new Error(`${fc.defaultReportMessage(details)}\n${why}`);
  }
  assert.ok(details.numRuns > 0);
}
