/**
 * A hook before every step that changes the disk: each call of the native engine that does, each operation of its
 * batches, and the few calls of `node:fs` that the store makes itself. The code under test has no hook of its own.
 */
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import type { BatchOp, Engine } from '../../../src/engine/engine.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';

/** What is taken out on purpose, to see whether the suites notice. */
export type Mutation = 'no data sync' | 'no record sync' | 'publish before data';

export interface Instruments {
  /** Called before each step; may throw what the step then fails with. */
  before?: (step: string) => void;
  mutation?: Mutation;
}

/** Steps outside of batches. */
const CALLS = ['ingest', 'seal', 'copyTree', 'removeTree', 'mountOverlay', 'unmount'] as const;

type Method = (this: Engine, ...args: unknown[]) => Promise<unknown>;

/** Hooks all native engines of this process and its `node:fs` below `root`; gives what takes the hooks out again. */
export function instrument(root: string, { before = () => undefined, mutation }: Instruments): () => void {
  const prototype = Object.getPrototypeOf(loadNativeEngine()) as Record<string, Method>;
  const restore: (() => void)[] = [];
  const replace = (object: Record<string, unknown>, key: string, value: unknown): void => {
    const old = Object.getOwnPropertyDescriptor(object, key) as PropertyDescriptor;
    Object.defineProperty(object, key, { ...old, value });
    restore.push(() => Object.defineProperty(object, key, old));
  };
  for (const name of CALLS) {
    const original = prototype[name] as Method;
    replace(prototype, name, async function (this: Engine, ...args: unknown[]) {
      before(name);
      return original.apply(this, args);
    });
  }
  hookBatches(prototype, replace, before, mutation);
  hookFiles(root, replace, before, mutation);
  syncBuiltinESMExports();
  return () => {
    for (const back of restore.reverse()) back();
    syncBuiltinESMExports();
  };
}

type Replace = (object: Record<string, unknown>, key: string, value: unknown) => void;

function hookBatches(
  prototype: Record<string, Method>,
  replace: Replace,
  before: (step: string) => void,
  mutation: Mutation | undefined,
): void {
  const batch = prototype['batch'] as Method;
  const syncFs = prototype['syncFs'] as Method;
  /** The data sync that `publish before data` puts off. */
  let late: (() => Promise<unknown>) | undefined;
  replace(prototype, 'syncFs', async function (this: Engine, ...args: unknown[]) {
    before('syncFs');
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
        before(describe(op));
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
      before('the late data sync');
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
function hookFiles(
  root: string,
  replace: Replace,
  before: (step: string) => void,
  mutation: Mutation | undefined,
): void {
  const promises = fs as unknown as Record<string, (...args: never[]) => Promise<unknown>>;
  for (const name of ['rename', 'rm', 'mkdir', 'open'] as const) {
    const original = promises[name] as (...args: unknown[]) => Promise<unknown>;
    replace(promises, name, async (...args: unknown[]) => {
      const [path, flags] = args;
      const writes = name !== 'open' || flags === 'wx';
      if (typeof path === 'string' && path.startsWith(root) && writes) {
        before(`${name} ${path.slice(root.length).replace(/[0-9a-f]{16,}/g, 'ID')}`);
      }
      const result = await original(...args);
      if (name === 'open' && mutation === 'no record sync' && typeof path === 'string' && path.startsWith(root)) {
        Object.assign(result as object, { datasync: async () => undefined, sync: async () => undefined });
      }
      return result;
    });
  }
}
