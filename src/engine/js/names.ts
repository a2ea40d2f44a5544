/** Names and attributes of tar entries: what whiteouts mean, and what limits allow. Latin1 text that stands for bytes. */
import { LayerStoreError } from '../../errors.js';
import { badTar, overLimit, shown } from '../../tar/errors.js';
import { isHeaderOnly } from '../../tar/header.js';
import { pathDepth, treePath } from '../../tar/path.js';
import type { TarEntry } from '../../tar/reader.js';
import type { Privilege } from '../engine.js';
import type { CompleteLimits } from '../limits.js';

/** {@link treePath} of a name in an archive that is unpacked: its length and depth within the limits, without a NUL. */
export function entryPath(name: string, limits: CompleteLimits, offset: number): string {
  if (name.length > limits.maxPathLength)
    throw overLimit('maxPathLength', limits.maxPathLength, `a path is ${String(name.length)} bytes long`, offset);
  if (name.includes('\0')) {
    throw new LayerStoreError(
      'ERR_UNSAFE_PATH',
      `the tar has a name with a NUL byte, "${shown(name.slice(0, name.indexOf('\0')))}…", at byte ${String(offset)}`,
      { offset },
    );
  }
  const path = treePath(name, offset);
  // Every component but the last takes two bytes.
  const depth = name.length > limits.maxPathDepth ? pathDepth(name) : 0;
  if (depth > limits.maxPathDepth)
    throw overLimit('maxPathDepth', limits.maxPathDepth, `a path has ${String(depth)} components`, offset);
  return path;
}

const WHITEOUT = '.wh.';

/** What an entry's name asks for: `file` for everything that is no whiteout. */
export type NameKind =
  | { kind: 'file' }
  /** Hides a name of the layers below. */
  | { kind: 'whiteout'; target: string }
  /** Hides all that the layers below have in the directory. */
  | { kind: 'opaque'; directory: string }
  /** Bookkeeping of aufs and all that is below it, dropped as Docker does. */
  | { kind: 'dropped' };

/** Tells whiteouts by the last component of a tree path. */
export function nameKind(path: string, offset: number): NameKind {
  const slash = path.lastIndexOf('/');
  const base = path.slice(slash + 1);
  if (!path.includes(WHITEOUT)) return { kind: 'file' };
  const parent = slash < 0 ? '' : path.slice(0, slash);
  if (base === '.wh..wh..opq' && !parent.includes('.wh..wh.')) return { kind: 'opaque', directory: parent };
  if (path.startsWith('.wh..wh.') || path.includes('/.wh..wh.')) return { kind: 'dropped' };
  if (!base.startsWith(WHITEOUT)) return { kind: 'file' };
  const hidden = base.slice(WHITEOUT.length);
  if (hidden === '' || hidden === '.' || hidden === '..') {
    throw new LayerStoreError(
      'ERR_UNSAFE_PATH',
      `the tar has the whiteout "${shown(path)}", which hides no name, at byte ${String(offset)}`,
      {
        path: shown(path),
        offset,
      },
    );
  }
  return { kind: 'whiteout', target: parent === '' ? hidden : `${parent}/${hidden}` };
}

/** Checks the target of a symbolic link, of which only the text is used. */
export function checkLinkTarget(
  { name, linkName, offset }: { name: string; linkName: string; offset: number },
  limits: CompleteLimits,
): void {
  if (linkName.length > limits.maxLinkLength) {
    throw overLimit(
      'maxLinkLength',
      limits.maxLinkLength,
      `the target of a symbolic link is ${String(linkName.length)} bytes long`,
      offset,
    );
  }
  if (linkName === '') throw badTar('a symbolic link has no target', offset, name);
}

/** The greatest numbers of the kernel's dev_t. */
const MAX_MAJOR = 4095;
const MAX_MINOR = 1_048_575;

