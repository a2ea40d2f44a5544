/**
 * TreeComparison: what a tree (directories stacked as overlayfs stacks them, or one plain directory) has on top of
 * another. The upper tree is walked; the lower one is looked at only where the upper one covers it.
 */
import type { BigIntStats } from 'node:fs';
import { LayerStoreError } from '../../errors.js';
import { shown } from '../../tar/errors.js';
import type { DiffRequest, TreeStack } from '../engine.js';
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
      throw new LayerStoreError(
        'ERR_INVALID_ARGUMENT',
        'the two trees to compare must have whiteouts of the same form',
      );
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
  walk(): AsyncGenerator<Visit> {
    const root = (layer: LayerDirectory): Source => ({ layer, path: '' });
    // Of two plain trees, what the newer one lacks is gone: as if it were opaque.
    return this.#directory('', this.#upper.map(root), this.#lookBelow ? this.#lower.map(root) : [], !this.#overlay);
  }

  /** Whether the upper tree has anything at `path`. */
  async has(path: string): Promise<boolean> {
    let parents = this.#upper.map((layer): Source => ({ layer, path: '' }));
    for (const name of path.split('/')) {
      const found = await this.#find(parents, name);
      if (found === undefined || this.#whiteout(found.stat)) return false;
      parents = found.merged;
    }
    return true;
  }

  async *#directory(path: string, upper: Source[], lower: Source[], whole: boolean): AsyncGenerator<Visit> {
    const names = await this.#names(upper);
    const gone = whole && lower.length > 0 ? await this.#names(lower) : new Set<string>();
    for (const name of [...new Set([...names, ...gone])].sort(byBytes)) {
      this.#signal?.throwIfAborted();
      const child = path === '' ? name : `${path}/${name}`;
      const above = names.has(name) ? await this.#find(upper, name) : undefined;
      const below = await this.#find(lower, name);
      const belowThere = below !== undefined && !this.#whiteout(below.stat) ? below : undefined;
      if (above === undefined) {
        if (belowThere !== undefined) yield { kind: 'gone', path: child };
        continue;
      }
      if (this.#whiteout(above.stat)) {
        yield { kind: 'whiteout', path: child, source: above.source, lower: belowThere !== undefined };
        continue;
      }
      const opaque = this.#overlay && above.stat.isDirectory() && above.closed;
      yield {
        kind: 'present',
        path: child,
        stat: above.stat,
        source: above.source,
        lower: belowThere === undefined ? undefined : { stat: belowThere.stat, source: belowThere.source },
        opaque,
      };
      if (above.stat.isDirectory())
        yield* this.#directory(child, above.merged, belowThere?.merged ?? [], whole || opaque);
    }
  }

  #whiteout(stat: BigIntStats): boolean {
    return this.#overlay && isWhiteout(stat);
  }

  async #names(sources: readonly Source[]): Promise<Set<string>> {
    const names = new Set<string>();
    for (const { layer, path } of sources) for (const { name } of await layer.list(path)) names.add(name);
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
  if (stack.directories.length === 0)
    throw new LayerStoreError('ERR_INVALID_ARGUMENT', 'a tree needs at least one directory');
  if (stack.whiteouts === 'plain' && stack.directories.length > 1) {
    throw new LayerStoreError(
      'ERR_INVALID_ARGUMENT',
      'a plain tree is one directory; only trees in overlay form are stacked',
    );
  }
  return stack.whiteouts;
}
