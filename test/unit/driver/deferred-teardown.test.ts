/** When overlays whose mounts are gone end, by a keeper that is told how long it takes. */
import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import type { DriverContext } from '../../../src/driver/context.js';
import { DeferredTeardowns } from '../../../src/driver/overlay2/deferred-teardown.js';

interface Call {
  done(): void;
  fail(error: Error): void;
}

function setUp(
  t: TestContext,
  change: { durability?: 'strict'; volatile?: true } = {},
): { overlays: DeferredTeardowns; calls: Call[]; warned: string[]; finish: () => Promise<void> } {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const calls: Call[] = [];
  const warned: string[] = [];
  const ignore = (): void => undefined;
  const end = (): Promise<void> => new Promise((resolve, reject) => calls.push({ done: resolve, fail: reject }));
  const context = {
    durability: change.durability ?? 'relaxed',
    engine: { deferredTeardown: () => ({ end }) },
    logger: { debug: ignore, info: ignore, error: ignore, warn: (_: object, text: string) => void warned.push(text) },
  } as unknown as DriverContext;
  return {
    overlays: new DeferredTeardowns(context, { volatile: change.volatile === true }),
    calls,
    warned,
    async finish() {
      await setImmediate();
      for (const call of calls.splice(0)) call.done();
      await setImmediate();
    },
  };
}

async function settled(promise: Promise<unknown>): Promise<boolean> {
  let over = false;
  void promise.then(() => (over = true));
  await setImmediate();
  return over;
}

test('nothing lingers in a strict store, nor where mounts are volatile', (t) => {
  assert.equal(setUp(t, { durability: 'strict' }).overlays.keeper, undefined);
  t.mock.timers.reset();
  assert.equal(setUp(t, { volatile: true }).overlays.keeper, undefined);
  t.mock.timers.reset();
  assert.notEqual(setUp(t).overlays.keeper, undefined);
});

test('overlays end together, a little later, by as many calls as there are of them', async (t) => {
  const { overlays, calls, finish } = setUp(t);
  for (const id of ['a', 'b', 'c']) await overlays.add(id);
  await setImmediate();
  assert.equal(calls.length, 0);
  t.mock.timers.tick(30);
  await setImmediate();
  assert.equal(calls.length, 3);
  await finish();
  t.mock.timers.tick(1000);
  await setImmediate();
  assert.equal(calls.length, 0, 'nothing to end');
});

test('whoever needs a layer waits for its overlay and for no other', async (t) => {
  const { overlays, calls, finish } = setUp(t);
  await overlays.add('a');
  assert.equal(await settled(overlays.ended('b')), true, 'b has none');
  assert.equal(calls.length, 0);
  const a = overlays.ended('a');
  assert.equal(await settled(a), false);
  assert.equal(calls.length, 1, 'it does not wait for the timer');
  assert.equal(await settled(overlays.ended('b')), true, 'nor does b now');
  assert.equal(await settled(overlays.ended('a')), false, 'it is among those that are ending');
  await finish();
  await a;
  assert.equal(await settled(overlays.ended('a')), true);
});

test('what comes while others end is ended by the next call, which all share', async (t) => {
  const { overlays, calls, finish } = setUp(t);
  await overlays.add('a');
  const first = overlays.end();
  await setImmediate();
  await overlays.add('b');
  const waiting = [overlays.ended('b'), overlays.end(), overlays.end()];
  await setImmediate();
  assert.equal(calls.length, 1);
  await finish();
  await first;
  assert.equal(calls.length, 1, 'one call for b');
  assert.equal(await settled(Promise.all(waiting)), false);
  await finish();
  await Promise.all(waiting);
  assert.equal(calls.length, 0);
});

test('so many wait at most: who comes then waits for their end', async (t) => {
  const { overlays, calls, finish } = setUp(t);
  for (let n = 0; n < 127; n++) assert.equal(await settled(overlays.add(String(n))), true);
  const last = overlays.add('last');
  assert.equal(await settled(last), false);
  assert.equal(calls.length, 16, 'so many at once');
  await finish();
  await last;
});

test('an end that fails is logged and keeps nobody from the next', async (t) => {
  const { overlays, calls, warned, finish } = setUp(t);
  await overlays.add('a');
  const first = overlays.ended('a');
  await setImmediate();
  calls.splice(0).forEach((call) => call.fail(new Error('no thread')));
  await first;
  assert.deepEqual(warned, ['cannot end the overlays of mounts that are gone']);
  await overlays.add('b');
  const second = overlays.ended('b');
  await finish();
  await second;
});
