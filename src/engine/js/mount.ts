/** Overlay mounts by the commands mount and umount; the mount table and the holders of a busy mount, both from /proc. */
import { mkdtemp, readFile, readdir, readlink, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { type Holder, invalidArgument, LayerStoreError, systemError } from '../../errors.js';
import { Rollback } from '../../util/rollback.js';
import type { DeferredTeardown, MountEntry, MountTier, OverlayMount } from '../engine.js';
import { runBatch } from './batch.js';
import { commandError, run } from './command.js';
import * as fs from './fs.js';

/** mount(2) takes at most a page of bytes of options, the final NUL included. 4 KiB is the page of every platform Node runs on but some arm64. */
export const MAX_MOUNT_DATA = 4_095;

// The kernel splits options at commas and lower directories at colons; both can be escaped, but mount(8) of different
// ages unescape differently. Such paths are reached by a short link instead.
const SPECIAL = /[,:\\"\s]/;

interface Plan {
  cwd: string;
  data: string;
}

/** See {@link Engine.mountOverlay}. Always the classic tier. */
export async function mountOverlay(mount: OverlayMount): Promise<MountTier> {
  if (mount.lowers.length === 0) {
    throw invalidArgument(`cannot mount "${mount.target}": an overlay needs at least one lower directory`);
  }
  const first = await tryMount(mount, mount.lowers);
  if (first === undefined) return 'classic';
  if (mount.upper !== undefined || mount.lowers.length > 1 || first.errnoName !== 'EINVAL') throw first;
  // Kernels before 6.8 want two lower directories for a read-only mount: the empty mount point itself is the other.
  const second = await tryMount(mount, [mount.target, ...mount.lowers]);
  if (second !== undefined) throw second;
  return 'classic';
}

async function tryMount(mount: OverlayMount, lowers: readonly string[]): Promise<LayerStoreError | undefined> {
  const direct = planDirect(mount, lowers);
  if (direct !== undefined) return runMount(mount, direct);
  let folder: string;
  try {
    folder = await mkdtemp(join(tmpdir(), 'layerstore-mount-'));
  } catch (error) {
    throw systemError(error, 'make a scratch directory for a mount', 'set TMPDIR to a directory that can be written');
  }
  try {
    return await runMount(mount, await planLinks(mount, lowers, folder));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function optionData(
  mount: OverlayMount,
  lowers: readonly string[],
  upper: string | undefined,
  work: string | undefined,
): string {
  const parts = [...mount.options, `lowerdir=${lowers.join(':')}`];
  if (upper !== undefined) parts.push(`upperdir=${upper}`, `workdir=${work ?? ''}`);
  return parts.join(',');
}

/** Absolute paths where they fit, else paths relative to the directory that all lower ones share. */
function planDirect(mount: OverlayMount, lowers: readonly string[]): Plan | undefined {
  const all = [...lowers, ...(mount.upper === undefined ? [] : [mount.upper, mount.work ?? ''])];
  if (all.some((path) => SPECIAL.test(path))) return undefined;
  const absolute = optionData(mount, lowers, mount.upper, mount.work);
  if (Buffer.byteLength(absolute) <= MAX_MOUNT_DATA) return { cwd: '/', data: absolute };
  const home = commonDirectory(all);
  const short = (path: string): string => relative(home, path) || '.';
  const data = optionData(
    mount,
    lowers.map(short),
    mount.upper === undefined ? undefined : short(mount.upper),
    mount.work === undefined ? undefined : short(mount.work),
  );
  return Buffer.byteLength(data) <= MAX_MOUNT_DATA ? { cwd: home, data } : undefined;
}

function commonDirectory(paths: readonly string[]): string {
  let common = dirname(resolve(paths[0] ?? '/'));
  for (const path of paths) {
    while (common !== '/' && !resolve(path).startsWith(`${common}/`)) common = dirname(common);
  }
  return common;
}

/** One short symbolic link a directory, in a scratch directory that the mount does not need once it is made. */
async function planLinks(mount: OverlayMount, lowers: readonly string[], folder: string): Promise<Plan> {
  const linkTo = async (path: string, name: string): Promise<string> => {
    await fs.symlink(path, join(folder, name));
    return name;
  };
  const names: string[] = [];
  for (const [index, path] of lowers.entries()) names.push(await linkTo(path, index.toString(36)));
  const upper = mount.upper === undefined ? undefined : await linkTo(mount.upper, 'U');
  const work = mount.work === undefined ? undefined : await linkTo(mount.work, 'W');
  const data = optionData(mount, names, upper, work);
  if (Buffer.byteLength(data) > MAX_MOUNT_DATA) {
    const spare = MAX_MOUNT_DATA - Buffer.byteLength(optionData(mount, [], upper, work));
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `cannot mount "${mount.target}": ${String(lowers.length)} lower directories do not fit the ${String(MAX_MOUNT_DATA)} bytes of ` +
        `options that mount(2) takes, about ${String(Math.floor(spare / 3))} do; the native engine on Linux 6.7 or later has no such limit`,
      { path: mount.target },
    );
  }
  return { cwd: folder, data };
}

async function runMount(mount: OverlayMount, plan: Plan): Promise<LayerStoreError | undefined> {
  // -i: no mount.overlay helper; -c: paths are used as they are.
  const result = await run('mount', ['-i', '-c', '-t', 'overlay', '-o', plan.data, '--', 'overlay', mount.target], {
    purpose: 'mount an overlay',
    cwd: plan.cwd,
  });
  if (result.exitCode === 0) return undefined;
  return commandError('mount', result, { purpose: 'mount an overlay on', path: mount.target, syscall: 'mount' });
}

/** See {@link Engine.unmount}. */
export async function unmount(target: string, options: { detach?: boolean } = {}): Promise<void> {
  const result = await run('umount', ['-i', '-c', ...(options.detach === true ? ['-l'] : []), '--', target], {
    purpose: 'unmount',
  });
  if (result.exitCode === 0) return;
  const error = commandError('umount', result, { purpose: 'unmount', path: target, syscall: 'umount2' });
  if (error.errnoName !== 'EBUSY') throw error;
  const top = (await readMounts(target))[0]?.target ?? target;
  const holders = await findHolders(top);
  const who = holders.map(({ pid, command }) => `${command} (pid ${String(pid)})`).join(', ');
  throw new LayerStoreError(
    'ERR_SYSTEM',
    `cannot unmount "${target}": it is busy; ${who === '' ? 'no process that this one may look at holds it' : `it is held by ${who}`}`,
    { errno: -16, errnoName: 'EBUSY', syscall: 'umount2', path: target, holders },
  );
}

/** See {@link Engine.mountOnNewTarget}. */
export async function mountOnNewTarget(
  mount: OverlayMount,
  mode: number,
): Promise<{ tier: MountTier; device: number }> {
  const { target } = mount;
  await runBatch([{ op: 'mkdir', path: target, mode }]);
  const undo = new Rollback(() => {
    // The first failure is the one to tell; a mount point that stays is found by the next mount.
  });
  undo.push('remove the mount point', () => fs.rmdir(target));
  try {
    const tier = await mountOverlay(mount);
    undo.push('unmount', () => unmount(target, { detach: true }));
    return { tier, device: await deviceOf(target) };
  } catch (error) {
    await undo.run();
    throw systemError(error, 'look at the mount on');
  }
}

/** See {@link Engine.unmountAndRemove}. The command waits for the end of the file system, so nothing is left to a teardown. */
export async function unmountAndRemove(target: string, device: number): Promise<'removed' | 'target-left' | 'foreign'> {
  const found = await deviceOf(target).catch(() => undefined); // what cannot be looked at is not this mount
  if (found !== device) return 'foreign';
  await unmount(target);
  try {
    await fs.rmdir(target);
  } catch (error) {
    if (fs.errnoName(error) !== 'ENOENT') return 'target-left';
  }
  return 'removed';
}

/** See {@link Engine.deferredTeardown}: there is never anything to end. */
export function deferredTeardown(): DeferredTeardown {
  return { end: () => Promise.resolve() };
}

async function deviceOf(path: string): Promise<number> {
  return Number((await fs.stat(path)).dev);
}

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
      if (!['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(fs.errnoName(error) ?? '')) throw error;
    }
  }
  return holders;
}

async function holds(process: string, inside: (path: string) => boolean): Promise<boolean> {
  const leadsInside = async (link: string): Promise<boolean> => {
    // Closed since it was listed, or so deep that the kernel cannot write its path: that is no reason to tell nothing.
    const path = await fs.unlessErrno(readlink(link), 'ENOENT', 'ENAMETOOLONG');
    return path !== undefined && inside(path);
  };
  for (const link of ['cwd', 'root']) if (await leadsInside(`${process}/${link}`)) return true;
  for (const fd of await readdir(`${process}/fd`)) if (await leadsInside(`${process}/fd/${fd}`)) return true;
  const maps = await readFile(`${process}/maps`, 'utf8');
  return maps.split('\n').some((line) => {
    const at = line.indexOf('/');
    return at >= 0 && inside(line.slice(at));
  });
}
