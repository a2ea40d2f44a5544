/** What containerd and our plugin must agree on, whatever happened to either. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { openStore } from '../../../src/store/open.js';
import { listSnapshots } from './clients.js';
import { NAMESPACE, type Pair } from './daemons.js';

export interface Agreement {
  readonly namespace?: string;
  /** Snapshots that containerd removed stay with us until its next collection, and after a crash of either a call that containerd did not hear the end of may have left one. */
  readonly orphans?: boolean;
}

/** Both lists name the same snapshots on the same parents. A collection may be under way, so they are asked more than once. */
export async function assertAgree(
  pair: Pair,
  { namespace = NAMESPACE, orphans = false }: Agreement = {},
): Promise<void> {
  // containerd's name is the last part of ours: ours begins with the namespace and a number.
  const short = (name: string): string => name.replace(new RegExp(`^${namespace}/\\d+/`), '');
  for (let tries = 0; ; tries++) {
    const theirs = await pair.snapshots(namespace);
    const ours = (await listSnapshots(pair.socket))
      .map(({ name, parent, kind }) => ({
        name: short(name),
        parent: short(parent),
        kind: `${kind[0] ?? ''}${kind.slice(1).toLowerCase()}`,
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    // Ours may have one of the same name twice: its full name has a number, which containerd's list has not.
    const missing = theirs.filter((each) => !ours.some((other) => isDeepStrictEqual(each, other)));
    if (orphans ? missing.length === 0 : isDeepStrictEqual(ours, theirs)) return;
    if (tries >= 50) assert.deepEqual(ours, theirs);
    await sleep(100);
  }
}

/** Nothing of any image is left when all are removed, on either side. Both are stopped then. */
export async function assertNothingLeft(pair: Pair): Promise<void> {
  await pair.prune();
  for (let waits = 0; waits < 100 && (await listSnapshots(pair.socket)).length > 0; waits++) await sleep(100);
  assert.deepEqual(await pair.snapshots(), []);
  assert.deepEqual(await listSnapshots(pair.socket), []);
  await pair.stop();
  const store = await openStore({ root: pair.root });
  try {
    assert.deepEqual([...store.map().keys()], []);
    assert.deepEqual(store.references(), []);
    assert.equal((await store.usage()).pendingRemoval.count, 0);
    assert.deepEqual((await store.gc({ dryRun: true })).removed, []);
  } finally {
    await store.close();
  }
  const list = (path: string): string[] => readdirSync(join(pair.root, path));
  assert.deepEqual(
    list('overlay2').filter((name) => name !== 'l'),
    [],
  );
  for (const path of ['overlay2/l', 'layerstore/containerd/applied', 'layerstore/intents']) {
    assert.deepEqual(list(path), [], path);
  }
}
