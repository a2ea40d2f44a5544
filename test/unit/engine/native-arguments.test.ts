/** What the addon does with arguments that are wrong: an error that names them, whatever they are; never a crash. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createJsEngine } from '../../../src/engine/js/index.js';
import type { Engine } from '../../../src/engine/engine.js';
import type { Binding, NativeTarRequest } from '../../../src/engine/native/binding.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { loadBinding } from '../../../src/engine/native/load.js';
import { directoryGetter } from '../../../src/testing/engine-suite-tars.js';
import { runSeed } from '../../support/random.js';
import { tempDir } from '../../support/temp.js';
import { detachedView, freshRequest, growable, makeTar } from './native-support.js';

const engines: readonly Engine[] = [loadNativeEngine(), createJsEngine()];
/** Without its types, as a caller may use it. */
const addon = loadBinding() as unknown as Record<keyof Binding, Untyped>;
type Untyped = { prototype: object } & (new (...args: unknown[]) => object) & ((...args: unknown[]) => unknown);

test('every call of the addon takes values of every kind', { timeout: 600_000 }, (t) => {
  const scratch = tempDir(t);
  const seed = runSeed();
  t.diagnostic(`LAYERSTORE_SEED=${String(seed)}`);
  // A mount namespace of its own: what is mounted by luck is gone with it.
  const fuzz = fileURLToPath(new URL('native-fuzz.ts', import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(
    'unshare',
    ['--mount', process.execPath, '--import', 'tsx', fuzz, scratch, String(seed)],
    { encoding: 'utf8', cwd: fileURLToPath(new URL('../../..', import.meta.url)) },
  );
  const end = `LAYERSTORE_SEED=${String(seed)}, ended with ${signal ?? String(status)}, last: ${readFileSync(join(scratch, 'last'), 'utf8').split('\n', 1)[0] ?? ''}\n${stderr}`;
  assert.equal(status, 0, end);
  t.diagnostic(stdout.trim());
});

const request: NativeTarRequest = {
  kind: 'tree',
  upper: { directories: ['/'], whiteouts: 'overlay' },
  lower: undefined,
  sparse: false,
  whiteoutsOf: undefined,
};
const assemble: NativeTarRequest = {
  kind: 'assemble',
  tarSplit: '/nothing',
  directory: '/',
  diffID: `sha256:${'0'.repeat(64)}`,
};
const broken = {
  get path(): string {
    throw new RangeError('thrown by a getter');
  },
};

const WRONG: readonly [what: string, argument: RegExp, call: () => unknown][] = [
  ...[-1, 0.5, NaN, 2 ** 31, 2 ** 32 + 1, Infinity, '1', undefined].map(
    (fd) =>
      [`the descriptor ${String(fd)}`, /^fd /, () => addon.exportTar(assemble, 'none', fd)] as [
        string,
        RegExp,
        () => unknown,
      ],
  ),
  [
    'a fractional length',
    /^length /,
    () =>
      new addon.Ingest({
        path: '/',
        offset: 0,
        length: 1.5,
        directory: '/',
        whiteouts: 'overlay',
        privilege: 'full',
        limits: new Proxy({}, { get: () => 1 }),
      }),
  ],
  ['a window that is none', /^maxWindow /, () => addon.hashFile('/', NaN)],
  [
    'a mode of 33 bits',
    /^mode /,
    () => addon.mountOnNewTarget({ lowers: [], target: '/', options: [], tier: 'auto' }, 2 ** 32),
  ],
  ['a member that cannot be read', /^path /, () => addon.batch([{ op: 'fsync', __proto__: broken }])],
  ['an array of four thousand million holes', /^paths /, () => addon.syncFs(new Array(2 ** 32 - 1))],
  ['a proxy of an array', /^paths /, () => addon.syncFs(new Proxy([], {}))],
  ['a lower tree that is none', /^lower /, () => addon.changes({ ...request, lower: 5 })],
  ['a kind of tar that there is not', /^kind /, () => new addon.TarReader({ ...request, kind: 'zip' })],
  ['a turn that is no function', /^turn /, () => addon.turnBy(5)],
  [
    'a token by its prototype alone',
    /^token /,
    () => addon.changes(request, Object.create(addon.CancelToken.prototype)),
  ],
  [
    'another object with the prototype of a token',
    /^token /,
    () => addon.changes(request, Object.setPrototypeOf(new addon.DeferredTeardown(), addon.CancelToken.prototype)),
  ],
];

for (const [what, argument, call] of WRONG) {
  test(`refused before anything is done: ${what}`, () => {
    assert.throws(call, (error: unknown) => {
      assert.ok(error instanceof TypeError && 'fault' in error);
      assert.equal(error.fault, 'invalid');
      assert.match(error.message, argument);
      return true;
    });
  });
}

/** A view of memory that its bytes cannot be taken from. */
const CHUNKS: Record<string, () => Uint8Array> = {
  shared: () => new Uint8Array(new SharedArrayBuffer(1024)),
  growable: () => new Uint8Array(growable(SharedArrayBuffer, 1024)),
  detached: detachedView,
};

for (const engine of engines) {
  for (const [kind, chunk] of Object.entries(CHUNKS)) {
    test(`${engine.name}: a source whose memory is ${kind} is refused`, async (t) => {
      await assert.rejects(engine.ingest(Readable.from([chunk()], { objectMode: true }), freshRequest(t)), {
        code: 'ERR_INVALID_ARGUMENT',
        message: /Uint8Array/,
      });
    });
  }

  test(`${engine.name}: a view of memory that can be resized is read as long as it is`, async (t) => {
    const tar = readFileSync(makeTar(tempDir(t)));
    const buffer = growable(ArrayBuffer, tar.length);
    const view = new Uint8Array(buffer);
    view.set(tar);
    const { tarSize } = await engine.ingest(
      Readable.from([view.subarray(0, 700), view.subarray(700)]),
      freshRequest(t),
    );
    assert.equal(tarSize, tar.length);
  });

  test(`${engine.name}: a TypeError of the source's own comes through as it is`, async (t) => {
    const failure = new TypeError('terminated');
    const source = async function* (): AsyncGenerator<Uint8Array> {
      yield await Promise.resolve(new Uint8Array(512));
      throw failure;
    };
    await assert.rejects(engine.ingest(source(), freshRequest(t)), (error) => error === failure);
  });

  test(`${engine.name}: no tar is written to another descriptor than the one that was said`, async (t) => {
    const layer = freshRequest(t);
    const { diffID } = await engine.ingest({ path: makeTar(tempDir(t)) }, layer);
    const target = openSync(join(layer.directory, '..', 'target'), 'w+');
    const tree = directoryGetter(layer.directory);
    for (const fd of [2 ** 32 + target, -1, target + 0.5, NaN, 2 ** 31]) {
      await assert.rejects(engine.assembleTo({ tarSplit: layer.tarSplit as { path: string }, tree, diffID }, fd), {
        code: 'ERR_INVALID_ARGUMENT',
      });
    }
    assert.equal(readFileSync(target).length, 0);
    closeSync(target);
  });
}
