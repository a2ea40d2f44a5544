/** What lies under a directory: the kind of file system, its mount options, what the kernel knows. Reads only. */
import { readFile, stat, statfs } from 'node:fs/promises';
import { systemError } from '../errors.js';

/** Super block magic -> the name `docker info` shows for it. */
const MAGIC: Readonly<Record<number, string>> = {
  0xef53: 'extfs',
  0x58465342: 'xfs',
  0x9123683e: 'btrfs',
  0x01021994: 'tmpfs',
  0x794c7630: 'overlayfs',
  0x2fc12fc1: 'zfs',
  0x6969: 'nfs',
  0xf2f52010: 'f2fs',
  0xca451a4e: 'bcachefs',
  0x65735546: 'fuse',
  0x73717368: 'squashfs',
  0xe0f5e1e2: 'erofs',
};

/** Docker's word for the file system that holds `path`. */
export async function backingFileSystem(path: string): Promise<string> {
  try {
    const { type } = await statfs(path);
    return MAGIC[type >>> 0] ?? `0x${(type >>> 0).toString(16)}`;
  } catch (error) {
    throw systemError(error, 'look at the file system of');
  }
}

/** File system types that the kernel knows now. */
export async function kernelFileSystems(): Promise<ReadonlySet<string>> {
  const text = await readFile('/proc/filesystems', 'utf8');
  return new Set(text.split('\n').map((line) => line.split('\t')[1] ?? ''));
}

/** A parameter of the overlay module; `undefined` where the kernel has none of this name. */
export async function overlayParameter(name: string): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/module/overlay/parameters/${name}`, 'utf8')).trim();
  } catch {
    // Not there, or /sys is not mounted: the kernel's own default holds, and nothing is passed for it.
    return undefined;
  }
}

/** What is missing for a size limit of single directories (a project quota) below `path`; one clause. */
export async function missingForProjectQuota(path: string): Promise<string> {
  const { dev } = await stat(path);
  // st_dev as glibc packs it: 12 bits of major and 20 of minor are all that Linux gives.
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  const line = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .find((text) => text.split(' ')[2] === device);
  if (line === undefined) return 'the file system under it, which is in no mount of this process';
  const [type, , options] = line.slice(line.indexOf(' - ') + 3).split(' ');
  if (type !== 'xfs' && type !== 'ext4')
    return `a file system with project quotas: XFS or ext4, where "${path}" lies on ${type}`;
  const quotas = (options ?? '').split(',').some((option) => option === 'prjquota' || option === 'pquota');
  if (!quotas) return `the mount option "prjquota" on the ${type} file system that holds "${path}"`;
  return `a call for project quotas in the engine; ${type} under "${path}" would have them`;
}
