/**
 * Extended attributes by way of the commands setfattr and getfattr (Node has no call for them), many at a time.
 * Paths and names are latin1 text that stands for bytes.
 */
import { constants } from 'node:fs';
import { LayerStoreError } from '../../errors.js';
import { commandError, run, runOk } from './command.js';
import { O_PATH } from './directory.js';
import * as fs from './fs.js';
import { TreeRoot, type Place } from './tree-root.js';

/** Files handed to one run of a command. */
const DESCRIPTORS = 200;

/** Name (latin1) and value. */
export type Xattr = readonly [name: string, value: Buffer];

export interface XattrItem {
  /** Latin1 text of the path's bytes; relative to `cwd`. */
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

/**
 * Sets attributes, links not followed. A path's last component is used as it is, its parents are followed: callers give
 * paths whose parents they know to be directories.
 */
export async function setXattrs(items: readonly XattrItem[], options: SetOptions = {}): Promise<void> {
  const failures = await restore(items, options);
  if (failures !== undefined) throw failures.error(failures.lines);
}

/** The same, but what the file system does not have (EOPNOTSUPP) is left out. Gives the number of those. */
export async function setSupportedXattrs(items: readonly XattrItem[], options: SetOptions = {}): Promise<number> {
  const failures = await restore(items, options);
  if (failures === undefined) return 0;
  const serious = failures.lines.filter((line) => !line.endsWith('Operation not supported'));
  if (serious.length > 0 || failures.lines.length === 0) throw failures.error(serious);
  return failures.lines.length;
}

interface SetOptions {
  cwd?: string;
  signal?: AbortSignal;
}

/** What the command says of attributes that it could not set, a line each: it goes on after each. */
async function restore(
  items: readonly XattrItem[],
  options: SetOptions,
): Promise<{ lines: string[]; error: (lines: readonly string[]) => LayerStoreError } | undefined> {
  if (items.length === 0) return undefined;
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
    ...options,
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
 * Removes one attribute of many paths below `directory` ('' is itself), links not followed. Names of files are handed over
 * by descriptor, since arguments of commands are text.
 */
export async function removeXattrs(
  directory: string,
  name: string,
  all: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const root = await TreeRoot.open(directory);
  const options = {
    purpose: 'remove extended attributes',
    syscall: 'lremovexattr',
    ...(signal === undefined ? {} : { signal }),
  };
  try {
    for (let at = 0; at < all.length; at += DESCRIPTORS) {
      const fds: number[] = [];
      try {
        for (const path of all.slice(at, at + DESCRIPTORS)) {
          fds.push(await root.at(path, (place) => fs.open(place.path, O_PATH | constants.O_NOFOLLOW)));
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
  } finally {
    await root.close();
  }
}

/**
 * Attributes of everything in a directory: path below it (latin1, '' for itself) -> attributes, in byte order of name.
 * Files without any are left out.
 *
 * @param match regular expression of getfattr's `-m`; `-` for all
 */
export async function readTreeXattrs(
  directory: string,
  options: { match?: string; signal?: AbortSignal } = {},
): Promise<Map<string, Xattr[]>> {
  const parser = new DumpParser();
  const result = await run('getfattr', ['-R', '-P', '-h', '-d', '-e', 'hex', '-m', options.match ?? '-', '--', '.'], {
    purpose: 'read extended attributes',
    cwd: directory,
    onOutput: (chunk) => parser.push(chunk),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  checkRead(result.exitCode, result.stderr, directory);
  return parser.finish((path) => (path === '.' ? '' : path.replace(/^\.\//, '')));
}

function checkRead(exitCode: number, stderr: string, what: string): void {
  if (exitCode === 0) return;
  // A live tree changes while it is read: what has gone has no attributes. Sockets and the like may refuse some.
  const serious = stderr.split('\n').filter((line) => line !== '' && !line.endsWith('No such file or directory'));
  if (serious.length === 0) return;
  throw new LayerStoreError('ERR_SYSTEM', `cannot read the extended attributes of "${what}": ${serious[0] ?? ''}`, {
    detail: stderr,
    path: what,
    syscall: 'llistxattr',
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
