/**
 * Layers that replace a directory while it is in use, many at once: no entry may land in the directory that a descriptor
 * number meant before. Beside them run good registrations and a program part that opens and closes directories, so that
 * a number is taken again as soon as it is free.
 */
import assert from 'node:assert/strict';
import { closeSync, constants, mkdirSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { test } from 'node:test';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { buildTar, type TarEntry } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';
import { ENGINES } from './support.js';

/** For each engine and driver: 200 times for each engine. */
const HOSTILE_LAYERS = 100;
const AT_ONCE = 20;
const DEPTHS = [1, 2, 3];

/** What takes the place of the directory `at`; `beside` is a file and `other` a directory next to it. */
const REPLACEMENTS: readonly ((at: string, beside: string, other: string) => TarEntry)[] = [
  (at) => ({ name: at, content: 'hostile', mode: 0o4777 }),
  (at) => ({ name: at, type: '2', linkname: 'hostile-nowhere' }),
  (at) => ({ name: at, type: '6' }),
  (at, beside) => ({ name: at, type: '1', linkname: beside }),
  (at, _beside, other) => ({ name: at, type: '2', linkname: `/${other}` }),
];

/** A tar whose directory `hostile`, with children, is replaced by something else, `depth` directories below the root. */
function hostileTar(round: number): Buffer {
  const depth = DEPTHS[round % DEPTHS.length]!;
  const replace = REPLACEMENTS[Math.floor(round / DEPTHS.length) % REPLACEMENTS.length]!;
  const parents = Array.from({ length: depth }, (_, level) => 'p/'.repeat(level + 1));
  const parent = parents.at(-1)!;
  const at = `${parent}hostile`;
  return buildTar([
    ...parents.map((name): TarEntry => ({ name, type: '5' })),
    { name: `${parent}beside`, content: 'hostile' },
    { name: `${parent}other/`, type: '5' },
    { name: `${at}/`, type: '5' },
    { name: `${at}/child`, content: 'hostile' },
    { name: `${at}/sub/`, type: '5' },
    { name: `${at}/sub/hostile`, content: String(round) },
    replace(at, `${parent}beside`, `${parent}other`),
    { name: `${parent}hostile-last`, content: 'hostile', mode: 0o4777 },
  ]);
}

const GOOD_PATHS = Array.from({ length: 12 }, (_, i) => [`g${i}`, `g${i}/sub`, `g${i}/sub/file`]).flat();

function goodTar(round: number): Buffer {
  return buildTar(
    GOOD_PATHS.map((path) =>
      path.endsWith('file') ? { name: path, content: `good ${round}` } : { name: `${path}/`, type: '5' },
    ),
  );
}

/** Opens and closes directories until it is stopped: a program that has this package in its process. */
async function openDirectories(directories: readonly string[], running: AbortSignal): Promise<void> {
  while (!running.aborted) {
    const open = directories.map((path) => openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
    await delay(1);
    for (const fd of open) closeSync(fd);
    await delay(1);
  }
}

async function register(store: Store, tar: Buffer) {
  return store.register(Readable.from([tar], { objectMode: false }));
}

for (const engine of ENGINES) {
  for (const driver of ['overlay2', 'vfs'] as const) {
    test(`replaced directories never lead an entry elsewhere (${engine}, ${driver})`, async (t) => {
      const base = tempDir(t, 'stale');
      const directories = Array.from({ length: 8 }, (_, i) => join(base, `program-${i}`));
      for (const directory of directories) mkdirSync(directory);
      await using store = await openStore({ root: join(base, 'root'), engine, driver, durability: 'relaxed' });
      const ended = new AbortController();
      const program = openDirectories(directories, ended.signal);
      const good = [];
      try {
        for (let first = 0; first < HOSTILE_LAYERS; first += AT_ONCE) {
          const rounds = Array.from({ length: AT_ONCE }, (_, i) => first + i);
          const [layer] = await Promise.all([
            register(store, goodTar(first)),
            ...rounds.map((round) => register(store, hostileTar(round))),
          ]);
          good.push(layer);
        }
      } finally {
        ended.abort();
        await program;
      }
      for (const directory of directories) assert.deepEqual(readdirSync(directory), [], directory);
      for (const layer of good) {
        await using view = await layer.view();
        assert.deepEqual(readdirSync(view.path, { recursive: true }).sort(), [...GOOD_PATHS].sort());
        const { layers } = await store.verify(layer.chainID);
        assert.deepEqual(
          layers.flatMap(({ problems }) => problems),
          [],
        );
      }
    });
  }
}
