/**
 * Runs one trial: every contestant once to warm up, then all of them in turn, A B A B …, each as often as asked or as the
 * time allows.
 */
import type { Contestant } from './contestants.js';
import type { FreshDisk } from './fresh-disk.js';
import type { Trial } from './trials.js';
import type { Sample } from './sample.js';
import { pairedRatio, summarise, type Summary } from './statistics.js';

export interface Result {
  contestant: string;
  wall: Summary;
  cpu: Summary;
  /** Bytes above the idle process; of a command: its own. */
  peak: Summary;
  /** p99 of a 10 ms timer's lateness, the worst run; absent for commands. */
  late?: number;
  /** Wall time in units of the trial's reference, pair by pair. */
  ratio?: Summary;
  bytesPerSecond?: number;
  rate?: Summary;
}

export interface TrialResult {
  trial: string;
  group: string;
  reference: string;
  headline: boolean;
  rateUnit?: string;
  /** At most; how many each contestant had: the count of its `wall`. */
  runs: number;
  results: Result[];
}

export interface RunOptions {
  /** Called before each measured run. */
  before?: () => Promise<void>;
  disk: FreshDisk;
  /** Milliseconds after which no contestant begins another run; each has one at least. */
  allowance?: number;
  say: (text: string) => void;
}

/** A run of this many milliseconds needs no warm-up: the first one counts. */
const LONG = 1000;

export async function runTrial(trial: Trial, options: RunOptions): Promise<TrialResult> {
  const samples = await takeSamples(trial, options);
  const reference = samples.get(trial.reference) ?? [];
  const results = trial.contestants.map(({ name }): Result => {
    const mine = samples.get(name) ?? [];
    const wall = summarise(mine.map((sample) => sample.wall));
    const late = mine.map((sample) => sample.late).filter((each) => each !== undefined);
    const rates = mine.map((sample) => sample.rate).filter((each) => each !== undefined);
    const bytes = mine[0]?.bytes;
    return {
      contestant: name,
      wall,
      cpu: summarise(mine.map((sample) => sample.cpu)),
      peak: summarise(mine.map((sample) => sample.peak)),
      ...(late.length === 0 ? {} : { late: Math.max(...late) }),
      ...(reference.length === 0
        ? {}
        : {
            ratio: pairedRatio(
              mine.map(({ wall: w }) => w),
              reference.map(({ wall: w }) => w),
            ),
          }),
      ...(bytes === undefined ? {} : { bytesPerSecond: (bytes / wall.median) * 1000 }),
      ...(rates.length === 0 ? {} : { rate: summarise(rates) }),
    };
  });
  const { name, group, runs, headline = false, rateUnit } = trial;
  return {
    trial: name,
    group,
    reference: trial.reference,
    headline,
    ...(rateUnit === undefined ? {} : { rateUnit }),
    runs,
    results,
  };
}

async function takeSamples(
  trial: Trial,
  { before, say, disk, allowance = Infinity }: RunOptions,
): Promise<Map<string, Sample[]>> {
  const samples = new Map<string, Sample[]>(trial.contestants.map(({ name }) => [name, []]));
  const costs = new Map<string, number>();
  const started: Contestant[] = [];
  const run = async (contestant: Contestant): Promise<Sample> => {
    const began = performance.now();
    if (trial.renew === true) await disk.renew();
    await before?.();
    const sample = await contestant.run();
    costs.set(contestant.name, performance.now() - began);
    return sample;
  };
  try {
    say(`${trial.name}: preparing`);
    for (const make of trial.inputs) await make();
    const until = performance.now() + allowance;
    await disk.renew();
    for (const contestant of trial.contestants) {
      say(`${trial.name}: preparing ${contestant.name}`);
      await contestant.start();
      started.push(contestant);
      const sample = await run(contestant); // warm caches, compiled code
      if (sample.wall > LONG) samples.get(contestant.name)?.push(sample);
    }
    for (let round = 0; round < trial.runs; round++) {
      for (const contestant of trial.contestants) {
        const mine = samples.get(contestant.name) ?? [];
        const late = performance.now() + (costs.get(contestant.name) ?? 0) > until;
        if (mine.length >= trial.runs || (late && mine.length > 0)) continue;
        say(`${trial.name}: ${contestant.name} ${mine.length + 1}/${trial.runs}`);
        mine.push(await run(contestant));
      }
    }
  } finally {
    for (const contestant of started) await contestant.stop();
  }
  return samples;
}
