/**
 * Hands the whole surface of the addon values of every kind, good and hostile, in every combination. Run by
 * native-arguments.test.ts in a process of its own, since a mistake here ends the process: `native-fuzz.ts SCRATCH SEED`.
 *
 * Whatever is handed over, a call returns, or throws the addon's own TypeError, or gives a promise that settles. The list
 * of calls is read from the addon, so that a new one is covered at once. The last call is always in `SCRATCH/last`.
 */
import assert from 'node:assert/strict';
import { mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import fc from 'fast-check';
import type { Ingest, NativeIngestRequest, TarReader } from '../../../src/engine/native/binding.js';
import { loadBinding } from '../../../src/engine/native/load.js';
import { detachedView, growable } from './native-support.js';

const [scratch = '', seed = '0'] = process.argv.slice(2);
const RUNS = 4000;
const DIFF_ID = `sha256:${'0'.repeat(64)}`;

type Callable = (...args: unknown[]) => unknown;
type Constructor = new (...args: unknown[]) => Record<string, Callable>;

const binding = loadBinding();
const { CancelToken, DeferredTeardown } = binding as unknown as Record<
  'CancelToken' | 'DeferredTeardown',
  { prototype: object }
>;
mkdirSync(join(scratch, 'cwd'));
process.chdir(join(scratch, 'cwd')); // relative names lead nowhere else
const tree = join(scratch, 'tree');
mkdirSync(tree);
for (const name of ['a', 'b']) writeFileSync(join(tree, name), name);
const file = join(scratch, 'file');
writeFileSync(file, 'no tar');
const written = openSync(join(scratch, 'written'), 'w');
let fresh = 0;
const freshPath = (): string => join(scratch, `fresh-${String((fresh += 1))}`);

/** Every member that some request has, with a value that is right. */
function goodRequest(): Record<string, unknown> {
  const directory = freshPath();
  mkdirSync(directory);
  const stack = { directories: [tree], whiteouts: 'overlay' };
  return {
    ...{
      directory,
      whiteouts: 'overlay',
      tarSplit: freshPath(),
      hashBlob: true,
      path: undefined,
      offset: 0,
      length: 6,
    },
    limits: new Proxy({}, { get: () => 1e6 }),
    ...{ kind: 'tree', diffID: DIFF_ID, upper: stack, lower: undefined, sparse: true, whiteoutsOf: undefined },
    ...{ consume: false, removedWhiteoutsTar: undefined, bytesPerSecond: 0 },
    ...{ lowers: [tree, tree], work: undefined, target: freshPath(), options: [], tier: 'auto' },
    ...{ op: 'write', mode: 0o600, data: 'x', dest: freshPath(), name: 'user.x', value: new Uint8Array(1) },
  };
}

/** A view whose end lies behind that of its buffer. */
function outOfBounds(): Uint8Array {
  const buffer = growable(ArrayBuffer, 64);
  const view = new Uint8Array(buffer, 16, 48);
  (buffer as unknown as { resize(bytes: number): void }).resize(8);
  return view;
}

function growing(): string[] {
  const list = ['x'];
  Object.defineProperty(list, 0, { get: () => (list.length < 5000 ? list.push('y') && 'x' : 'x') });
  return list;
}

function throwing(): object {
  return new Proxy([], {
    get: () => {
      throw new RangeError('thrown by a getter');
    },
  });
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable([], {});
  revoke();
  return proxy;
}

/** An object that answers every member with the next of `values`. */
function answering(values: readonly unknown[]): object {
  let next = 0;
  return new Proxy({}, { get: () => values[next++ % values.length] });
}

const HOSTILE: readonly (() => unknown)[] = [
  ...[undefined, null, true, false, '', 'a\0b', '\ud800', 'x'.repeat(70_000), 'relative', tree, file].map(
    (value) => () => value,
  ),
  ...['overlay', 'plain', 'auto', 'classic', 'gzip', 'zstd', 'none', 'tree', 'assemble', DIFF_ID].map(
    (value) => () => value,
  ),
  ...['sha256:00', `sha256:${'G'.repeat(64)}`, Symbol('s'), 1n, 2n ** 70n].map((value) => () => value),
  ...[-1, -0, 0, 0.5, NaN, Infinity, -Infinity, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 53, 1e300].map(
    (value) => () => value,
  ),
  ...[() => written, freshPath, detachedView, outOfBounds, growing, throwing, revoked],
  () => new Uint8Array(0),
  () => new Uint8Array([1, 2, 3]).subarray(1),
  () => new Uint8Array(100_000),
  () => new Uint8Array(new SharedArrayBuffer(64)),
  () => new Uint8Array(growable(SharedArrayBuffer, 64)),
  () => new Uint8Array(growable(ArrayBuffer, 64)),
  () => new Float64Array(4),
  () => new DataView(new ArrayBuffer(8)),
  () => new ArrayBuffer(8),
  () => [],
  () => [tree],
  () => [tree, 5],
  () => new Array<string>(2 ** 32 - 1),
  () => Object.create(null) as object,
  () => () => undefined,
  () => new binding.CancelToken(),
  () => new binding.DeferredTeardown(),
  () => Object.create(CancelToken.prototype) as object,
  () => Object.create(DeferredTeardown.prototype) as object,
  () => Object.setPrototypeOf(new binding.DeferredTeardown(), CancelToken.prototype) as object,
  () => new Proxy(new binding.CancelToken(), {}),
  goodRequest,
  () => [goodRequest()],
];

/** Something to hand over: good, hostile, or good but for some members. Made anew for each call. */
const hostile = fc.nat(HOSTILE.length - 1).map((index) => HOSTILE[index] as () => unknown);
const spoilt = fc
  .array(fc.tuple(fc.constantFrom(...Object.keys(goodRequest())), hostile), { minLength: 1, maxLength: 3 })
  .map((members) => () => ({ ...goodRequest(), ...Object.fromEntries(members.map(([key, make]) => [key, make()])) }));
const argument = fc.oneof(
  { weight: 6, arbitrary: hostile },
  { weight: 3, arbitrary: fc.constant(goodRequest) },
  { weight: 5, arbitrary: spoilt },
  { weight: 1, arbitrary: spoilt.map((make) => () => [make(), make()]) },
  {
    weight: 1,
    arbitrary: fc.array(hostile, { minLength: 1 }).map((makes) => () => answering(makes.map((make) => make()))),
  },
);

/** Where calls leave what they opened, so that it ends with the run. */
type Opened = Partial<Record<'cancel' | 'destroy' | 'end' | 'release', () => unknown>>;
const opened: Opened[] = [];
/** What else has to settle. */
const pending: unknown[] = [];

function made(value: unknown): unknown {
  if (typeof value === 'object' && value !== null && !Array.isArray(value) && !Buffer.isBuffer(value))
    opened.push(value);
  return value;
}

/** What can be called, by name: functions, constructors, and each method on instances that are as good as any. */
function surface(): Map<string, Callable> {
  const calls = new Map<string, Callable>();
  const instances: Record<string, () => unknown> = {
    CancelToken: () => new binding.CancelToken(),
    Ingest: (): Ingest => new binding.Ingest(goodRequest() as unknown as NativeIngestRequest),
    TarReader: (): TarReader => new binding.TarReader({ kind: 'tree', ...(goodRequest() as object) } as never),
  };
  for (const [name, value] of Object.entries(binding) as [string, unknown][]) {
    if (typeof value !== 'function') continue;
    const methods = Object.getOwnPropertyNames(value.prototype ?? {}).filter((method) => method !== 'constructor');
    if (methods.length === 0) {
      calls.set(name, value as Callable);
      continue;
    }
    const Class = value as unknown as Constructor;
    calls.set(`new ${name}`, (...args) => made(new Class(...args)));
    calls.set(`${name} without new`, value as Callable);
    for (const method of methods) {
      calls.set(`${name}.${method}`, (...args) => {
        const instance = made((instances[name] ?? ((): unknown => new Class()))()) as Record<string, Callable>;
        pending.push(instance[method]?.(...args));
        return instance[method]?.(...args); // twice: the second finds the first under way
      });
      calls.set(`${name}.${method} on a stranger`, (stranger) =>
        ((Class.prototype as Record<string, Callable>)[method] as Callable).call(stranger),
      );
    }
  }
  return calls;
}

const last = openSync(join(scratch, 'last'), 'w');
const calls = surface();
const called = new Map([...calls.keys()].map((name) => [name, 0]));

/** V8's own: a method on an object of another class, a class without `new`. */
const REFUSED_BY_V8 = /Illegal invocation|Class constructors cannot be invoked without 'new'|on proxy|revoked/;

async function call(name: string, args: unknown[]): Promise<void> {
  called.set(name, (called.get(name) ?? 0) + 1);
  writeSync(
    last,
    `${name} ${inspect(args, { depth: 1, showProxy: true, maxStringLength: 100, breakLength: Infinity })}\n`,
    0,
  );
  const results: Promise<unknown>[] = [];
  try {
    const result = calls.get(name)?.(...args);
    if (result instanceof Promise) results.push(result);
  } catch (error) {
    assert.ok(error instanceof TypeError, inspect(error));
    assert.ok(('fault' in error && error.fault === 'invalid') || REFUSED_BY_V8.test(error.message), inspect(error));
  }
  if (name === 'turnBy') binding.turnBy((callback) => void setImmediate(callback));
  for (const object of opened.splice(0)) {
    for (const stop of ['cancel', 'destroy', 'end', 'release'] as const) pending.push(object[stop]?.());
  }
  results.push(...pending.splice(0).filter((result) => result instanceof Promise));
  for (const { status, reason } of (await Promise.allSettled(results)) as { status: string; reason?: unknown }[]) {
    if (status === 'rejected')
      assert.ok(typeof reason === 'object' && reason !== null && 'fault' in reason, inspect(reason));
  }
}

await fc.assert(
  fc.asyncProperty(fc.constantFrom(...calls.keys()), fc.array(argument, { maxLength: 5 }), (name, makes) =>
    call(
      name,
      makes.map((make) => make()),
    ),
  ),
  { seed: Number(seed), numRuns: RUNS, endOnFailure: true },
);
for (const [name, times] of called) assert.ok(times > 0, `${name} was never called`);
console.log(`${String(calls.size)} calls`);
