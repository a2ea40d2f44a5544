/** Finds and loads the addon. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers';
import { fileURLToPath } from 'node:url';
import { LayerStoreError } from '../../errors.js';
import type { Binding } from './binding.js';

/** Where the addon may lie below the package's root, best first. */
const PLACES: readonly (readonly string[])[] = [
  // built here by node-gyp or cmake-js: for this machine, with the codecs that it has
  ['build', 'Release'],
  ['build-cmake', 'Release'],
  ['build-cmake'],
  ['build', 'Debug'],
  ['prebuilds', `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`],
];

/** As it is now: a test of the application's own may put a clock that stands still in its place. */
const nextTurn = setImmediate;

let loaded: Binding | undefined;

/** The addon; the same object on every call of one thread. Throws ERR_NOT_SUPPORTED that says why it does not load. */
export function loadBinding(): Binding {
  if (loaded !== undefined) return loaded;
  if (process.platform !== 'linux') {
    throw new LayerStoreError('ERR_NOT_SUPPORTED', `the native engine needs Linux, and this is ${process.platform}`);
  }
  const require = createRequire(import.meta.url);
  try {
    const bindings = require('bindings') as (options: object) => Binding;
    const binding = bindings({
      bindings: 'layerstore',
      module_root: packageRoot(),
      try: PLACES.map((place) => ['module_root', ...place, 'bindings']),
    });
    binding.turnBy((callback) => void nextTurn(callback));
    return (loaded = binding);
  } catch (error) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `the native engine cannot be loaded: ${firstLine(error)}; run "npm rebuild layerstore" with python3, make and a C++20 compiler, or use the engine "js"`,
      { cause: error },
    );
  }
}

/** The directory with package.json: above `dist/engine/native` and above `src/engine/native` alike. */
function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'package.json')) && dirname(directory) !== directory)
    directory = dirname(directory);
  return directory;
}

/** Whether this Node runs on musl: its loader is then mapped into the process. */
function isMusl(): boolean {
  try {
    return readFileSync('/proc/self/maps', 'latin1').includes('/ld-musl-');
  } catch {
    return false; // no /proc: no musl system that we know of, and a wrong prebuilt binary refuses to load by itself
  }
}

function firstLine(error: unknown): string {
  const tries = (error as { tries?: unknown }).tries;
  if (Array.isArray(tries)) return 'it was not built';
  return String((error as Error).message ?? error).split('\n', 1)[0] ?? 'unknown reason';
}
