/** The protocol, one operation after the other, with something done before each step of each operation. */
import { openStore } from '../../../src/store/open.js';
import { instrument } from './instrument.js';
import type { Entry } from './promises.js';
import { committedOn, FIRST, prepareProtocol, protocol, runOperation, type Operation } from './protocol.js';

/** Runs the protocol without faults up to the first commit, in `root`: gives its operations. */
export async function learnProtocol(root: string, driver: 'overlay2' | 'vfs'): Promise<Operation[]> {
  const store = await openStore({ root, engine: 'native', driver, durability: 'relaxed' });
  await prepareProtocol(store);
  const early = protocol(FIRST['ref:base'] as never);
  for (const name of ['createRWLayer', 'applyDiff']) {
    const operation = early.find((one) => one.name === name) as Operation;
    await operation.run(store);
  }
  const boxed = await committedOn(store, 'box');
  await store.close();
  return protocol(boxed);
}

/** A prepared store in `root`. */
export async function beginProtocol(root: string, driver: 'overlay2' | 'vfs'): Promise<Entry[]> {
  const store = await openStore({ root, engine: 'native', driver });
  await prepareProtocol(store);
  await store.close();
  return [{ at: 'seen', facts: FIRST }];
}

/** Runs all operations in `root`; `before` sees each step, in which operation it is, and the log so far. */
export async function runSteps(
  root: string,
  driver: 'overlay2' | 'vfs',
  operations: readonly Operation[],
  log: Entry[],
  before: (where: string) => void,
): Promise<void> {
  for (const [index, operation] of operations.entries()) {
    const store = await openStore({ root, engine: 'native', driver });
    let step = 0;
    const restore = instrument(root, {
      before: (what) => before(`${operation.name}, step ${(step += 1)}: ${what}`),
    });
    try {
      await runOperation(store, operation, index + 1, (entry) => log.push(entry));
    } finally {
      restore();
    }
    before(`${operation.name}, done`);
    await store.close();
  }
}
