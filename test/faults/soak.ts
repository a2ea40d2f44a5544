/**
 * `npm run soak [CYCLES] [KILLS] [CUTS] [MINUTES]`: random operations with restarts for hours, then processes killed and power
 * cut, many more times than a test run has patience for; then hostile archives, on which both engines and both forms of a
 * layer have to agree. Defaults: 20,000 cycles, 300 kills, 400 clones, 10 minutes. Prints figures; exits with 1 where anything
 * was lost or left, or differs.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { differentialProperty } from '../support/differential.js';
import { heldNow, threads } from '../support/leaks.js';
import { pick, runSeed, seededRandom } from '../support/random.js';
import { makeTempDir, removeTempDir } from '../support/temp.js';
import { killRounds, killSummary } from './support/kill.js';
import { powerCuts, summary } from './support/power-cut.js';
import { check, fold, leftovers, strayMounts, type Entry } from './support/promises.js';
import { makeBase, Workload } from './support/workload.js';

const [cycles = 20_000, kills = 300, cuts = 400, minutes = 10] = process.argv.slice(2).map(Number);
const seed = runSeed();
const random = seededRandom(seed);
const problems: string[] = [];
const started = performance.now();

function say(text: string): void {
  const minutes = ((performance.now() - started) / 60_000).toFixed(1);
  process.stdout.write(`${minutes.padStart(6)} min  ${text}\n`);
}

/** Kibibytes of this process that no file backs, after a collection: what a collector has not got to yet is no leak. */
function memoryUsed(): number {
  if (globalThis.gc === undefined) throw new Error('run this by "npm run soak", which gives it --expose-gc');
  globalThis.gc();
  return Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);
}

/** What of it is JavaScript's: the rest is the addon's, the C library's and Node's own. */
function heapUsed(): string {
  const { heapUsed, external } = process.memoryUsage();
  const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  return `${mebibytes(heapUsed)} of them heap, ${mebibytes(external)} external`;
}

/** Cycles in one process: the store is closed and opened again at random, everything is given back now and then. */
async function runCycles(directory: string): Promise<void> {
  const root = join(directory, 'root');
  mkdirSync(root, { mode: 0o710 });
  let entries: Entry[] = [];
  let ops = 0;
  let restarts = 0;
  let done = 0;
  const log = (entry: Entry): void => void entries.push(entry);
  const open = (): Promise<Store> => openStore({ root, engine: 'native', driver: 'overlay2' });
  let store = await open();
  await makeBase(store, log, (ops += 1));
  const base = entries.slice();
  let first: { held: ReturnType<typeof heldNow>; memory: number } | undefined;
  const every = Math.max(100, Math.min(1_000, Math.floor(cycles / 8)));
  while (done < cycles) {
    const lanes = await Promise.all(
      [1, 2, 3].map((lane) => Workload.start({ store, log, random, lane, nextOp: () => (ops += 1) })),
    );
    const until = Math.min(cycles, done + every);
    // Each lane a third; restarts with everything in place happen in between.
    let part = until - done;
    let running = lanes;
    while (part > 0) {
      const now = Math.min(part, 30 + pick(random, 120));
      await Promise.all(
        running.map(async (lane, index) => {
          for (let n = index; n < now; n += running.length) await lane.step();
        }),
      );
      part -= now;
      if (part === 0) break;
      await store.close();
      const known = fold(entries);
      problems.push(...(await inspect(open, known)));
      store = await open();
      restarts += 2;
      running = await Promise.all(
        [1, 2, 3].map((lane) => Workload.resume({ store, log, random, lane, nextOp: () => (ops += 1) }, known)),
      );
    }
    done = until;
    for (const lane of running) await lane.clear();
    // The base alone is left, and what needs it.
    problems.push(...(await settle(store)));
    problems.push(...(await leftovers(store, root, 'overlay2')), ...strayMounts(store, root));
    if (store.map().size !== 1 || store.mounts().size !== 0)
      problems.push(`${store.map().size - 1} layers and ${store.mounts().size} RW layers too many`);
    entries = base.slice();
    const held = await heldAtRest(directory, first?.held.descriptors.length);
    const memory = memoryUsed();
    say(
      `${done} cycles, ${ops} operations, ${restarts} restarts: ${held.descriptors.length} descriptors, ${held.threads} threads, ${held.mounts.length} mounts, ${(memory / 1024).toFixed(0)} MiB, ${heapUsed()}, ${problems.length} problems`,
    );
    if (first === undefined) first = { held, memory };
    else compare(first, { held, memory });
  }
  await store.close();
}

