/** What is being removed: counted while it is, waited for by close(), and told where it stays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import type { DriverLeftover } from '../../../src/driver/graph-driver.js';
import type { Store } from '../../../src/store/types.js';
import { FullMemoryDriver } from './memory-driver.js';
import { Bench, streamOf, tarOf } from './support.js';

/** Unlinks only when it is told to, as a tree of many files takes its time. */
class SlowDriver extends FullMemoryDriver {
  readonly #gate: Promise<void>;
  finish!: () => void;

  constructor(...args: ConstructorParameters<typeof FullMemoryDriver>) {
    super(...args);
    this.#gate = new Promise((resolve) => (this.finish = resolve));
  }

  override async detach(id: string): Promise<(signal?: AbortSignal) => Promise<void>> {
    const unlink = await super.detach(id);
    return async (signal) => {
      await Promise.race([
        this.#gate,
        new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new Error('stopped')))),
      ]);
      await unlink();
    };
  }

  async leftovers(): Promise<DriverLeftover[]> {
    return this.trash.map((_, index) => ({
      what: `.removing-${index}`,
      why: 'slow',
      bytes: 4096,
      inodes: 3,
      pending: true,
    }));
  }
}

/** Closes; how many removals that left, as it says. */
async function pendingAfter(store: Store, signal?: AbortSignal): Promise<number | undefined> {
  let pending: number | undefined;
  await store.close({ ...(signal === undefined ? {} : { signal }), onPending: (removals) => (pending = removals) });
  return pending;
}

async function failed(t: Parameters<typeof Bench.make>[0]) {
  const bench = await Bench.make(t);
  const driver = new SlowDriver(bench.disk);
  const store = await bench.open({ driver });
  await assert.rejects(store.register(streamOf(tarOf('a').subarray(0, 700))), { code: 'ERR_BAD_TAR' });
  return { bench, driver, store };
}

test('what failed is counted until it is gone, and close() waits for that', async (t) => {
  const { driver, store } = await failed(t);
  assert.deepEqual((await store.usage()).pendingRemoval, { count: 1, bytes: 4096, inodes: 3 });
  assert.deepEqual(
    (await store.gc({ dryRun: true })).items.map(({ kind, bytes }) => [kind, bytes]),
    [['pending', 4096]],
  );
  let closed = false;
  const closing = store.close().finally(() => (closed = true));
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal(closed, false, 'small removals had their time, this one is waited for');
  driver.finish();
  await closing;
  assert.deepEqual(driver.trash, []);
});

test('a close that is cut short says what it left, and so does the log', async (t) => {
  const { bench, store } = await failed(t);
  const second = new AbortController();
  const closing = pendingAfter(store, second.signal);
  second.abort();
  assert.equal(await closing, 1);
  assert.ok(bench.lines.some(({ level, message }) => level === 'warn' && message.includes('next open goes on')));
});

test('what could not be removed at all is told by close()', async (t) => {
  const bench = await Bench.make(t);
  class Stuck extends FullMemoryDriver {
    override async detach(): Promise<() => Promise<void>> {
      throw new LayerStoreError('ERR_SYSTEM', 'the disk is gone', { errnoName: 'EIO' });
    }
  }
  const store = await bench.open({ driver: new Stuck(bench.disk) });
  await assert.rejects(store.register(streamOf(tarOf('a').subarray(0, 700))));
  assert.equal(await pendingAfter(store), 1);
});

test('close() of a store that left nothing, and of a reader, says so', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  await store.release(await store.register(streamOf(tarOf('a'))));
  assert.equal(await pendingAfter(store), undefined);
  assert.equal(await pendingAfter(await bench.open({ readOnly: true })), undefined);
});