/** ERR_BAD_TAR for device numbers that the kernel does not have, ERR_UNSAFE_PATH for overlayfs' whiteout. */
export function checkDevice({ name, type, major, minor, offset }: TarEntry): void {
  if (major < 0 || major > MAX_MAJOR || minor < 0 || minor > MAX_MINOR)
    throw badTar(`"${shown(name)}" has a device number that the kernel does not have`, offset, name);
  if (type !== '3' || major !== 0 || minor !== 0) return;
  throw new LayerStoreError(
    'ERR_UNSAFE_PATH',
    `the tar has the device 0:0 "${shown(name)}", which overlayfs takes for a whiteout, at byte ${String(offset)}`,
    { path: shown(name), offset },
  );
}

/** To the kernel an id of 2^32-1 (or -1) means "leave it as it is": it cannot be given to a file. */
export const NO_ID = 0xffff_ffff;

/**
 * ERR_BAD_TAR for ids beyond 32 bits and for sizes that no file system has: what would come out is another number.
 * Negative ids become what they are in two's complement, as other unpackers take them.
 */
export function checkNumbers(entry: TarEntry): void {
  const { name, offset, type, size } = entry;
  for (const key of ['uid', 'gid'] as const) {
    const id = entry[key];
    if (id < -(2 ** 31) || id > NO_ID) throw badTar(`"${shown(name)}" has a ${key} of more than 32 bits`, offset, name);
    entry[key] = id >>> 0;
  }
  if (!Number.isSafeInteger(size) && !isHeaderOnly(type))
    throw badTar(`"${shown(name)}" has a size of 2^53 bytes or more`, offset, name);
}

/** What an attribute is to be set on. */
export type XattrTarget = 'file' | 'directory' | 'link' | 'special';

/**
 * Whether an attribute of an archive is set; all others are counted, and kept for export only. Told by name and type
 * alone, so that ingest and verify of either engine decide the same: the four namespaces of xattr(7), `user.` on files and
 * directories, ACLs not on links, and nothing of overlayfs; without full privilege no `trusted.`, and of `security.` the
 * capabilities alone, which take a namespace of one's own at least.
 */
export function isKeptXattr(name: string, target: XattrTarget, privilege: Privilege): boolean {
  if (/^(trusted|user)\.overlay\./.test(name)) return false;
  if (name === ACCESS_ACL) return target !== 'link';
  if (name === DEFAULT_ACL) return target === 'directory';
  if (/^user\../s.test(name)) return target === 'file' || target === 'directory';
  if (privilege === 'full') return /^(trusted|security)\../s.test(name);
  return privilege === 'namespace' && name === 'security.capability';
}

/**
 * Owner and mode as a maker of this privilege sets them. Who cannot give files away leaves setuid and setgid bits out, which
 * would mean another user, and can read what it made.
 */
export function setByMaker(entry: TarEntry, privilege: Privilege): { uid: number; gid: number; mode: number } {
  const { uid, gid, mode, type } = entry;
  if (privilege !== 'none') return { uid, gid, mode };
  const bits = bitsOfMaker(type === '5', privilege);
  return { uid: NO_ID, gid: NO_ID, mode: (mode & ~bits) | (bits & 0o700) };
}

/** Bits of a mode that are the maker's business and not the archive's. */
export function bitsOfMaker(directory: boolean, privilege: Privilege): number {
  return privilege === 'none' ? 0o6000 | (directory ? 0o700 : 0o400) : 0;
}

/** Whether an empty file may stand in for what an entry names: a device that the maker had no right to make. */
export function mayStandIn(type: string, privilege: Privilege): boolean {
  return privilege !== 'full' && (type === '3' || type === '4');
}

export const ACCESS_ACL = 'system.posix_acl_access';
export const DEFAULT_ACL = 'system.posix_acl_default';

/** {@link XattrTarget} of an entry's type; a hard link's is that of the file it names. */
export function xattrTarget(type: string): XattrTarget {
  if (type === '5') return 'directory';
  if (type === '2') return 'link';
  return '346'.includes(type) ? 'special' : 'file';
}
