/** `kill -9` in a loop: a process works on a store and is killed; the next one must find all that was promised. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LayerStoreError } from '../../../src/errors.js';
import { openStore } from '../../../src/store/open.js';
import type { Store } from '../../../src/store/types.js';
import { pick } from '../../support/random.js';
import { readLog } from './log-file.js';
import { check, fold, leftovers, shown, strayMounts, type Entry } from './promises.js';

export interface KillResult {
  rounds: number;
  operations: number;
  promises: number;
  layers: number;
  rwLayers: number;
  adopted: number;
  losses: string[];
}

const worker = fileURLToPath(new URL('./worker.ts', import.meta.url));

export async function killRounds(
  directory: string,
  driver: 'overlay2' | 'vfs',
  rounds: number,
  random: () => number,
): Promise<KillResult> {
  const root = join(directory, 'root');
  const path = join(directory, 'log');
  writeFileSync(path, '');
  const result: KillResult = { rounds, operations: 0, promises: 0, layers: 0, rwLayers: 0, adopted: 0, losses: [] };
  for (let round = 1; round <= rounds; round += 1) {
    // Every other one kills itself in the middle of some step, the others are killed wherever they are.
    const fatal = round % 2 === 0 ? 1 + pick(random, 400) : 0;
    await workAndDie(
      [root, driver, path, String(pick(random, 2 ** 31)), String(fatal)],
      fatal > 0,
      5 + pick(random, 600),
    );
    const text = readFileSync(path, 'utf8');
    const entries = readLog(text);
    const store = await openStore({ root, engine: 'native', driver });
    try {
      await inspect(store, entries, root, driver, result, round);
      const facts = seen(store, entries);
      const torn = text.endsWith('\n') || text === '' ? '' : '\n';
      if (torn !== '') writeFileSync(path, text.slice(0, text.lastIndexOf('\n') + 1));
      appendFileSync(path, `${JSON.stringify({ at: 'seen', facts } satisfies Entry)}\n`);
    } finally {
      await store.close();
    }
  }
  result.operations = readLog(readFileSync(path, 'utf8')).filter(({ at }) => at === 'done').length;
  return result;
}

/** A worker on a new store, killed some time after it began to work. */
export async function killedWriter(
  directory: string,
  driver: 'overlay2' | 'vfs',
  seed: number,
  milliseconds: number,
): Promise<void> {
  const path = join(directory, 'log');
  writeFileSync(path, '');
  await workAndDie([join(directory, 'root'), driver, path, String(seed), '0'], false, milliseconds);
}

async function workAndDie(args: readonly string[], itself: boolean, milliseconds: number): Promise<void> {
  const child = spawn(process.execPath, ['--import', 'tsx', worker, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  await Promise.race([once(child.stdout, 'data'), ended]);
  // One that kills itself gets some seconds to reach its step.
  const timer = setTimeout(() => child.kill('SIGKILL'), itself ? 5_000 : milliseconds);
  const [code, signal] = await ended;
  clearTimeout(timer);
  if (signal !== 'SIGKILL') throw new Error(`the worker ended by itself (${code ?? signal ?? ''}): ${complaint}`);
}

async function inspect(
  store: Store,
  entries: readonly Entry[],
  root: string,
  driver: 'overlay2' | 'vfs',
  result: KillResult,
  round: number,
): Promise<void> {
  const lost = (what: string): void => void result.losses.push(`round ${round}: ${what}`);
  for (const target of strayMounts(store, root)) lost(`a mount that nobody knows at ${target}`);
  // Mounts of the killed process count once, and go by unmounting once.
  for (const [name, { mountCount }] of store.mounts()) {
    if (mountCount === 0) continue;
    if (mountCount !== 1) lost(`rw:${name} was adopted with count ${mountCount}`);
    result.adopted += 1;
    await (await store.getRWLayer(name)).unmount().catch((error: unknown) => {
      // A layer without parent needs no mount, so nothing of it is left to adopt.
      if (!LayerStoreError.is(error, 'ERR_NOT_MOUNTED')) throw error;
    });
  }
  const found = await check(store, fold(entries));
  result.promises += found.promises;
  result.layers += found.layers;
  result.rwLayers += found.rwLayers;
  found.losses.forEach(lost);
  for (const what of await leftovers(store, root, driver)) lost(`left over: ${what}`);
  for (const target of strayMounts(store, root)) lost(`still mounted: ${target}`);
}

/** What was in doubt is known now. */
function seen(store: Store, entries: readonly Entry[]): Record<string, string | null> {
  const there = shown(store);
  const { doubt } = fold(entries);
  return Object.fromEntries([...doubt].map((key) => [key, there.get(key) ?? null]));
}

export function killSummary(result: KillResult): string {
  const { rounds, operations, promises, layers, rwLayers, adopted, losses } = result;
  return `${rounds} kills, ${operations} operations, ${promises} promises checked, ${layers} layers exported and compared, ${rwLayers} RW layers mounted, ${adopted} live mounts adopted, ${losses.length} losses`;
}
