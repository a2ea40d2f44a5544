import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { GroupSync } from '../../../src/driver/tree-driver.js';

/** A sync that ends when the test says so. */
function manual(): { sync: () => Promise<void>; ends: ((error?: Error) => void)[] } {
  const ends: ((error?: Error) => void)[] = [];
  const sync = (): Promise<void> =>
    new Promise((resolve, reject) => ends.push((error) => (error === undefined ? resolve() : reject(error))));
  return { sync, ends };
}

test('calls that come while a sync runs share the next one, never the one that runs', async () => {
  const { sync, ends } = manual();
  const group = new GroupSync(sync);
  const done: string[] = [];
  const first = group.run().then(() => done.push('first'));
  const later = [1, 2, 3].map((n) => group.run().then(() => done.push(`later ${n}`)));
  await turn();
  assert.equal(ends.length, 1);
  ends[0]?.();
  await first;
  await turn();
  assert.deepEqual(done, ['first'], 'what came later is not served by the sync that had begun before');
  assert.equal(ends.length, 2, 'one sync serves all that waited');
  ends[1]?.();
  await Promise.all(later);
  assert.equal(ends.length, 2);
  const again = group.run();
  assert.equal(ends.length, 3, 'an idle group begins at once');
  ends[2]?.();
  await again;
});

test('a failed sync fails those it served, and the next one runs all the same', async () => {
  const { sync, ends } = manual();
  const group = new GroupSync(sync);
  const first = group.run();
  const second = group.run();
  ends[0]?.(new Error('EIO'));
  await assert.rejects(first, /EIO/);
  await turn();
  ends[1]?.();
  await second;
});

test('however calls fall, each is served by a sync that began after it', async () => {
  let begun = 0;
  let ended = 0;
  const group = new GroupSync(async () => {
    const mine = ++begun;
    await turn();
    ended = Math.max(ended, mine);
  });
  await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      for (let wait = 0; wait < n % 7; wait++) await turn();
      const before = begun;
      await group.run();
      assert.ok(ended > before, 'a sync that began later has ended');
    }),
  );
  assert.ok(begun < 200, 'syncs were shared');
});