/** The checks take handles of their own, so they get a store of their own. */
async function inspect(open: () => Promise<Store>, known: ReturnType<typeof fold>): Promise<string[]> {
  const store = await open();
  try {
    return (await check(store, known)).losses;
  } finally {
    await store.close();
  }
}

/** After a clear only handles are left that a lane got twice; none may be. */
async function settle(store: Store): Promise<string[]> {
  const { removed } = await store.gc();
  return removed.map(({ chainID }) => `layer:${chainID} was kept by nothing and was there`);
}

/** What is unlinked in the background has a directory open while it lasts; a leak is still there after ten seconds. */
async function heldAtRest(directory: string, descriptors = Infinity): Promise<ReturnType<typeof heldNow>> {
  for (let attempt = 0; ; attempt++) {
    const held = heldNow(directory);
    if (held.descriptors.length <= descriptors || attempt === 100) return held;
    await sleep(100);
  }
}

function compare(
  before: { held: ReturnType<typeof heldNow>; memory: number },
  now: { held: ReturnType<typeof heldNow>; memory: number },
): void {
  if (now.held.descriptors.length > before.held.descriptors.length)
    problems.push(`descriptors: ${now.held.descriptors.join(' ')}`);
  if (now.held.threads > before.held.threads + 2) problems.push(`threads: ${threads().join(' ')}`);
  if (now.held.mounts.length > 0) problems.push(`mounts: ${now.held.mounts.join(' ')}`);
  // The first round warms caches up; from then on it stays where it is, give or take the collector's mood.
  if (now.memory > 1.5 * before.memory + 32 * 1024)
    problems.push(`memory: ${now.memory} KiB where it was ${before.memory} KiB`);
}

const cleanups: (() => void)[] = [];
const hooks = { after: (cleanup: () => void) => void cleanups.unshift(cleanup) } as never;
try {
  say(`LAYERSTORE_SEED=${seed}`);
  const directory = makeTempDir('soak');
  cleanups.push(() => removeTempDir(directory));
  if (cycles > 0) await runCycles(directory);
  if (kills > 0) {
    const place = join(directory, 'kills');
    mkdirSync(place);
    const result = await killRounds(place, 'overlay2', kills, random);
    problems.push(...result.losses);
    say(killSummary(result));
  }
  for (const fileSystem of ['ext4', 'xfs', 'btrfs'] as const) {
    let left = fileSystem === 'ext4' ? Math.ceil(cuts / 2) : Math.ceil(cuts / 4);
    while (left > 0) {
      const clones = Math.min(left, 50);
      const result = await powerCuts(hooks, { fileSystem, seed: pick(random, 2 ** 31), operations: 40, clones });
      while (cleanups.length > 1) cleanups.shift()?.();
      problems.push(...result.losses);
      say(`power cuts on ${fileSystem}: ${summary(result)}`);
      left -= clones;
    }
  }
  if (minutes > 0) {
    const details = await fc.check(await differentialProperty(), {
      seed: seed | 0,
      numRuns: 10_000_000,
      interruptAfterTimeLimit: minutes * 60_000,
      markInterruptAsFailure: false,
    });
    if (details.failed) problems.push(`${fc.defaultReportMessage(details)}\n${String(details.errorInstance)}`);
    say(`${details.numRuns} hostile archives, unpacked four ways`);
  }
} finally {
  for (const cleanup of cleanups) cleanup();
}
say(problems.length === 0 ? 'nothing lost, nothing left' : `${problems.length} PROBLEMS:\n${problems.join('\n')}`);
process.exitCode = problems.length === 0 ? 0 : 1;
