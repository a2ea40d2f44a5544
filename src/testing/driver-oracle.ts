/** The oracle for drivers: a stack of layers against one flat directory that got the same changes. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { Readable } from 'node:stream';
import type { GraphDriver } from '../driver/graph-driver.js';
import type { Change } from '../engine/engine.js';
import { applyChanges } from './apply-changes.js';
import type { TreeChange } from './change-list.js';
import { needsOf } from './change-list.js';
import { driverID } from './driver-id.js';
import { expectedChanges } from './expected-changes.js';
import type { TreeSnapshot } from './tree-snapshot.js';
import { assertSameTree, snapshotTree } from './tree-snapshot.js';

export interface DriverStackInput {
  driver: GraphDriver;
  /** One list a layer, base first. */
  layers: readonly (readonly TreeChange[])[];
  /** For the flat directory. */
  directory: string;
}

/**
 * Applies each list to an RW layer on top of the layers so far and to a flat directory; compares the mounted tree, the
 * changes by Docker's rules, and the tree that comes out when the RW layer's tar becomes the next layer.
 */
export async function checkDriverStack({ driver, layers, directory }: DriverStackInput): Promise<void> {
  const flat = join(directory, 'flat');
  mkdirSync(flat, { recursive: true });
  let before: TreeSnapshot = new Map();
  let parent: string | undefined;
  for (const [number, changes] of layers.entries()) {
    const options = { xattrs: xattrsMatter(layers, number) };
    const where = `layer ${number + 1} of ${layers.length}`;
    const rw = driverID(1000 + number);
    await driver.createReadWrite(rw, parent, {});
    const path = await driver.get(rw);
    applyChanges(path, changes, number);
    applyChanges(flat, changes, number);
    const expected = snapshotTree(flat, options);
    assertSameTree(expected, snapshotTree(path, options), `${where}, mounted`);
    assert.deepEqual(
      changeLines(await driver.changes(rw, parent)),
      expectedChanges(before, expected),
      `${where}, changes while mounted`,
    );
    await driver.put(rw);
    assert.deepEqual(
      changeLines(await driver.changes(rw, parent)),
      expectedChanges(before, expected),
      `${where}, changes`,
    );

    const next = driverID(2000 + number);
    const tar = await buffer(await driver.diff(rw, parent));
    await driver.create(next, parent);
    await driver.applyDiff(next, parent, Readable.from([tar]), {});
    await driver.remove(rw);
    const view = await (driver.view?.(next) ?? driver.get(next));
    assertSameTree(expected, snapshotTree(view, options), `${where}, from its tar`);
    await driver.put(next);
    before = expected;
    parent = next;
  }
}

/** Reading attributes costs a process: where no list has any, only the last layer is asked whether it got some. */
export function xattrsMatter(layers: readonly (readonly TreeChange[])[], number: number): boolean {
  return number === layers.length - 1 || layers.some((changes) => needsOf(changes).xattrs);
}

/** `C /etc`, in the given order; paths as latin1 of their bytes. */
export function changeLines(changes: readonly Change[]): string[] {
  const letters = { modify: 'C', add: 'A', delete: 'D' };
  return changes.map(
    ({ kind, path, rawPath }) => `${letters[kind]} ${Buffer.from(rawPath ?? Buffer.from(path)).toString('latin1')}`,
  );
}
