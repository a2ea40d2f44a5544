/**
 * Each step of each operation fails once, as a full or a broken disk lets it: the operation says so or succeeds all the
 * same, nothing of what was there is lost, nothing is left, and the next try works.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LayerStoreError } from '../../src/errors.js';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { runSeed } from '../support/random.js';
import { removeTempDir } from '../support/temp.js';
import { memory } from './support/disks.js';
import { engineMethods, instrument, READS } from './support/instrument.js';
import { assertNoLosses, check, fold, leftovers, type Entry, type Facts } from './support/promises.js';
import { readings, type Operation } from './support/protocol.js';
import { beginProtocol, learnProtocol } from './support/step-run.js';

const FAULTS = [
  { code: 'ENOSPC', errno: -28 },
  { code: 'EIO', errno: -5 },
  { code: 'EROFS', errno: -30 },
] as const;

/** Each step fails in one of so many runs. */
const STRIDE = { overlay2: 2, vfs: 4 } as const;

/** Methods of the engine that have failed in some operation of this run. */
const failed = new Set<string>();

/** Whether a step, the `nth` of its operation, is the one that fails. */
type Choice = (method: string, nth: number) => boolean;

interface Tried {
  rejected: boolean;
  /** Nothing was chosen. */
  unharmed: boolean;
  problems: string[];
}

type Driver = 'overlay2' | 'vfs';

const openIn = (root: string, driver: Driver, durability: 'strict' | 'relaxed' = 'relaxed'): Promise<Store> =>
  openStore({ root, engine: 'native', driver, durability });

/** An open that has something to recover, and its close. */
function opening(root: string, driver: Driver): Operation {
  return {
    name: 'open',
    may: [],
    run: async () => {
      await (await openIn(root, driver)).close();
      return {};
    },
  };
}

/** What a process that was killed while it made a layer leaves. */
function leaveUnfinished(root: string, driver: Driver): void {
  const id = 'e'.repeat(64);
  mkdirSync(join(root, driver, ...(driver === 'vfs' ? ['dir'] : []), id));
  writeFileSync(join(root, 'layerstore', 'intents', id), '{"kind":"layer"}');
}

/** What could not be unmounted stays counted, so that it can be tried again. */
async function unmountAll(store: Store): Promise<void> {
  for (const [name, { mountCount }] of store.mounts()) {
    const rw = await store.getRWLayer(name);
    for (let count = 0; count < mountCount; count += 1) await rw.unmount();
  }
}

/** Runs `operation` in `root`, in a store that is open unless it opens one itself, with the first step failing that is chosen. */
async function tryOnce(
  root: string,
  driver: Driver,
  operation: Operation,
  chosen: Choice,
  log: readonly Entry[],
): Promise<Tried> {
  const problems: string[] = [];
  const entries: Entry[] = [...log];
  const opens = operation.name === 'open';
  let armed = false;
  let steps = 0;
  let where = '';
  let fault: (typeof FAULTS)[number] = FAULTS[0];
  const restore = instrument(root, {
    reads: true,
    before: (step, method) => {
      if (!armed) return;
      steps += 1;
      if (where !== '' || !chosen(method, steps)) return;
      where = `step ${steps} (${step})`;
      failed.add(method);
      fault = FAULTS[steps % FAULTS.length] as typeof fault;
      throw new LayerStoreError('ERR_SYSTEM', `cannot do "${step}": ${fault.code}`, {
        errno: fault.errno,
        errnoName: fault.code,
      });
    },
  });
  // Hooked before it opens, for the objects that the engine gives it then.
  // One operation with its syncs; only a relaxed store tears overlays down later.
  let store = opens ? undefined : await openIn(root, driver, operation.name === 'register' ? 'strict' : 'relaxed');
  armed = true;
  const problem = (what: string): void => void problems.push(`${operation.name}, ${where}: ${what}`);
  let rejected = false;
  try {
    let facts: Facts | undefined;
    try {
      facts = await operation.run(store as Store);
    } catch (error) {
      rejected = true;
      if (!LayerStoreError.is(error, 'ERR_SYSTEM') || error.errnoName !== fault.code)
        problem(`rejects with ${String(error)}`);
    }
    armed = false;
    restore();
    if (facts !== undefined) entries.push({ at: 'done', op: 0, facts });
    store ??= await openIn(root, driver);
    await unmountAll(store);
    // The store that saw the failure works on, and tells the same as one opened after it.
    (await check(store, fold(entries))).losses.forEach(problem);
    await store.cleanup();
    (await leftovers(store, root, driver)).forEach((what) => problem(`left over: ${what}`));
    await store.close();
    mountsBelow(root).forEach((target) => problem(`still mounted: ${target}`));
    store = undefined;
    if (rejected && opens)
      await operation.run(store as never).catch((error: unknown) => problem(`the next open fails: ${String(error)}`));
    store = await openIn(root, driver);
    if (rejected && !opens) {
      const second = await operation
        .run(store)
        .catch((error: unknown) => problem(`the next try fails: ${String(error)}`));
      if (second !== undefined) entries.push({ at: 'done', op: 1, facts: second });
    }
    (await check(store, fold(entries))).losses.forEach(problem);
    (await leftovers(store, root, driver)).forEach((what) => problem(`left over after a restart: ${what}`));
  } finally {
    restore();
    await store?.close();
  }
  return { rejected, unharmed: where === '', problems };
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`${driver}: a failure in each step of each operation`, async (t) => {
    const directory = memory(t, 'injected');
    const operations = await learnProtocol(join(directory, 'learn'), driver);
    const initial = operations.findIndex(({ name }) => name === 'mount');
    operations.splice(initial, 0, ...readings());
    const root = join(directory, 'root');
    const copy = join(directory, 'copy');
    const log = await beginProtocol(root, driver);
    const problems: string[] = [];
    let tries = 0;
    let rejections = 0;
    const tryOn = async (operation: Operation, chosen: Choice): Promise<boolean> => {
      const { status, stderr } = spawnSync('cp', ['-a', '--', root, copy], { encoding: 'utf8' });
      assert.equal(status, 0, stderr);
      if (operation.name === 'open') leaveUnfinished(copy, driver);
      const found = await tryOnce(copy, driver, operation, chosen, log);
      removeTempDir(copy);
      problems.push(...found.problems);
      if (found.unharmed) return false;
      tries += 1;
      if (found.rejected) rejections += 1;
      return true;
    };
    // Every so many steps, another one of them to begin with each time.
    const first = 1 + (runSeed() % STRIDE[driver]);
    for (const operation of [opening(copy, driver), ...operations]) {
      for (let nth = first; await tryOn(operation, (_, step) => step === nth);) nth += STRIDE[driver];
      // Methods of the engine that the strides went past.
      while (await tryOn(operation, (method) => method !== 'fs' && !failed.has(method)));
      // Without a fault, for the operations that build on it.
      if (operation.name === 'open') continue;
      const store = await openIn(root, driver);
      log.push({ at: 'done', op: 0, facts: await operation.run(store) });
      await store.close();
    }
    t.diagnostic(`${driver}: ${tries} injected failures, ${rejections} rejections, ${problems.length} problems`);
    assertNoLosses(problems, 'injected');
    assert.ok(rejections > tries / 3, 'failures reach the operations');
  });
}

test('every method of the engine has failed in some operation', () => {
  assert.deepEqual(
    engineMethods().filter((method) => !failed.has(method)),
    [],
    'add an operation to the protocol that calls these',
  );
  assert.deepEqual(
    READS.filter((name) => !engineMethods().includes(name)),
    [],
    'methods that are no more',
  );
});
