/** Paths of entries. Latin1 text that stands for bytes. */
import { LayerStoreError } from '../errors.js';
import { shown } from './errors.js';

/**
 * `path`, taken from the directory `from`, as Go's path.Clean cleans it: by letters, links not looked at; absolute paths
 * start at the root. Without leading slash, '' is the root. `undefined` for a path that leaves the root.
 */
export function cleanPath(path: string, from = ''): string | undefined {
  // Most paths are clean already.
  if (from === '' && !/(^|\/)(\.{0,2})(\/|$)/.test(path)) return path;
  const absolute = path.startsWith('/');
  const parts = absolute || from === '' ? [] : from.split('/');
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined && !absolute) return undefined;
  }
  return parts.join('/');
}

/** Components of a path where it is deepest on the way: `a/b/../c` has two. */
export function pathDepth(path: string): number {
  let depth = 0;
  let deepest = 0;
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    depth = part === '..' ? Math.max(depth - 1, 0) : depth + 1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

/** The directory that holds a clean path. */
export function parentPath(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf('/'), 0));
}

/** Path below the layer's root of an entry's name. One that leaves the root is ERR_UNSAFE_PATH. */
export function treePath(name: string, offset: number): string {
  const path = cleanPath(name);
  if (path !== undefined) return path;
  throw new LayerStoreError(
    'ERR_UNSAFE_PATH',
    `the tar names "${shown(name)}", which lies outside the layer, at byte ${String(offset)}`,
    { path: shown(name), offset },
  );
}
