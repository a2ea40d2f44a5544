/** Changes and their size: exactly Docker's sets. */
import { isUtf8 } from 'node:buffer';
import type { BigIntStats } from 'node:fs';
import type { Change, DiffRequest } from '../engine.js';
import { TreeComparison, type Visit } from './comparison.js';
import { byBytes } from './directory.js';

/** A change and what the newer tree has there. */
export interface ChangeVisit {
  /** Latin1, without leading slash. */
  path: string;
  kind: Change['kind'];
  visit: Visit;
}

/** See {@link Engine.changes}. */
export async function changes(request: DiffRequest): Promise<Change[]> {
  const comparison = await TreeComparison.open(request);
  try {
    const found = await collectChanges(comparison);
    return found.map(({ path, kind }) => publicChange(path, kind));
  } finally {
    await comparison.close();
  }
}

function publicChange(path: string, kind: Change['kind']): Change {
  const bytes = Buffer.from(`/${path}`, 'latin1');
  return { path: bytes.toString(), kind, ...(isUtf8(bytes) ? {} : { rawPath: bytes }) };
}

/** Changes in byte order of path. */
export async function collectChanges(comparison: TreeComparison): Promise<ChangeVisit[]> {
  const found: ChangeVisit[] = [];
  /** Directories from the root to where the walk is, that are no change by themselves so far. */
  const above: { path: string; visit: Visit }[] = [];
  const add = (path: string, kind: Change['kind'], visit: Visit): void => {
    // Every directory above a change is one.
    for (const parent of above) found.push({ path: parent.path, kind: 'modify', visit: parent.visit });
    above.length = 0;
    found.push({ path, kind, visit });
  };
  for await (const visit of comparison.walk()) {
    const { path } = visit;
    while (above.length > 0 && !path.startsWith(`${above[above.length - 1]!.path}/`)) above.pop();
    if (visit.kind === 'gone') add(path, 'delete', visit);
    else if (visit.kind === 'whiteout') {
      if (visit.lower) add(path, 'delete', visit);
    } else if (visit.lower === undefined) add(path, 'add', visit);
    else if (await differs(visit.stat, visit.lower.stat, visit)) add(path, 'modify', visit);
    else if (visit.stat.isDirectory()) above.push({ path, visit });
  }
  return found.sort((a, b) => byBytes(a.path, b.path));
}

async function differs(
  now: BigIntStats,
  before: BigIntStats,
  visit: Extract<Visit, { kind: 'present' }>,
): Promise<boolean> {
  if (now.mode !== before.mode || now.uid !== before.uid || now.gid !== before.gid || now.rdev !== before.rdev)
    return true;
  // Of a directory time and size say nothing.
  if (!now.isDirectory() && (now.size !== before.size || !sameTime(now.mtimeNs, before.mtimeNs))) return true;
  if (now.isSymbolicLink() || visit.lower === undefined) return false;
  const capability = await visit.source.layer.capability(visit.source.path);
  const former = await visit.lower.source.layer.capability(visit.lower.source.path);
  return !(capability ?? Buffer.alloc(0)).equals(former ?? Buffer.alloc(0));
}

const SECOND = 1_000_000_000n;

/** Equal seconds do where one side has none finer: a layer from a tar without nanoseconds. */
function sameTime(a: bigint, b: bigint): boolean {
  return a === b || (a / SECOND === b / SECOND && (a % SECOND === 0n || b % SECOND === 0n));
}

/** See {@link Engine.diffSize}. */
export async function diffSize(request: DiffRequest): Promise<number> {
  const plain = request.upper.whiteouts === 'plain';
  const comparison = await TreeComparison.open(request, plain);
  try {
    let size = 0;
    const linked = new Set<string>();
    const count = (visit: Visit): void => {
      if (visit.kind !== 'present' || visit.stat.isDirectory()) return;
      if (visit.stat.nlink > 1n) {
        const inode = `${String(visit.stat.dev)}:${String(visit.stat.ino)}`;
        if (linked.has(inode)) return;
        linked.add(inode);
      }
      size += Number(visit.stat.size);
    };
    if (plain) for (const { visit } of await collectChanges(comparison)) count(visit);
    else for await (const visit of comparison.walk()) count(visit);
    return size;
  } finally {
    await comparison.close();
  }
}
