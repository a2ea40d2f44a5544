/** Overlay mounts by the commands mount and umount. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { LayerStoreError, systemError } from '../../errors.js';
import type { MountTier, OverlayMount } from '../engine.js';
import { commandError, run } from './command.js';
import * as fs from './fs.js';
import { findHolders, readMounts } from './mount-table.js';

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
    throw new LayerStoreError(
      'ERR_INVALID_ARGUMENT',
      `cannot mount "${mount.target}": an overlay needs at least one lower directory`,
    );
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
