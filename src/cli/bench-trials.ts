/**
 * The few trials of `layerstore bench`: what a user wants to know of a machine in half a minute. The whole benchmark,
 * with peers and charts, is `npm run bench` in the sources.
 */
import { createCipheriv } from 'node:crypto';
import { open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashFile, openStore, type Store } from '../index.js';

export interface BenchResult {
  trial: string;
  engine: 'native' | 'js';
  /** Milliseconds, median of the runs. */
  median: number;
  min: number;
  max: number;
  /** Bytes a second where bytes are what it is about, else operations a second. */
  rate: number;
  unit: 'bytes' | 'operations';
}

const SMALL_FILES = 4000;
const BIG_FILES = 4;
const BIG_SIZE = 16 << 20;

/** Writes a tar of many small and a few big files, the same bytes each time. Gives its size. */
export async function writeSampleTar(path: string): Promise<void> {
  const noise = createCipheriv('aes-256-ctr', Buffer.alloc(32, 7), Buffer.alloc(16)).update(Buffer.alloc(BIG_SIZE));
  const { pack } = await import('tar-stream');
  const tar = pack();
  const mtime = new Date(0);
  for (let i = 0; i < SMALL_FILES; i++) {
    const content = noise.subarray(i * 64, i * 64 + 200 + ((i * 37) % 6000));
    tar.entry({ name: `modules/m${i % 200}/file-${i}.js`, mtime }, content);
  }
  for (let i = 0; i < BIG_FILES; i++) tar.entry({ name: `bin/program-${i}`, mtime }, noise);
  tar.finalize();
  await writeFile(path, tar as AsyncIterable<Uint8Array>, { flag: 'wx' });
}

interface Trial {
  name: string;
  unit: BenchResult['unit'];
  /** Gives how many bytes or operations it did; only the time inside `clock` counts. */
  run(bench: Bench, clock: <T>(work: () => Promise<T>) => Promise<T>): Promise<number>;
}

interface Bench {
  engine: 'native' | 'js';
  driver: 'overlay2' | 'vfs' | 'auto';
  tar: string;
  tarSize: number;
  /** A path that does not exist yet, for a store. */
  fresh(): string;
}

async function withStore<T>(bench: Bench, work: (store: Store) => Promise<T>): Promise<T> {
  const root = bench.fresh();
  const store = await openStore({ root, engine: bench.engine, driver: bench.driver, durability: 'relaxed' });
  try {
    return await work(store);
  } finally {
    await store.close();
    await rm(root, { recursive: true, force: true });
  }
}

const CYCLES = 50;

const trials: readonly Trial[] = [
  {
    name: 'hash',
    unit: 'bytes',
    run: async (bench, clock) => (await clock(() => hashFile(bench.tar))).tarSize,
  },
  {
    name: 'register',
    unit: 'bytes',
    run: (bench, clock) =>
      withStore(bench, async (store) => {
        await clock(() => store.register({ path: bench.tar }));
        return bench.tarSize;
      }),
  },
  {
    name: 'export, verified',
    unit: 'bytes',
    run: (bench, clock) =>
      withStore(bench, async (store) => {
        const layer = await store.register({ path: bench.tar });
        const sink = await open('/dev/null', 'w');
        try {
          return (await clock(() => layer.exportTo({ fd: sink.fd }))).bytes;
        } finally {
          await sink.close();
        }
      }),
  },
  {
    name: 'create, mount, unmount, release',
    unit: 'operations',
    run: (bench, clock) =>
      withStore(bench, async (store) => {
        const layer = await store.register({ path: bench.tar });
        await clock(async () => {
          for (let i = 0; i < CYCLES; i++) {
            const rw = await store.createRWLayer(`bench-${i}`, layer.chainID);
            await rw.mount();
            await rw.unmount();
            await store.releaseRWLayer(rw);
          }
        });
        return CYCLES;
      }),
  },
];

/** Runs every trial on every engine, in turn, `runs` times after one that does not count. */
export async function runTrials(
  bench: Omit<Bench, 'engine' | 'fresh'> & {
    scratch: string;
    engines: readonly Bench['engine'][];
    runs: number;
    signal: AbortSignal;
  },
  say: (text: string) => void,
): Promise<BenchResult[]> {
  let serial = 0;
  const fresh = (): string => join(bench.scratch, `store-${serial++}`);
  const results: BenchResult[] = [];
  for (const trial of trials) {
    const samples = new Map(bench.engines.map((engine) => [engine, { times: [] as number[], amount: 0 }]));
    for (let run = 0; run <= bench.runs; run++) {
      for (const [engine, sample] of samples) {
        bench.signal.throwIfAborted();
        say(`${trial.name}: ${engine}, run ${run} of ${bench.runs}`);
        let elapsed = 0;
        sample.amount = await trial.run({ ...bench, engine, fresh }, async (work) => {
          const started = performance.now();
          const value = await work();
          elapsed = performance.now() - started;
          return value;
        });
        if (run > 0) sample.times.push(elapsed);
      }
    }
    for (const [engine, { times, amount }] of samples) {
      const sorted = [...times].sort((a, b) => a - b);
      const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
      results.push({
        trial: trial.name,
        engine,
        median,
        min: sorted[0] ?? Number.NaN,
        max: sorted.at(-1) ?? Number.NaN,
        rate: (amount / median) * 1000,
        unit: trial.unit,
      });
    }
  }
  return results;
}
