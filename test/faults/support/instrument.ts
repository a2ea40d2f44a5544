/**
 * A hook before every step: each method of the native engine, as the object has them, each operation of its batches, and
 * the few calls of `node:fs` by which the store writes itself. The code under test has no hook of its own.
 */
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import type { BatchOp, Engine } from '../../../src/engine/engine.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';

/** What is taken out on purpose, to see whether the suites notice. */
export type Mutation = 'no data sync' | 'no record sync' | 'publish before data';

export interface Instruments {
  /**
   * Called before each step, with the engine's method that it is a part of (`fs` for a call of `node:fs`); may throw what
   * the step then fails with.
   */
  before?: (step: string, method: string) => void;
  /** Whether steps that change nothing on the disk count too. Default: they do not. */
  reads?: boolean;
  mutation?: Mutation;
}

/** Methods that change nothing on the disk: a crash before one leaves what the step before it left. */
export const READS: readonly string[] = [
  'features',
  'hashFile',
  'assemble',
  'assembleTo',
  'recordedSize',
  'verifyTree',
  'changes',
  'diffSize',
  'treeTar',
  'usage',
  'mounts',
  'readSmallFiles',
  'names',
  'lock',
  'deferredTeardown',
  'deferredTeardown end',
];
/** Methods that give no promise: they throw what others reject with. */
const SYNCHRONOUS: readonly string[] = ['features', 'deferredTeardown'];

type Method = (this: Engine, ...args: unknown[]) => unknown;

/** Every method of the native engine, and `NAME end` for those of what `deferredTeardown` gives. */
export function engineMethods(): string[] {
  const prototype = Object.getPrototypeOf(loadNativeEngine()) as Record<string, unknown>;
  const names = Object.getOwnPropertyNames(prototype).filter((name) => name !== 'constructor');
  return [...names.filter((name) => typeof prototype[name] === 'function'), 'deferredTeardown end'];
}

/** Hooks all native engines of this process and its `node:fs` below `root`; gives what takes the hooks out again. */
export function instrument(
  root: string,
  { before = () => undefined, reads = false, mutation }: Instruments,
): () => void {
  const prototype = Object.getPrototypeOf(loadNativeEngine()) as Record<string, Method>;
  const restore: (() => void)[] = [];
  const replace = (object: Record<string, unknown>, key: string, value: unknown): void => {
    const old = Object.getOwnPropertyDescriptor(object, key) as PropertyDescriptor;
    Object.defineProperty(object, key, { ...old, value });
    restore.push(() => Object.defineProperty(object, key, old));
  };
  const step: Before = (what, method) => {
    if (reads || !READS.includes(method)) before(what, method);
  };
  for (const name of engineMethods()) {
    if (name in prototype && name !== 'batch' && name !== 'syncFs') hookMethod(prototype, name, replace, step);
  }
  hookBatches(prototype, replace, step, mutation);
  hookFiles(root, replace, step, mutation);
  syncBuiltinESMExports();
  return () => {
    for (const back of restore.reverse()) back();
    syncBuiltinESMExports();
  };
}

type Replace = (object: Record<string, unknown>, key: string, value: unknown) => void;

type Before = (step: string, method: string) => void;

function hookMethod(prototype: Record<string, Method>, name: string, replace: Replace, before: Before): void {
  const original = prototype[name] as Method;
  replace(prototype, name, function (this: Engine, ...args: unknown[]) {
    try {
      before(name, name);
    } catch (error) {
      if (SYNCHRONOUS.includes(name)) throw error;
      return Promise.reject(error);
    }
    const result = original.apply(this, args);
    if (name === 'deferredTeardown') hookEnd(result as { end: () => Promise<void> }, before);
    return result;
  });
}

/** An object of the addon's own, which goes back to it as it is: the hook lies on the object itself. */
function hookEnd(kept: { end: () => Promise<void> }, before: Before): void {
  const end = kept.end.bind(kept);
  const value = async (): Promise<void> => {
    before('deferredTeardown end', 'deferredTeardown end');
    await end();
  };
  Object.defineProperty(kept, 'end', { value });
}

