/** A directory tree as data: everything about it that a layer must keep, and a readable list of what differs. */
import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { readXattrs } from './xattrs.js';

/** One entry. `path` is absolute inside the tree, its bytes as latin1 text. */
export interface TreeEntry {
  path: string;
  type: 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket' | 'unknown';
  /** Permission bits with setuid, setgid and sticky, octal. */
  mode: string;
  owner: string;
  /** Seconds with nine digits behind the point. */
  mtime: string;
  /** Bytes; files only. */
  size?: number;
  /** SHA-256; files only. */
  content?: string;
  target?: string;
  /** `major:minor`, devices only. */
  device?: string;
  /** First path (in byte order) of the inode, where it has several names in this tree. */
  links?: string;
  xattrs?: Record<string, string>;
}

export interface SnapshotOptions {
  /** Default true, which costs a child process; or what {@link readXattrs} gave for the same directory. */
  xattrs?: boolean | ReadonlyMap<string, Record<string, string>>;
  /** Default true. */
  mtime?: boolean;
  /**
   * Default true. A driver that finds differences by comparing whole trees does not see that only a directory's time
   * changed, since that is no change by Docker's rules.
   */
  directoryTimes?: boolean;
  /** The root itself is left out: drivers decide its owner and mode. Default false. */
  root?: boolean;
  /** Entries for which it gives true are left out, with all below. */
  skip?: (path: string) => boolean;
}

/** Path -> entry, in byte order of path. */
export type TreeSnapshot = Map<string, TreeEntry>;

const NO_XATTRS: ReadonlyMap<string, Record<string, string>> = new Map();

/** Reads the tree at `directory`. */
export function snapshotTree(directory: string, options: SnapshotOptions = {}): TreeSnapshot {
  const { xattrs: wanted = true } = options;
  const xattrs = wanted === true ? readXattrs(directory) : wanted === false ? NO_XATTRS : wanted;
  const entries: TreeEntry[] = [];
  const names = new Map<string, string[]>();
  const inodes = new Map<string, string>();
  const visit = (path: string): void => {
    const full = Buffer.concat([Buffer.from(directory), Buffer.from(path, 'latin1')]);
    const stat = lstatSync(full, { bigint: true });
    const entry = entryOf(path === '' ? '/' : path, full, stat, options);
    const attributes = xattrs.get(entry.path);
    if (attributes !== undefined) entry.xattrs = attributes;
    if (path !== '' || options.root === true) entries.push(entry);
    if (!stat.isDirectory()) {
      const inode = `${stat.dev}:${stat.ino}`;
      inodes.set(entry.path, inode);
      const known = names.get(inode);
      if (known === undefined) names.set(inode, [entry.path]);
      else known.push(entry.path);
      return;
    }
    for (const name of readdirSync(full, { encoding: 'buffer' })) {
      const child = `${path}/${name.toString('latin1')}`;
      if (options.skip?.(child) !== true) visit(child);
    }
  };
  visit('');
  entries.sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const entry of entries) {
    const group = names.get(inodes.get(entry.path) ?? '');
    if (group !== undefined && group.length > 1) entry.links = [...group].sort()[0] ?? '';
  }
  return new Map(entries.map((entry) => [entry.path, entry]));
}

function entryOf(path: string, full: Buffer, stat: BigIntStats, options: SnapshotOptions): TreeEntry {
  const type = typeOf(stat);
  const entry: TreeEntry = {
    path,
    type,
    mode: (stat.mode & 0o7777n).toString(8),
    owner: `${stat.uid}:${stat.gid}`,
    mtime: timeMatters(options, stat.isDirectory()) ? timeOf(stat.mtimeNs) : '',
  };
  if (type === 'file') {
    entry.size = Number(stat.size);
    entry.content = createHash('sha256').update(readFileSync(full)).digest('hex');
  }
  if (type === 'symlink') entry.target = readlinkSync(full, { encoding: 'buffer' }).toString('latin1');
  if (type === 'char' || type === 'block') entry.device = deviceOf(stat.rdev);
  return entry;
}

function typeOf(stat: BigIntStats): TreeEntry['type'] {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'char';
  if (stat.isBlockDevice()) return 'block';
  if (stat.isFIFO()) return 'fifo';
  return stat.isSocket() ? 'socket' : 'unknown';
}

function timeOf(nanoseconds: bigint): string {
  const fraction = ((nanoseconds % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return `${(nanoseconds - fraction) / 1_000_000_000n}.${fraction.toString().padStart(9, '0')}`;
}

/** As glibc packs them (sys/sysmacros.h). */
function deviceOf(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

function timeMatters({ mtime = true, directoryTimes = true }: SnapshotOptions, directory: boolean): boolean {
  return mtime && (directoryTimes || !directory);
}

const FIELDS = ['type', 'mode', 'owner', 'mtime', 'size', 'content', 'target', 'device', 'links', 'xattrs'] as const;

/** One line for each thing that differs; empty where the trees are equal. */
export function diffTrees(expected: TreeSnapshot, found: TreeSnapshot): string[] {
  const lines: string[] = [];
  for (const [path, entry] of expected) {
    const other = found.get(path);
    if (other === undefined) {
      lines.push(`${shown(path)}: missing (expected ${entry.type} ${entry.mode} ${entry.owner})`);
      continue;
    }
    for (const field of FIELDS) {
      const [a, b] = [entry[field], other[field]].map((value) =>
        value === undefined ? 'none' : JSON.stringify(value),
      );
      if (a !== b) lines.push(`${shown(path)}: ${field} expected ${a ?? ''}, found ${b ?? ''}`);
    }
  }
  for (const [path, entry] of found) {
    if (!expected.has(path))
      lines.push(`${shown(path)}: not expected (found ${entry.type} ${entry.mode} ${entry.owner})`);
  }
  return lines;
}

function shown(path: string): string {
  return JSON.stringify(path);
}

/** Throws with the first lines of the difference. */
export function assertSameTree(expected: TreeSnapshot, found: TreeSnapshot, what: string): void {
  const lines = diffTrees(expected, found);
  if (lines.length === 0) return;
  const rest = lines.length > 30 ? `\n  … and ${lines.length - 30} more` : '';
  throw new Error(`${what}: the trees differ\n  ${lines.slice(0, 30).join('\n  ')}${rest}`);
}
