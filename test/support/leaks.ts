/** What a process may leave behind: descriptors, threads, mounts. Counted before and after. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { mountsBelow } from '../../src/testing/suite-directory.js';

export interface Held {
  /** What each open descriptor names; sockets, pipes and anonymous inodes without their numbers. */
  descriptors: string[];
  threads: number;
  mounts: string[];
}

/** What this process holds now; mounts below `directory` only, since others mount what they like. */
export function heldNow(directory: string): Held {
  return { descriptors: descriptors(), threads: threads().length, mounts: mountsBelow(directory) };
}

function descriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\[\d+\]$/, '')];
      } catch {
        return []; // the descriptor that read the directory
      }
    })
    .filter((name) => !/^\/proc\/\d+\/fd$/.test(name))
    .sort();
}

/** Names of the threads. */
export function threads(): string[] {
  return readdirSync('/proc/self/task').flatMap((id) => {
    try {
      return [readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim()];
    } catch {
      return []; // it ended meanwhile
    }
  });
}

/**
 * Runs `work` once to warm up (caches, thread pools), then again, and fails where the second run left anything.
 * Threads and descriptors that go a moment later are waited for: `tries` looks, 50 ms apart.
 */
export async function assertLeavesNothing(directory: string, work: () => Promise<void>, tries = 1_200): Promise<void> {
  await work();
  await settled();
  const before = heldNow(directory);
  await work();
  let after = heldNow(directory);
  for (let left = tries; left > 0 && differs(before, after); left--) {
    await settled();
    after = heldNow(directory);
  }
  assert.deepEqual(after.mounts, before.mounts, 'mounts');
  assert.deepEqual(after.descriptors, before.descriptors, 'descriptors');
  assert.ok(after.threads <= before.threads, `${after.threads - before.threads} more threads: ${threads().join(' ')}`);
}

function differs(a: Held, b: Held): boolean {
  return (
    b.threads > a.threads || String(a.descriptors) !== String(b.descriptors) || String(a.mounts) !== String(b.mounts)
  );
}

function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}
