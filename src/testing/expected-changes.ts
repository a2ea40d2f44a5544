/**
 * The changes between two trees by Docker's rules, from snapshots alone: a model to hold implementations against, slow
 * and simple. Source of the rules: go-archive, `changes.go` (addChanges) and `changes_unix.go` (statDifferent).
 */
import type { TreeEntry, TreeSnapshot } from './tree-snapshot.js';

/** Lines as `formatChange` writes them (`C /etc`, `A /x`, `D /y`), in byte order of path. Paths as latin1 of their bytes. */
export function expectedChanges(before: TreeSnapshot, after: TreeSnapshot): string[] {
  const kinds = new Map<string, string>();
  for (const [path, entry] of after) {
    const old = before.get(path);
    if (old === undefined) kinds.set(path, 'A');
    else if (differs(old, entry)) kinds.set(path, 'C');
  }
  for (const path of before.keys()) {
    // Only the topmost of what is gone, and nothing below what became another kind of file.
    const parent = parentOf(path);
    if (!after.has(path) && (parent === '' || after.get(parent)?.type === 'directory')) kinds.set(path, 'D');
  }
  for (const path of [...kinds.keys()]) {
    for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent)) {
      if (!kinds.has(parent)) kinds.set(parent, 'C');
    }
  }
  return [...kinds].sort(([a], [b]) => (a < b ? -1 : 1)).map(([path, kind]) => `${kind} ${path}`);
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'));
}

function differs(old: TreeEntry, entry: TreeEntry): boolean {
  if (old.type !== entry.type || old.mode !== entry.mode || old.owner !== entry.owner) return true;
  if (old.device !== entry.device || capabilityOf(old) !== capabilityOf(entry)) return true;
  if (entry.type === 'directory') return false;
  return !sameTime(old.mtime, entry.mtime) || sizeOf(old) !== sizeOf(entry);
}

function capabilityOf({ xattrs }: TreeEntry): string | undefined {
  return xattrs?.['security.capability'];
}

function sizeOf({ size, target }: TreeEntry): number {
  return size ?? target?.length ?? 0;
}

/** Equal seconds and equal nanoseconds, or none in one of them: an archive may have cut them. */
function sameTime(a: string, b: string): boolean {
  const [aSeconds, aRest] = a.split('.');
  const [bSeconds, bRest] = b.split('.');
  return aSeconds === bSeconds && (aRest === bRest || Number(aRest) === 0 || Number(bRest) === 0);
}

/** Bytes of every inode that is no directory, hard links once, symbolic links by the length of their target. */
export function expectedSize(tree: Iterable<TreeEntry>): number {
  const counted = new Set<string>();
  let size = 0;
  for (const entry of tree) {
    if (entry.links !== undefined) {
      if (counted.has(entry.links)) continue;
      counted.add(entry.links);
    }
    size += sizeOf(entry);
  }
  return size;
}