function hookBatches(
  prototype: Record<string, Method>,
  replace: Replace,
  before: Before,
  mutation: Mutation | undefined,
): void {
  const batch = prototype['batch'] as (this: Engine, ops: readonly BatchOp[]) => Promise<void>;
  const syncFs = prototype['syncFs'] as (this: Engine, ...args: unknown[]) => Promise<unknown>;
  /** The data sync that `publish before data` puts off. */
  let late: (() => Promise<unknown>) | undefined;
  replace(prototype, 'syncFs', async function (this: Engine, ...args: unknown[]) {
    before('syncFs', 'syncFs');
    if (mutation === 'no data sync') return;
    if (mutation === 'publish before data') {
      late = () => syncFs.apply(this, args);
      return;
    }
    await syncFs.apply(this, args);
  });
  replace(prototype, 'batch', async function (this: Engine, ops: readonly BatchOp[]) {
    const made: BatchOp[] = [];
    try {
      for (const op of ops) {
        before(describe(op), 'batch');
        const unsynced = mutation === 'no record sync' && isRecord(op.path);
        if (unsynced && op.op === 'fsync') continue;
        await batch.call(this, [unsynced && op.op === 'write' ? { ...op, sync: false } : op]);
        made.unshift(op);
      }
    } catch (error) {
      // As the contract of `batch` has it: what it made is taken back, in reverse.
      for (const op of made) await takeBack((undo) => batch.call(this, [undo]), op);
      throw error;
    }
    const publishes = ops.some((op) => op.op === 'rename' && isRecord(op.dest));
    if (publishes && late !== undefined) {
      const sync = late;
      late = undefined;
      before('the late data sync', 'syncFs');
      await sync();
    }
  });
}

const isRecord = (path: string): boolean => /\/layerdb(\/|$)|\/intents\/[0-9a-f]+\//.test(path);

async function takeBack(batch: (op: BatchOp) => Promise<unknown>, op: BatchOp): Promise<void> {
  if (op.op === 'mkdir' && op.existOk !== true) await batch({ op: 'rmdir', path: op.path, missingOk: true });
  if (op.op === 'write' || op.op === 'symlink' || op.op === 'mknod')
    await batch({ op: 'unlink', path: op.path, missingOk: true });
}

function describe(op: BatchOp): string {
  const path = op.op === 'rename' || op.op === 'exchange' ? op.dest : op.path;
  const known = /(intents|layerdb\/\w+|overlay2|vfs)\/.*$/.exec(path)?.[0] ?? path;
  return `${op.op} ${known.replace(/[0-9a-f]{16,}/g, 'ID').replace(/\/[A-Z2-7]{26}$/, '/LINK')}`;
}

/** The store's own few writes: `references.json`, `version`, directories, records that are dropped. */
function hookFiles(root: string, replace: Replace, before: Before, mutation: Mutation | undefined): void {
  const promises = fs as unknown as Record<string, (...args: never[]) => Promise<unknown>>;
  for (const name of ['rename', 'rm', 'mkdir', 'open'] as const) {
    const original = promises[name] as (...args: unknown[]) => Promise<unknown>;
    replace(promises, name, async (...args: unknown[]) => {
      const [path, flags] = args;
      const writes = name !== 'open' || flags === 'wx';
      if (typeof path === 'string' && path.startsWith(root) && writes) {
        before(`${name} ${path.slice(root.length).replace(/[0-9a-f]{16,}/g, 'ID')}`, 'fs');
      }
      const result = await original(...args);
      if (name === 'open' && mutation === 'no record sync' && typeof path === 'string' && path.startsWith(root)) {
        Object.assign(result as object, { datasync: async () => undefined, sync: async () => undefined });
      }
      return result;
    });
  }
}
