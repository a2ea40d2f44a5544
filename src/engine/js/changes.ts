/**
 * What a tree (directories stacked as overlayfs stacks them, or one plain directory) has on top of another: the walk of both
 * trees, and what Docker makes of it, its changes and their size. The upper tree is walked; the lower one is looked at only
 * where the upper one covers it.
 */
import { isUtf8 } from 'node:buffer';
import type { BigIntStats } from 'node:fs';
import { invalidArgument, LayerStoreError } from '../../errors.js';
import { shown } from '../../tar/errors.js';
import type { Change, DiffRequest, TreeStack } from '../engine.js';
import { byBytes } from './directory.js';
import { isWhiteout, LayerDirectory } from './layer-directory.js';

/** A path in one directory of a stack. */
export interface Source {
  layer: LayerDirectory;
  path: string;
}

/** Where a name is in a stack: a directory may come from several layers at once. */
interface Found {
  stat: BigIntStats;
  source: Source;
  /** Directories that are merged here, nearest first; one that is no directory has none. */
  merged: Source[];
  /** Whether layers further down are hidden. */
  closed: boolean;
}

/** A directory that the walk is in. */
interface WalkedDirectory {
  path: string;
  upper: readonly Source[];
  lower: readonly Source[];
  upperNames: ReadonlySet<string>;
  /** All that are looked at; `next`: how many of them were. */
  names: readonly string[];
  next: number;
  /** Whether what the upper tree lacks here is gone. */
  whole: boolean;
}

/** One thing the walk came to. Paths are latin1, without leading slash. */
export type Visit =
  | {
      kind: 'present';
      path: string;
      stat: BigIntStats;
      source: Source;
      /** What the lower tree has at this path. */
      lower: { stat: BigIntStats; source: Source } | undefined;
      /** A directory that hides what the lower tree has in it. */
      opaque: boolean;
    }
  /** A whiteout of the upper tree; `lower`: of something that is there. */
  | { kind: 'whiteout'; path: string; source: Source; lower: boolean }
  /** In the lower tree, not in the upper one, hidden by an opaque directory or missing from the whole tree. */
  | { kind: 'gone'; path: string };

export class TreeComparison {
  readonly hasLower: boolean;
  readonly #upper: LayerDirectory[];
  readonly #lower: LayerDirectory[];
  readonly #overlay: boolean;
  readonly #signal: AbortSignal | undefined;
  #lookBelow = true;
  /** Directories on the way to where {@link has} looked last; those that are not there are made of nothing. */
  readonly #way: { name: string; merged: readonly Source[] }[] = [];

  private constructor(
    upper: LayerDirectory[],
    lower: LayerDirectory[],
    overlay: boolean,
    signal: AbortSignal | undefined,
  ) {
    this.#upper = upper;
    this.#lower = lower;
    this.hasLower = lower.length > 0;
    this.#overlay = overlay;
    this.#signal = signal;
  }

  /** @param lookBelow false where it does not matter what the lower tree has at a path: nothing is then looked up there */
  static async open(request: DiffRequest, lookBelow = true): Promise<TreeComparison> {
    const { upper, lower, signal } = request;
    signal?.throwIfAborted();
    const overlay = checkStack(upper) !== 'plain';
    if (lower !== undefined && lower.directories.length > 0 && (checkStack(lower) !== 'plain') !== overlay) {
      throw invalidArgument('the two trees to compare must have whiteouts of the same form');
    }
    const opened: LayerDirectory[] = [];
    try {
      for (const directory of upper.directories) opened.push(await LayerDirectory.open(directory, true, signal));
      for (const directory of lower?.directories ?? [])
        opened.push(await LayerDirectory.open(directory, false, signal));
    } catch (error) {
      for (const layer of opened) await layer.close();
      throw error;
    }
    const comparison = new TreeComparison(
      opened.slice(0, upper.directories.length),
      opened.slice(upper.directories.length),
      overlay,
      signal,
    );
    comparison.#lookBelow = lookBelow;
    return comparison;
  }

