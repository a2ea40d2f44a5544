/**
 * Extended attributes by way of the commands setfattr and getfattr (Node has no call for them), many at a time.
 * Paths and names are latin1 text that stands for bytes. The commands pass whole paths to the kernel, which takes at most
 * 4,095 bytes: so a tree is cut into regions, each of them the work of one run that starts in the region's own directory.
 */
import { constants } from 'node:fs';
import { LayerStoreError } from '../../errors.js';
import { commandError, run, runOk } from './command.js';
import { O_PATH, type OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import type { Place, TreeRoot } from './tree-root.js';
import { defined } from '../../util/defined.js';

/** Files handed to one run of a command. */
const DESCRIPTORS = 200;
/** Where a directory's path gets longer than this a new region begins: with one more name it fits the kernel's limit still. */
const REGION = 3584;

/** Name (latin1) and value. */
export type Xattr = readonly [name: string, value: Buffer];

export interface XattrItem {
  /** Latin1 text of the path's bytes, below a root or absolute. */
  path: string;
  xattrs: readonly Xattr[];
}

// As getfattr writes its dumps: every byte that could end a line or a name as \ooo.
function quote(text: string): string {
  return text.replace(
    /[\x00-\x20\\=\x7f-\xff]/g,
    (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
}

function unquote(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}

/** The region that a path is in: its directory, '' for the first, and where in the path the name within it begins. */
export function regionOf(path: string): { directory: string; start: number } {
  const region = { directory: '', start: 0 };
  for (;;) {
    const slash = path.indexOf('/', region.start + REGION);
    if (slash < 0) return region;
    region.directory = path.slice(0, slash);
    region.start = slash + 1;
  }
}

/** Sets attributes at an absolute path that the caller trusts; a link in its last component is not followed. */
export async function setXattr(path: string, xattr: Xattr): Promise<void> {
  const failures = await restore([{ path, xattrs: [xattr] }], undefined, undefined);
  if (failures !== undefined) throw failures.error(failures.lines);
}

/**
 * Sets attributes below a root, links not followed. A path's last component is used as it is, its parents are followed:
 * callers give paths whose parents they know to be directories.
 */
export async function setXattrs(
  items: readonly XattrItem[],
  root: TreeRoot,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const failures of await restoreBelow(items, root, signal)) throw failures.error(failures.lines);
}

/** The same, but what the file system does not have (EOPNOTSUPP) is left out. Gives the number of those. */
export async function setSupportedXattrs(
  items: readonly XattrItem[],
  root: TreeRoot,
  signal: AbortSignal | undefined,
): Promise<number> {
  let unsupported = 0;
  for (const failures of await restoreBelow(items, root, signal)) {
    const serious = failures.lines.filter((line) => !line.endsWith('Operation not supported'));
    if (serious.length > 0 || failures.lines.length === 0) throw failures.error(serious);
    unsupported += failures.lines.length;
  }
  return unsupported;
}

/** What the command says of attributes that it could not set, a line each: it goes on after each. */
interface Failures {
  lines: string[];
  error: (lines: readonly string[]) => LayerStoreError;
}

async function restoreBelow(
  items: readonly XattrItem[],
  root: TreeRoot,
  signal: AbortSignal | undefined,
): Promise<Failures[]> {
  const regions = new Map<string, XattrItem[]>();
  for (const { path, xattrs } of items) {
    const { directory, start } = regionOf(path);
    const region = regions.get(directory) ?? [];
    region.push({ path: path.slice(start), xattrs });
    regions.set(directory, region);
  }
  const failures: Failures[] = [];
  for (const [path, inside] of regions) {
    const failed = await root.in(path, (directory) => restore(inside, directory, signal));
    if (failed !== undefined) failures.push(failed);
  }
  return failures;
}

async function restore(
  items: readonly XattrItem[],
  directory: OpenDirectory | undefined,
  signal: AbortSignal | undefined,
): Promise<Failures | undefined> {
  const dump: string[] = [];
  for (const { path, xattrs } of items) {
    dump.push(`# file: ${quote(path)}`);
    for (const [name, value] of xattrs) dump.push(`${quote(name)}=0x${value.toString('hex')}`);
    dump.push('');
  }
  const about = {
    purpose: 'set extended attributes',
    input: `${dump.join('\n')}\n`,
    syscall: 'lsetxattr',
    ...(items.length === 1 && items[0] !== undefined ? { path: Buffer.from(items[0].path, 'latin1').toString() } : {}),
    ...(directory === undefined ? {} : { cwd: directory.at('').toString() }),
    ...defined({ signal }),
  };
  const result = await run('setfattr', ['-h', '--restore=-'], about);
  if (result.exitCode === 0) return undefined;
  const lines = result.stderr.split('\n').filter((line) => line !== '');
  return { lines, error: (some) => commandError('setfattr', { ...result, stderr: some.join('\n') }, about) };
}

/** False: the file system of a place has no attributes of this kind at all (EOPNOTSUPP, where ENODATA says "none set"). */
export async function hasXattrKind(place: Place, name: string): Promise<boolean> {
  const fd = await fs.open(place.path, O_PATH | constants.O_NOFOLLOW);
  try {
    const result = await run('getfattr', ['-n', name, '--', '/proc/self/fd/3'], {
      purpose: 'read an extended attribute',
      fds: [fd],
    });
    return !result.stderr.includes('Operation not supported');
  } finally {
    await fs.close(fd);
  }
}

/** Removes one attribute, links not followed. */
export async function removeXattr(path: string, name: string, missingOk: boolean): Promise<void> {
  try {
    await runOk('setfattr', ['-h', '-x', name, '--', path], {
      purpose: 'remove an extended attribute of',
      path,
      syscall: 'lremovexattr',
    });
  } catch (error) {
    if (missingOk && LayerStoreError.is(error) && (error.errnoName === 'ENODATA' || error.errnoName === 'ENOENT'))
      return;
    throw error;
  }
}

/**
 * Removes one attribute of many paths below a root ('' is itself), those that are still there, links not followed. Names of files are handed over
 * by descriptor, since arguments of commands are text.
 */
export async function removeXattrs(
  root: TreeRoot,
  name: string,
  all: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const options = {
    purpose: 'remove extended attributes',
    syscall: 'lremovexattr',
    ...defined({ signal }),
  };
  for (let at = 0; at < all.length; at += DESCRIPTORS) {
    const fds: number[] = [];
    try {
      for (const path of all.slice(at, at + DESCRIPTORS)) {
        const fd = await root.at(path, (place) =>
          fs.unlessErrno(fs.open(place.path, O_PATH | constants.O_NOFOLLOW), 'ENOENT'),
        );
        if (fd !== undefined) fds.push(fd);
      }
      const paths = fds.map((_, index) => `/proc/self/fd/${String(index + 3)}`);
      const result = await run('setfattr', ['-x', name, '--', ...paths], { ...options, fds });
      // Of two names of one file the first took it off both. The command goes on after each.
      const serious = result.stderr.split('\n').filter((line) => line !== '' && !line.endsWith('No such attribute'));
      if (serious.length > 0) throw commandError('setfattr', { ...result, stderr: serious.join('\n') }, options);
    } finally {
      for (const fd of fds) await fs.close(fd);
    }
  }
}

/**
 * Attributes of everything in a region: path within it (latin1, '' for its directory) -> attributes, in byte order of name.
 * Files without any are left out. Some of what lies in the regions below comes too.
 *
 * @param region the region's directory, see {@link regionOf}
 * @param match regular expression of getfattr's `-m`; `-` for all
 */
export function readRegionXattrs(
  root: TreeRoot,
  region: string,
  match: string,
  signal: AbortSignal | undefined,
): Promise<Map<string, Xattr[]>> {
  const shown = root.describe(region);
  return root.in(region, async (directory) => {
    const parser = new DumpParser();
    const result = await run('getfattr', ['-R', '-P', '-h', '-d', '-e', 'hex', '-m', match, '--', '.'], {
      purpose: 'read extended attributes',
      cwd: directory.at('').toString(),
      onOutput: (chunk) => parser.push(chunk),
      // A live tree changes while it is read: what has gone has no attributes. Longer paths are those of other regions.
      harmless: (line) => /: (No such file or directory|File name too long)$/.test(line),
      ...defined({ signal }),
    });
    if (result.exitCode !== 0 && result.stderr !== '') {
      const first = result.stderr.split('\n')[0] ?? '';
      throw new LayerStoreError('ERR_SYSTEM', `cannot read the extended attributes of "${shown}": ${first}`, {
        detail: result.stderr,
        path: shown,
        syscall: 'llistxattr',
      });
    }
    return parser.finish((path) => (path === '.' ? '' : path.replace(/^\.\//, '')));
  });
}

/** Reads getfattr's dump as it streams in. */
class DumpParser {
  #rest = '';
  #path: string | undefined;
  readonly #found = new Map<string, Xattr[]>();

  push(chunk: Buffer): void {
    const lines = (this.#rest + chunk.toString('latin1')).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line);
  }

  #line(line: string): void {
    if (line.startsWith('# file: ')) {
      this.#path = unquote(line.slice(8));
      this.#found.set(this.#path, []);
      return;
    }
    if (line === '' || this.#path === undefined) return;
    const equals = line.indexOf('=');
    const name = unquote(equals < 0 ? line : line.slice(0, equals));
    const value = equals < 0 ? Buffer.alloc(0) : Buffer.from(line.slice(equals + 3), 'hex');
    this.#found.get(this.#path)?.push([name, value]);
  }

  finish(rename: (path: string) => string): Map<string, Xattr[]> {
    const sorted = new Map<string, Xattr[]>();
    for (const [path, xattrs] of this.#found) {
      if (xattrs.length > 0)
        sorted.set(
          rename(path),
          xattrs.sort(([a], [b]) => (a < b ? -1 : 1)),
        );
    }
    return sorted;
  }
}
