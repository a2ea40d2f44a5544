/** Names and attributes of tar entries: what whiteouts mean, and what limits allow. Latin1 text that stands for bytes. */
import { LayerStoreError } from '../../errors.js';
import { badTar, overLimit, shown } from '../../tar/errors.js';
import type { TarEntry } from '../../tar/reader.js';
import type { CompleteLimits } from '../limits.js';

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

/** Checks what is limited about an entry's own name. */
export function checkName(entry: { name: string; offset: number }, limits: CompleteLimits): void {
  const { name, offset } = entry;
  if (name.length > limits.maxPathLength)
    throw overLimit('maxPathLength', limits.maxPathLength, `a path is ${String(name.length)} bytes long`, offset);
  if (name.length > limits.maxPathDepth) {
    let depth = 0;
    for (const part of name.split('/')) if (part !== '' && part !== '.') depth++;
    if (depth > limits.maxPathDepth)
      throw overLimit('maxPathDepth', limits.maxPathDepth, `a path has ${String(depth)} components`, offset);
  }
}

/** Checks where a link leads to, as far as its text says; after its own name, so that both engines refuse alike. */
export function checkLinkName(
  entry: { name: string; type: string; linkName: string; offset: number },
  limits: CompleteLimits,
): void {
  const { name, offset } = entry;
  if (entry.type === '2') {
    if (entry.linkName === '') throw badTar('a symbolic link has no target', offset, name);
    if (entry.linkName.length > limits.maxLinkLength) {
      throw overLimit(
        'maxLinkLength',
        limits.maxLinkLength,
        `the target of a symbolic link is ${String(entry.linkName.length)} bytes long`,
        offset,
      );
    }
  }
  if (entry.type === '1' && entry.linkName.length > limits.maxPathLength) {
    throw overLimit(
      'maxPathLength',
      limits.maxPathLength,
      `the target of a hard link is ${String(entry.linkName.length)} bytes long`,
      offset,
    );
  }
}

/**
 * The extended attributes that are to be set: all but those that overlayfs keeps for itself, and `user.*` of links and
 * special files, which no file system takes (xattr(7)). Checks their limits.
 */
export function ownXattrs(
  entry: Pick<TarEntry, 'name' | 'offset' | 'xattrs' | 'type'>,
  limits: CompleteLimits,
): TarEntry['xattrs'] {
  const { xattrs, offset } = entry;
  if (xattrs.length === 0) return xattrs;
  const { maxXattrs, maxXattrBytes } = limits;
  if (xattrs.length > maxXattrs)
    throw overLimit(
      'maxXattrs',
      maxXattrs,
      `"${shown(entry.name)}" has ${String(xattrs.length)} extended attributes`,
      offset,
    );
  let bytes = 0;
  for (const [name, value] of xattrs) bytes += name.length + value.length;
  if (bytes > maxXattrBytes)
    throw overLimit(
      'maxXattrBytes',
      maxXattrBytes,
      `"${shown(entry.name)}" has ${String(bytes)} bytes of extended attributes`,
      offset,
    );
  const refused = '2346'.includes(entry.type) ? /^user\.|^trusted\.overlay\./ : /^(trusted|user)\.overlay\./;
  return xattrs.filter(([name]) => !refused.test(name));
}