  async close(): Promise<void> {
    for (const layer of [...this.#upper, ...this.#lower]) await layer.close();
  }

  /** Depth first, names of one directory in byte order, a directory before what is in it. The root is left out. */
  async *walk(): AsyncGenerator<Visit> {
    const root = (layer: LayerDirectory): Source => ({ layer, path: '' });
    const below = this.#lookBelow ? this.#lower.map(root) : [];
    // Of two plain trees, what the newer one lacks is gone: as if it were opaque.
    const way = [await this.#open('', this.#upper.map(root), below, !this.#overlay)];
    // A stack and not a generator in the other: there each visit would pass through every directory above it.
    for (let at = way.at(-1); at !== undefined; at = way.at(-1)) {
      const name = at.names[at.next++];
      if (name === undefined) {
        way.pop();
        continue;
      }
      this.#signal?.throwIfAborted();
      const path = at.path === '' ? name : `${at.path}/${name}`;
      const above = at.upperNames.has(name) ? await this.#find(at.upper, name) : undefined;
      const lower = await this.#find(at.lower, name);
      const lowerThere = lower !== undefined && !this.#whiteout(lower.stat) ? lower : undefined;
      if (above === undefined) {
        // Not where it went away since the directory was read.
        if (at.whole && lowerThere !== undefined) yield { kind: 'gone', path };
        continue;
      }
      if (this.#whiteout(above.stat)) {
        yield { kind: 'whiteout', path, source: above.source, lower: lowerThere !== undefined };
        continue;
      }
      const opaque = this.#overlay && above.stat.isDirectory() && above.closed;
      yield {
        kind: 'present',
        path,
        stat: above.stat,
        source: above.source,
        lower: lowerThere === undefined ? undefined : { stat: lowerThere.stat, source: lowerThere.source },
        opaque,
      };
      if (above.stat.isDirectory())
        way.push(await this.#open(path, above.merged, lowerThere?.merged ?? [], at.whole || opaque));
    }
  }

  /** Once all of the walk has been: {@link LayerDirectory.stripOverlayXattrs} of the topmost directory. */
  async stripOverlayXattrs(): Promise<void> {
    await this.#upper[0]?.stripOverlayXattrs();
  }

  /** Whether the upper tree has anything at `path`. Asked for paths in the order of a walk it costs the same at any depth. */
  async has(path: string): Promise<boolean> {
    const names = path.split('/');
    const last = names.pop() ?? '';
    let known = 0;
    while (known < names.length && this.#way[known]?.name === names[known]) known++;
    this.#way.length = known;
    const root = this.#upper.map((layer): Source => ({ layer, path: '' }));
    for (const name of names.slice(known)) {
      const found = await this.#find(this.#way.at(-1)?.merged ?? root, name);
      const there = found !== undefined && !this.#whiteout(found.stat);
      this.#way.push({ name, merged: there ? found.merged : [] });
    }
    const found = await this.#find(this.#way.at(-1)?.merged ?? root, last);
    return found !== undefined && !this.#whiteout(found.stat);
  }

  async #open(path: string, upper: Source[], lower: Source[], whole: boolean): Promise<WalkedDirectory> {
    const upperNames = await this.#names(upper);
    const gone = whole && lower.length > 0 ? await this.#names(lower) : [];
    const names = [...new Set([...upperNames, ...gone])].sort(byBytes);
    return { path, upper, lower, upperNames, names, next: 0, whole };
  }

  #whiteout(stat: BigIntStats): boolean {
    return this.#overlay && isWhiteout(stat);
  }

  async #names(sources: readonly Source[]): Promise<Set<string>> {
    const names = new Set<string>();
    for (const { layer, path } of sources) for (const name of await layer.names(path)) names.add(name);
    return names;
  }

  /** Looks a name up in directories that are merged, nearest first. */
  async #find(parents: readonly Source[], name: string): Promise<Found | undefined> {
    let found: Found | undefined;
    for (const [index, parent] of parents.entries()) {
      const path = parent.path === '' ? name : `${parent.path}/${name}`;
      const stat = await parent.layer.lstat(path);
      if (stat === undefined) continue;
      const source = { layer: parent.layer, path };
      if (found === undefined) {
        found = { stat, source, merged: [], closed: !stat.isDirectory() };
        if (!stat.isDirectory()) await this.#refuseMetacopy(source, stat);
      } else if (!stat.isDirectory()) {
        found.closed = true; // a file or a whiteout below a directory: the directory is a new one
      }
      if (!stat.isDirectory()) return found;
      found.merged.push(source);
      // The last of the lower stack hides nothing; the last of the upper one may hide the lower stack.
      const matters = this.#overlay && (index + 1 < parents.length || this.#upper.includes(parent.layer));
      if (!matters) continue;
      await this.#refuseRedirect(source);
      if (await parent.layer.isOpaque(path)) {
        found.closed = true;
        return found;
      }
    }
    return found;
  }

  async #refuseRedirect(source: Source): Promise<void> {
    if ((await source.layer.overlayXattr(source.path, 'redirect')) === undefined) return;
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `the directory "${source.layer.directory}/${shown(source.path)}" was renamed with redirect_dir=on, which the JavaScript engine cannot follow; mount with redirect_dir=off, or use the native engine`,
    );
  }

  async #refuseMetacopy(source: Source, stat: BigIntStats): Promise<void> {
    if (!this.#overlay || !stat.isFile() || !this.#upper.includes(source.layer)) return;
    if ((await source.layer.overlayXattr(source.path, 'metacopy')) === undefined) return;
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `the file "${source.layer.directory}/${shown(source.path)}" was copied up with metacopy=on, which the JavaScript engine cannot follow; mount with metacopy=off, or use the native engine`,
    );
  }
}

function checkStack(stack: TreeStack): TreeStack['whiteouts'] {
  if (stack.directories.length === 0) throw invalidArgument('a tree needs at least one directory');
  if (stack.whiteouts === 'plain' && stack.directories.length > 1) {
    throw invalidArgument('a plain tree is one directory; only trees in overlay form are stacked');
  }
  return stack.whiteouts;
}

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
