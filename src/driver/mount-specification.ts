/** What the drivers of this package tell those who mount a tree themselves, and the root that such a tree begins with. */
import { lstat } from 'node:fs/promises';
import type { BatchOp } from '../engine/engine.js';
import { systemError } from '../errors.js';
import type { MountSpecification, TreeRoot } from './driver.js';

export function bindSpecification(directory: string, access: 'read-write' | 'read-only'): MountSpecification {
  const bind = { type: 'bind', source: directory };
  return access === 'read-write'
    ? { ...bind, options: ['rw', 'rbind'], writes: directory }
    : { ...bind, options: ['ro', 'rbind'] };
}

export async function rootOf(directory: string): Promise<TreeRoot> {
  try {
    const { mode, uid, gid } = await lstat(directory);
    return { mode: mode & 0o7777, uid, gid };
  } catch (error) {
    throw systemError(error, 'look at the root of a layer');
  }
}

export function rootSteps(directory: string, { mode, uid, gid }: TreeRoot, sync: boolean): BatchOp[] {
  return [
    { op: 'chown', path: directory, uid, gid },
    // After the owner, whose change takes the setuid and setgid bits away.
    { op: 'chmod', path: directory, mode },
    ...(sync ? ([{ op: 'fsync', path: directory }] as const) : []),
  ];
}
