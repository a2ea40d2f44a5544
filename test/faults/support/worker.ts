/**
 * A process that works on a store until it is killed. Each entry of the log is one line, written with one system call, so
 * that what it promised outlives it. Arguments: root, driver, log file, seed, and the step before which it kills itself
 * (0: it waits for somebody else to).
 */
import { openSync, readFileSync, writeSync } from 'node:fs';
import { openStore } from '../../../src/store/open.js';
import { seededRandom } from '../../support/random.js';
import { instrument } from './instrument.js';
import { readLog } from './log-file.js';
import { fold, type Entry } from './promises.js';
import { makeBase, Workload } from './workload.js';

const LANES = 3;

async function main(): Promise<void> {
  const [root = '', driver = '', path = '', seed = '0', fatal = '0'] = process.argv.slice(2);
  const entries = readLog(readFileSync(path, 'utf8'));
  const random = seededRandom(Number(seed));
  const file = openSync(path, 'a');
  let ops = entries.length;
  const log = (entry: Entry): void => void writeSync(file, `${JSON.stringify(entry)}\n`);
  const store = await openStore({ root, engine: 'native', driver: driver as 'overlay2' | 'vfs' });
  const nextOp = (): number => (ops += 1);
  const known = fold(entries);
  if (!known.sure.has('ref:base')) await makeBase(store, log, nextOp());
  if (Number(fatal) > 0) {
    let steps = 0;
    instrument(root, {
      before: () => {
        if ((steps += 1) === Number(fatal)) process.kill(process.pid, 'SIGKILL');
      },
    });
  }
  process.stdout.write('working\n');
  await Promise.all(
    Array.from({ length: LANES }, async (_, index) => {
      const lane = index + 1;
      const workload = await Workload.resume({ store, log, random, lane, nextOp }, known);
      for (;;) await workload.step();
    }),
  );
}

await main();
