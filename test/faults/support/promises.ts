/**
 * What a store has promised, kept outside of it: a list of entries written when an operation begins and when its promise
 * resolves. Read back after a crash it says what must be there, what must be gone, and what may be either.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ChainID } from '../../../src/digest.js';
import type { Store } from '../../../src/store/types.js';
import { mountsBelow } from '../../../src/testing/suite-directory.js';

/** `layer:CHAINID`, `rw:NAME` and `ref:NAME`; what is there has a value: 'there', or the chain id of a reference. */
export type Facts = Record<string, string | null>;

export type Entry =
  /** `may`: the keys that the operation may change; `lane`: whose they are. */
  | { at: 'begin'; op: number; what: string; lane: number; may: readonly string[] }
  | { at: 'done'; op: number; facts: Facts }
  /** Rejected: nothing has changed. */
  | { at: 'failed'; op: number; error: string }
  /** A new process: what was in doubt was looked at. */
  | { at: 'seen'; facts: Facts };

export interface Expected {
  sure: Map<string, string>;
  /** In the middle of an operation: there or gone, both are right. */
  doubt: Set<string>;
  lanes: Map<string, number>;
  /** Promises that resolved. */
  kept: number;
}

/**
 * `from` entries were written before the moment, `until` before it was over: an operation that began in between may show,
 * one that ended in between may have ended before or after.
 */
export function fold(entries: readonly Entry[], from = entries.length, until = from): Expected {
  const expected: Expected = { sure: new Map(), doubt: new Set(), lanes: new Map(), kept: 0 };
  const open = new Map<number, readonly string[]>();
  entries.slice(0, until).forEach((entry, index) => {
    if (entry.at === 'begin') {
      open.set(entry.op, entry.may);
      for (const key of entry.may) expected.lanes.set(key, entry.lane);
    } else if (index < from) {
      if (entry.at === 'done' || entry.at === 'seen') settle(expected.sure, entry.facts);
      if (entry.at === 'done') expected.kept += 1;
      if (entry.at === 'seen') open.clear();
      else open.delete(entry.op);
    }
  });
  for (const keys of open.values()) for (const key of keys) expected.doubt.add(key);
  return expected;
}

function settle(sure: Map<string, string>, facts: Facts): void {
  for (const [key, value] of Object.entries(facts)) {
    if (value === null) sure.delete(key);
    else sure.set(key, value);
  }
}

/** What a store shows now, in the words of the promises. */
export function shown(store: Store): Map<string, string> {
  const found = new Map<string, string>();
  for (const chainID of store.map().keys()) found.set(`layer:${chainID}`, 'there');
  for (const name of store.mounts().keys()) found.set(`rw:${name}`, 'there');
  for (const { name, chainID } of store.references()) found.set(`ref:${name}`, chainID);
  return found;
}

export interface Checked {
  promises: number;
  layers: number;
  rwLayers: number;
  losses: string[];
}

/**
 * Each promise is compared with what is there, every layer is exported and compared with its tree, every RW layer is
 * mounted. Gives the losses; none of them is thrown, so that a run can count them.
 */
export async function check(store: Store, expected: Expected): Promise<Checked> {
  const losses: string[] = [];
  const found = shown(store);
  for (const [key, value] of expected.sure) {
    if (expected.doubt.has(key)) continue;
    if (found.get(key) !== value) losses.push(`${key} was promised (${value}), found ${found.get(key) ?? 'nothing'}`);
  }
  for (const key of found.keys()) {
    if (!expected.sure.has(key) && !expected.doubt.has(key)) losses.push(`${key} is there and should be gone`);
  }
  const layers = [...store.map().keys()];
  for (const chainID of layers) losses.push(...(await unreadable(store, chainID)));
  const report = await store.verify();
  for (const { chainID, problems } of report.layers) {
    const real = problems.filter(({ cosmetic }) => !cosmetic);
    if (real.length > 0) losses.push(`layer:${chainID} is damaged: ${JSON.stringify(real[0])}`);
  }
  const rwLayers = [...store.mounts().keys()];
  for (const name of rwLayers) losses.push(...(await unmountable(store, name)));
  return { promises: expected.sure.size + expected.kept, layers: layers.length, rwLayers: rwLayers.length, losses };
}

async function unreadable(store: Store, chainID: ChainID): Promise<string[]> {
  const fd = openSync('/dev/null', 'w');
  try {
    // A second handle keeps it: a crash leaves layers that no reference keeps, and those would go with the only one.
    const layer = await store.get(chainID);
    await layer.exportTo({ fd });
    return [];
  } catch (error) {
    return [`layer:${chainID} cannot be exported: ${String(error)}`];
  } finally {
    closeSync(fd);
  }
}

async function unmountable(store: Store, name: string): Promise<string[]> {
  try {
    const rw = await store.getRWLayer(name);
    const path = await rw.mount();
    readdirSync(path);
    await rw.size();
    await rw.unmount();
    return [];
  } catch (error) {
    return [`rw:${name} cannot be mounted: ${String(error)}`];
  }
}

/** What lies on disk and belongs to nothing that the store knows; `[]` in a store without leftovers. */
export async function leftovers(store: Store, root: string, driver: 'overlay2' | 'vfs'): Promise<string[]> {
  const { items, foreign } = await store.cleanup();
  const found = [
    // What an open or an operation removes in the background, and cleanup() waited for, was not forgotten.
    ...items.filter(({ kind }) => kind !== 'pending').map(({ kind, what }) => `${kind} ${what}`),
    ...foreign.map(({ what, why }) => `${what}: ${why}`),
  ];
  const own = join(root, 'layerstore');
  const records = join(root, 'image', driver, 'layerdb');
  const count = store.map().size;
  const home = join(root, driver, ...(driver === 'vfs' ? ['dir'] : []));
  const ignored = new Set(['l', 'backingFsBlockDev']);
  const directories = readdirSync(home).filter((name) => !ignored.has(name));
  const inits = [...store.mounts().values()].filter(({ initID }) => initID !== undefined).length;
  const wanted = count + store.mounts().size + inits;
  if (directories.length !== wanted) {
    const odd = directories.filter((name) => name.startsWith('.')).join(' ');
    found.push(`${directories.length} driver directories where ${wanted} are named (${odd})`);
  }
  if (driver === 'overlay2' && readdirSync(join(home, 'l')).length !== wanted) found.push('links that lead nowhere');
  for (const name of readdirSync(join(own, 'intents'))) found.push(`intent ${name}`);
  for (const name of readdirSync(join(records, 'tmp'))) found.push(`unfinished record ${name}`);
  for (const name of readdirSync(own))
    if (name.endsWith('.tmp') || name === 'quarantine') found.push(`layerstore/${name}`);
  for (const name of readdirSync(join(records, 'sha256'))) if (name.endsWith('-removing')) found.push(name);
  return found;
}

/** Mounts that no RW layer of the store accounts for. */
export function strayMounts(store: Store, root: string): string[] {
  const known = new Set([...store.mounts().values()].map(({ path }) => path));
  return mountsBelow(root).filter((target) => !known.has(target));
}

export function assertNoLosses(losses: readonly string[], what: string): void {
  assert.deepEqual(losses, [], what);
}
