/** How often a trial of the benchmark runs each contestant. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Contestant } from '../../../bench/contestants.js';
import type { FreshDisk } from '../../../bench/fresh-disk.js';
import { runTrial } from '../../../bench/runner.js';
import type { Trial } from '../../../bench/trials.js';

/** `wall` of every run is `wall`, however long it took. */
function contestant(name: string, wall: number, calls: string[]): Contestant {
  return {
    name,
    start: async () => void calls.push(`start ${name}`),
    run: async () => {
      calls.push(name);
      return { wall, cpu: wall, peak: 0 };
    },
    stop: async () => void calls.push(`stop ${name}`),
  };
}

function trialOf(calls: string[], more: Partial<Trial>): Trial {
  const contestants = [contestant('a', 1, calls), contestant('b', 3, calls)];
  return { name: 'trial', group: 'group', runs: 2, contestants, reference: 'a', inputs: [], ...more };
}

function options(calls: string[]): { disk: FreshDisk; say: () => void } {
  const disk = { renew: async () => void calls.push('renew') } as unknown as FreshDisk;
  return { disk, say: () => undefined };
}

test('contestants run in turn after a warm-up that does not count, on one file system', async () => {
  const calls: string[] = [];
  const { results } = await runTrial(trialOf(calls, {}), options(calls));
  assert.deepEqual(calls, ['renew', 'start a', 'a', 'start b', 'b', 'a', 'b', 'a', 'b', 'stop a', 'stop b']);
  assert.deepEqual(
    results.map(({ contestant: who, wall, ratio }) => [who, wall.count, ratio?.median]),
    [
      ['a', 2, 1],
      ['b', 2, 3],
    ],
  );
});

test('a trial that renews has a new file system before every run', async () => {
  const calls: string[] = [];
  await runTrial(trialOf(calls, { renew: true, runs: 1 }), options(calls));
  const runs = calls.flatMap((call, i) => (call === 'a' || call === 'b' ? [calls[i - 1]] : []));
  assert.deepEqual(runs, ['renew', 'renew', 'renew', 'renew']);
});

test('with no time left everybody has one run, and a long first run is that run', async () => {
  const calls: string[] = [];
  const contestants = [contestant('a', 1, calls), contestant('long', 60_000, calls)];
  const { results } = await runTrial(trialOf(calls, { contestants, runs: 5 }), { ...options(calls), allowance: -1 });
  assert.deepEqual(
    calls.filter((call) => !call.includes(' ')),
    ['renew', 'a', 'long', 'a'],
  );
  assert.deepEqual(
    results.map(({ wall }) => wall.count),
    [1, 1],
  );
});
