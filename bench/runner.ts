/** Runs one trial: every contestant once to warm up, then all of them in turn, A B A B …, each as often as asked. */
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
  runs: number;
  results: Result[];
}

export interface RunOptions {
  /** Called before each measured run. */
  before?: () => Promise<void>;
  say: (text: string) => void;
}

export async function runTrial(trial: Trial, { before, say }: RunOptions): Promise<TrialResult> {
  const samples = new Map<string, Sample[]>(trial.contestants.map(({ name }) => [name, []]));
  const started = [];
  try {
    say(`${trial.name}: preparing`);
    for (const make of trial.inputs) await make();
    for (const contestant of trial.contestants) {
      say(`${trial.name}: preparing ${contestant.name}`);
      await contestant.start();
      started.push(contestant);
      await contestant.run(); // warm caches, compiled code
    }
    for (let run = 0; run < trial.runs; run++) {
      for (const contestant of trial.contestants) {
        say(`${trial.name}: ${contestant.name} ${run + 1}/${trial.runs}`);
        await before?.();
        samples.get(contestant.name)?.push(await contestant.run());
      }
    }
  } finally {
    for (const contestant of started) await contestant.stop();
  }
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
