/**
 * Each step of each operation fails once, as a full or a broken disk lets it: the operation says so or succeeds all the
 * same, nothing of what was there is lost, nothing is left, and the next try works.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LayerStoreError } from '../../src/errors.js';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { runSeed } from '../support/random.js';
import { memory } from './support/disks.js';
import { instrument } from './support/instrument.js';
import { assertNoLosses, check, fold, leftovers, type Entry, type Facts } from './support/promises.js';
import { beginProtocol, learnProtocol } from './support/step-run.js';
import type { Operation } from './support/protocol.js';

const FAULTS = [
  { code: 'ENOSPC', errno: -28 },
  { code: 'EIO', errno: -5 },
  { code: 'EROFS', errno: -30 },
] as const;

/** Each step fails in one of so many runs. */
const STRIDE = { overlay2: 2, vfs: 4 } as const;

interface Tried {
  /** Whether there was an n-th step. */
  reached: boolean;
  rejected: boolean;
  problems: string[];
}

/** Runs `operation` in `root` with its `nth` step failing. */
async function tryOnce(
  root: string,
  driver: 'overlay2' | 'vfs',
  operation: Operation,
  nth: number,
  log: readonly Entry[],
): Promise<Tried> {
  const fault = FAULTS[nth % FAULTS.length] as (typeof FAULTS)[number];
  const problems: string[] = [];
  const entries: Entry[] = [...log];
  const open = (): Promise<Store> => openStore({ root, engine: 'native', driver, durability: 'relaxed' });
  let store = await open();
  let steps = 0;
  let failed = '';
  const restore = instrument(root, {
    before: (step) => {
      if ((steps += 1) !== nth) return;
      failed = step;
      throw new LayerStoreError('ERR_SYSTEM', `cannot do "${step}": ${fault.code}`, {
        errno: fault.errno,
        errnoName: fault.code,
      });
    },
  });
  const problem = (what: string): void => void problems.push(`${operation.name}, step ${nth} (${failed}): ${what}`);
  let rejected = false;
  try {
    let facts: Facts | undefined;
    try {
      facts = await operation.run(store);
    } catch (error) {
      rejected = true;
      if (!LayerStoreError.is(error, 'ERR_SYSTEM') || error.errnoName !== fault.code)
        problem(`rejects with ${String(error)}`);
    }
    restore();
    if (facts !== undefined) entries.push({ at: 'done', op: 0, facts });
    // The store that saw the failure works on, and tells the same as one opened after it.
    (await check(store, fold(entries))).losses.forEach(problem);
    await store.cleanup();
    (await leftovers(store, root, driver)).forEach((what) => problem(`left over: ${what}`));
    await store.close();
    store = await open();
    if (rejected) {
      const second = await operation
        .run(store)
        .catch((error: unknown) => problem(`the next try fails: ${String(error)}`));
      if (second !== undefined) entries.push({ at: 'done', op: 1, facts: second });
    }
    (await check(store, fold(entries))).losses.forEach(problem);
    (await leftovers(store, root, driver)).forEach((what) => problem(`left over after a restart: ${what}`));
  } finally {
    restore();
    await store.close();
  }
  return { reached: failed !== '', rejected, problems };
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`${driver}: a failure in each step of each operation`, async (t) => {
    const directory = memory(t, 'injected');
    const operations = await learnProtocol(join(directory, 'learn'), driver);
    const root = join(directory, 'root');
    const log = await beginProtocol(root, driver);
    const problems: string[] = [];
    let tries = 0;
    // Every so many steps, another one of them to begin with each time.
    const first = 1 + (runSeed() % STRIDE[driver]);
    let rejections = 0;
    for (const operation of operations) {
      for (let nth = first; ; nth += STRIDE[driver]) {
        const copy = join(directory, 'copy');
        const { status, stderr } = spawnSync('cp', ['-a', '--', root, copy], { encoding: 'utf8' });
        assert.equal(status, 0, stderr);
        const found = await tryOnce(copy, driver, operation, nth, log);
        rmSync(copy, { recursive: true });
        if (!found.reached) break;
        tries += 1;
        if (found.rejected) rejections += 1;
        problems.push(...found.problems);
      }
      // Without a fault, for the operations that build on it.
      const store = await openStore({ root, engine: 'native', driver, durability: 'relaxed' });
      log.push({ at: 'done', op: 0, facts: await operation.run(store) });
      await store.close();
    }
    t.diagnostic(`${driver}: ${tries} injected failures, ${rejections} rejections, ${problems.length} problems`);
    assertNoLosses(problems, 'injected');
    assert.ok(rejections > tries / 3, 'failures reach the operations');
  });
}
