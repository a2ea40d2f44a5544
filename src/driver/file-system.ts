/** What lies under a directory: the kind of file system, its mount options, what the kernel knows. Reads only. */
import { access, readFile, stat, statfs } from 'node:fs/promises';
import { release } from 'node:os';
import { gunzipSync } from 'node:zlib';
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

/** What decides whether the size of a single directory could be limited, which takes a project quota. */
export interface QuotaFacts {
  /** As {@link backingFileSystem} names it. */
  readonly fileSystem: string;
  /** Options of the mounted file system. */
  readonly mountOptions: readonly string[];
  /** Whether the kernel was built with project quotas for this file system; `undefined` where it does not tell. */
  readonly kernel: boolean | undefined;
}

/** Build options of the kernel without which a file system has no project quotas. */
const QUOTA_CONFIG: Readonly<Record<string, readonly string[]>> = {
  xfs: ['CONFIG_XFS_QUOTA'],
  extfs: ['CONFIG_QUOTA', 'CONFIG_QFMT_V2'],
};

/** Looks at the file system that holds `path` and at the running kernel. */
export async function quotaFacts(path: string): Promise<QuotaFacts> {
  const fileSystem = await backingFileSystem(path);
  const { dev } = await stat(path);
  // st_dev as glibc packs it: 12 bits of major and 20 of minor are all that Linux gives.
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  const line = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .find((text) => text.split(' ')[2] === device);
  const [, , options = ''] = line?.slice(line.indexOf(' - ') + 3).split(' ') ?? [];
  return { fileSystem, mountOptions: options.split(','), kernel: await kernelHasProjectQuota(fileSystem) };
}

async function kernelHasProjectQuota(fileSystem: string): Promise<boolean | undefined> {
  // XFS shows its quota counters exactly where it was built with quotas, and its others wherever it is there.
  if (fileSystem === 'xfs' && (await isThere('/proc/fs/xfs/stat'))) return isThere('/proc/fs/xfs/xqmstat');
  const wanted = QUOTA_CONFIG[fileSystem];
  const config = wanted === undefined ? undefined : await kernelConfig();
  return config === undefined ? undefined : wanted?.every((option) => new RegExp(`^${option}=[ym]$`, 'm').test(config));
}

/** The options that the running kernel was built with; `undefined` where they are not to be read. */
async function kernelConfig(): Promise<string | undefined> {
  try {
    return gunzipSync(await readFile('/proc/config.gz')).toString();
  } catch {
    // Built without IKCONFIG, as most distributions do, which put a copy beside the kernel.
  }
  return readFile(`/boot/config-${release()}`, 'utf8').catch(() => undefined);
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Why no project quota can be had there, as the end of "a project quota, which …"; `undefined` where nothing is missing. */
export function missingForQuota(path: string, { fileSystem, mountOptions, kernel }: QuotaFacts): string | undefined {
  const wanted = QUOTA_CONFIG[fileSystem];
  if (wanted === undefined) return `only XFS and ext4 have, and "${path}" is on ${fileSystem}`;
  const name = fileSystem === 'xfs' ? 'XFS' : 'ext4';
  if (mountOptions.some((option) => option === 'prjquota' || option === 'pquota')) return undefined;
  if (kernel === false) return `the running kernel lacks for ${name}: it was built without ${wanted.join(' and ')}`;
  return `${name} has only with the mount option "prjquota", and "${path}" is mounted without`;
}
