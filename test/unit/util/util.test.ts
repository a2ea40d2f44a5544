/** The small tools without domain words. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { anySignal, raceAbort } from '../../../src/util/abort.js';
import { writeFileAtomic } from '../../../src/util/atomic-file.js';
import { mapConcurrent } from '../../../src/util/concurrent.js';
import { SingleFlight } from '../../../src/util/single-flight.js';
import { KeyedMutex } from '../../../src/util/keyed-mutex.js';
import { randomID } from '../../../src/util/random-id.js';
import { Rollback } from '../../../src/util/rollback.js';
import { TaskQueue } from '../../../src/util/task-queue.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a keyed mutex runs one key in order, and others beside it', async () => {
  const mutex = new KeyedMutex();
  const seen: string[] = [];
  const work = (key: string, name: string) =>
    mutex.run(key, async () => {
      seen.push(`${name} begins`);
      await turn();
      seen.push(`${name} ends`);
    });
  const failing = mutex.run('a', async () => Promise.reject(new Error('no')));
  await Promise.all([assert.rejects(failing, /no/), work('a', 'a1'), work('a', 'a2'), work('b', 'b1')]);
  assert.deepEqual(
    seen.filter((line) => line.startsWith('a')),
    ['a1 begins', 'a1 ends', 'a2 begins', 'a2 ends'],
  );
  assert.ok(seen.indexOf('b1 begins') < seen.indexOf('a1 ends'));
  assert.equal(mutex.size, 0);
});

test('a rollback runs in reverse, goes on after a failing step, and forgets what is kept', async () => {
  const seen: string[] = [];
  const back = new Rollback((label, error) => seen.push(`${label} failed: ${(error as Error).message}`));
  back.push('one', () => seen.push('one'));
  back.push('two', () => Promise.reject(new Error('stuck')));
  back.push('three', () => seen.push('three'));
  await back.run();
  assert.deepEqual(seen, ['three', 'two failed: stuck', 'one']);
  back.push('four', () => seen.push('four'));
  back.keep();
  await back.run();
  assert.equal(seen.length, 3);
});

test('flights are shared until they finish', async () => {
  const flights = new SingleFlight<number>();
  const finish = flights.start(['a', 'b']);
  const waiting = flights.of('b');
  assert.equal(flights.of('c'), undefined);
  finish(7);
  assert.equal(await waiting, 7);
  assert.equal(flights.size, 0);
});

test('a task queue bounds what runs, reports failures, and stops at close', async () => {
  const failures: unknown[] = [];
  const queue = new TaskQueue(2, (error) => failures.push(error));
  let running = 0;
  let most = 0;
  const task = async (): Promise<void> => {
    most = Math.max(most, (running += 1));
    await turn();
    running -= 1;
  };
  await Promise.all([task, task, task, task].map((each) => queue.push(each)));
  assert.equal(most, 2);
  await queue.push(() => Promise.reject(new Error('bad')));
  assert.equal((failures[0] as Error).message, 'bad');
  let stopped = false;
  const long = queue.push(
    (signal) =>
      new Promise((resolve) =>
        signal.addEventListener('abort', () => {
          stopped = true;
          resolve();
        }),
      ),
  );
  let never = true;
  const filler = queue.push(task);
  const third = queue.push(async () => void (never = false));
  await queue.close();
  await Promise.all([long, filler, third]);
  assert.equal(stopped, true);
  assert.equal(never, true, 'what had not begun is dropped');
  assert.equal(queue.failed, 2, 'the bad one, and the one that was dropped');
  await queue.push(async () => void (never = false));
  assert.equal(never, true);
});

test('a concurrent map keeps order and bounds, and ends with the first failure', async () => {
  let running = 0;
  let most = 0;
  const results = await mapConcurrent([1, 2, 3, 4, 5], 2, async (item) => {
    most = Math.max(most, (running += 1));
    await turn();
    running -= 1;
    return item * 2;
  });
  assert.deepEqual(results, [2, 4, 6, 8, 10]);
  assert.equal(most, 2);
  const begun: number[] = [];
  const failing = mapConcurrent([1, 2, 3, 4], 2, async (item) => {
    begun.push(item);
    await turn();
    if (item === 1) throw new Error('first');
  });
  await assert.rejects(failing, /first/);
  assert.ok(!begun.includes(4));
});

test('an abort gives its reason as it is', async () => {
  const reason = { why: 'tired' };
  const controller = new AbortController();
  const waiting = raceAbort(new Promise(() => undefined), controller.signal);
  controller.abort(reason);
  await assert.rejects(waiting, (error) => error === (reason as unknown));
  assert.equal(await raceAbort(Promise.resolve(1), undefined), 1);
  assert.equal(anySignal(undefined, undefined), undefined);
  assert.equal(anySignal(undefined, controller.signal), controller.signal);
  assert.equal(anySignal(new AbortController().signal, controller.signal)?.aborted, true);
});

test('a file is replaced whole, and a failure leaves the old one alone', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'layerstore-util-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 'file');
  await writeFileAtomic(path, 'one', { mode: 0o600, sync: true });
  await writeFileAtomic(path, 'two', { mode: 0o600, sync: false });
  assert.equal(await readFile(path, 'utf8'), 'two');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  await assert.rejects(writeFileAtomic(directory, 'three', { mode: 0o600, sync: false }));
  assert.deepEqual(await readdir(directory), ['file']);
});

test('random ids are hex and differ', () => {
  assert.match(randomID(), /^[0-9a-f]{64}$/);
  assert.match(randomID(4), /^[0-9a-f]{8}$/);
  assert.notEqual(randomID(), randomID());
});
