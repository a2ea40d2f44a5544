/** The mount table of this process and the processes that keep a mount busy, both from /proc. */
import { readFile, readdir, readlink, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Holder } from '../../errors.js';
import { systemError } from '../../errors.js';
import type { MountEntry } from '../engine.js';
import { errnoName } from './fs.js';

function unescape(field: string): string {
  if (!field.includes('\\')) return field;
  return Buffer.from(
    Buffer.from(field)
      .toString('latin1')
      .replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8))),
    'latin1',
  ).toString();
}

/** One line of proc(5)'s mountinfo; `undefined` where it is none. */
export function parseMountLine(line: string): MountEntry | undefined {
  const [left, right] = line.split(' - ', 2);
  if (left === undefined || right === undefined) return undefined;
  const [id, parent, , root, target] = left.split(' ');
  const [fsType, source, options] = right.split(' ');
  if (root === undefined || target === undefined || fsType === undefined || source === undefined) return undefined;
  return {
    id: Number(id),
    parent: Number(parent),
    fsType,
    source: unescape(source),
    target: unescape(target),
    root: unescape(root),
    options: unescape(options ?? ''),
  };
}

/** Mounts at or below `directory`, in mount order. */
export async function readMounts(directory: string): Promise<MountEntry[]> {
  let text: string;
  let top = resolve(directory);
  try {
    text = await readFile('/proc/self/mountinfo', 'utf8');
    // The kernel writes real paths.
    top = await realpath(top);
  } catch (error) {
    // What cannot be resolved (any more) is compared as it is written.
    if (text! === undefined) throw systemError(error, 'read the mount table', 'mount /proc');
  }
  const below = top === '/' ? '/' : `${top}/`;
  const entries: MountEntry[] = [];
  for (const line of text!.split('\n')) {
    const entry = parseMountLine(line);
    if (entry !== undefined && (entry.target === top || entry.target.startsWith(below))) entries.push(entry);
  }
  return entries;
}

/** Processes whose working directory, root, open files or maps lie at or below `target`. */
export async function findHolders(target: string): Promise<Holder[]> {
  const below = `${target}/`;
  const inside = (path: string): boolean => path === target || path.startsWith(below);
  const holders: Holder[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (await holds(`/proc/${name}`, inside)) {
        holders.push({ pid: Number(name), command: (await readFile(`/proc/${name}/comm`, 'utf8')).trim() });
      }
    } catch (error) {
      // The process has ended, or is not ours to look at: then it cannot be named.
      if (!['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(errnoName(error) ?? '')) throw error;
    }
  }
  return holders;
}

async function holds(process: string, inside: (path: string) => boolean): Promise<boolean> {
  for (const link of ['cwd', 'root']) {
    if (inside(await readlink(`${process}/${link}`))) return true;
  }
  for (const fd of await readdir(`${process}/fd`)) {
    try {
      if (inside(await readlink(`${process}/fd/${fd}`))) return true;
    } catch (error) {
      if (errnoName(error) !== 'ENOENT') throw error; // closed since it was listed
    }
  }
  const maps = await readFile(`${process}/maps`, 'utf8');
  return maps.split('\n').some((line) => {
    const at = line.indexOf('/');
    return at >= 0 && inside(line.slice(at));
  });
}
