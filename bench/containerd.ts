/**
 * The store as containerd's snapshotter beside containerd's own overlayfs: `node --import tsx bench/containerd.ts [--rounds N]
 * [--image OCI-ARCHIVE] [--calls] [--durability relaxed]`. containerd's own syncs its database alone, never the files of a layer:
 * `relaxed` compares like with like. The calls are made by a Go client of the socket, the imports by containerd 2 on fresh
 * directories; each round has both, one after the other. Needs the packages of `npm run test:peers`.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Pair, SNAPSHOTTER, startPlugin } from '../test/peers/containerd/daemons.js';
import { goProgram } from '../test/peers/containerd/programs.js';
import { Daemon, type Hooks } from '../test/peers/support.js';
import { tempDir } from '../test/support/temp.js';
import { pairedRatio, percentile } from './statistics.js';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    image: { type: 'string' },
    calls: { type: 'boolean', default: false },
    durability: { type: 'string', default: 'strict' },
  },
});
const rounds = Number(values.rounds);
const words = ['--durability', values.durability];

/** Runs `work`; what it started ends last first. */
async function scoped<T>(work: (t: Hooks) => Promise<T>): Promise<T> {
  const steps: (() => unknown)[] = [];
  try {
    return await work({ after: (step) => void steps.push(step as () => unknown) });
  } finally {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) await step();
  }
}

function print(what: string, unit: string, theirs: readonly number[], ours: readonly number[]): void {
  const [a, b] = [percentile(theirs, 0.5), percentile(ours, 0.5)].map((value) => value.toFixed(0));
  console.log(
    `${what}: containerd's ${a} ${unit}, ours ${b} ${unit}, ratio ${pairedRatio(ours, theirs).median.toFixed(2)}`,
  );
}

async function callsOf(
  programs: { calls: string; overlayfs: string },
  who: 'theirs' | 'ours',
): Promise<Record<string, number>> {
  return scoped(async (t) => {
    const directory = tempDir(t, 'calls');
    const [root, socket] = [join(directory, 'root'), join(directory, 's')];
    mkdirSync(root);
    const daemon =
      who === 'ours' ? await startPlugin(root, socket, words) : new Daemon(programs.overlayfs, [root, socket]);
    t.after(() => daemon.stop());
    return JSON.parse(execFileSync(programs.calls, [socket], { encoding: 'utf8' })) as Record<string, number>;
  });
}

async function measureCalls(): Promise<void> {
  await scoped(async (t) => {
    const programs = { calls: goProgram(t, 'calls'), overlayfs: goProgram(t, 'overlayfs') };
    const results: { theirs: Record<string, number>; ours: Record<string, number> }[] = [];
    for (let round = 0; round < rounds; round++) {
      results.push({ theirs: await callsOf(programs, 'theirs'), ours: await callsOf(programs, 'ours') });
    }
    for (const name of Object.keys(results[0]?.ours ?? {})) {
      const of = (who: 'theirs' | 'ours'): number[] => results.map((each) => each[who][name] ?? Number.NaN);
      print(name, 'us a call', of('theirs'), of('ours'));
    }
  });
}

/** Milliseconds of an import, unpacking included. */
async function importOf(image: string, snapshotter: string): Promise<number> {
  return scoped(async (t) => {
    const pair = await Pair.start(t, 'sid', { words });
    const began = performance.now();
    await pair.ctr('images', 'import', '--snapshotter', snapshotter, image);
    return performance.now() - began;
  });
}

async function measureImports(image: string): Promise<void> {
  const results: { theirs: number; ours: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    results.push({ theirs: await importOf(image, 'overlayfs'), ours: await importOf(image, SNAPSHOTTER) });
  }
  print(
    'import',
    'ms',
    results.map(({ theirs }) => theirs),
    results.map(({ ours }) => ours),
  );
}

if (values.calls) await measureCalls();
if (values.image !== undefined) await measureImports(values.image);
if (!values.calls && values.image === undefined) console.log('nothing to measure: give --calls, --image, or both');
