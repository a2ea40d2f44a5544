/**
 * Changes of a file tree as data, so that one list can be applied to a stack of layers and to a flat directory alike.
 * Paths are relative to the tree, without a slash in front; latin1 text stands for bytes that are no UTF-8 (`bytes()`).
 */

export type TreeChange =
  | { do: 'mkdir'; path: string; mode: number }
  | { do: 'file'; path: string; content: string; mode: number }
  | { do: 'append'; path: string; content: string }
  | { do: 'sparse'; path: string; size: number; data: readonly { at: number; content: string }[]; mode: number }
  | { do: 'remove'; path: string }
  | { do: 'rename'; path: string; to: string }
  | { do: 'link'; path: string; to: string }
  | { do: 'symlink'; path: string; target: string }
  | { do: 'mknod'; path: string; type: 'c' | 'b' | 'p'; major: number; minor: number; mode: number }
  | { do: 'chmod'; path: string; mode: number }
  | { do: 'chown'; path: string; uid: number; gid: number }
  | { do: 'xattr'; path: string; name: string; value: string | undefined }
  | { do: 'touch'; path: string; mtime: number };

/** Makes a directory; its parent must be there. */
export const mkdir = (path: string, mode = 0o755): TreeChange => ({ do: 'mkdir', path, mode });
/** Makes a file, or replaces the content of one (mode too). */
export const createFile = (path: string, content = '', mode = 0o644): TreeChange => ({
  do: 'file',
  path,
  content,
  mode,
});
/** Writes behind the end of an existing file. */
export const append = (path: string, content: string): TreeChange => ({ do: 'append', path, content });
/** Makes a file of `size` bytes that holds data in a few places only. */
export const sparseFile = (
  path: string,
  size: number,
  data: readonly { at: number; content: string }[] = [],
  mode = 0o644,
): TreeChange => ({ do: 'sparse', path, size, data, mode });
/** Removes a file, or a directory with all that it holds. */
export const remove = (path: string): TreeChange => ({ do: 'remove', path });
/** Renames; a directory that overlayfs refuses to rename is copied and removed, as `mv` does. */
export const rename = (path: string, to: string): TreeChange => ({ do: 'rename', path, to });
/** Makes `to` another name of the file `path`. */
export const link = (path: string, to: string): TreeChange => ({ do: 'link', path, to });
export const symlink = (path: string, target: string): TreeChange => ({ do: 'symlink', path, target });
/** Makes a device (`c`, `b`) or a FIFO (`p`). */
export const mknod = (path: string, type: 'c' | 'b' | 'p', major = 0, minor = 0, mode = 0o600): TreeChange => ({
  do: 'mknod',
  path,
  type,
  major,
  minor,
  mode,
});
export const chmod = (path: string, mode: number): TreeChange => ({ do: 'chmod', path, mode });
/** Changes the owner, of a symbolic link itself too. */
export const chown = (path: string, uid: number, gid: number): TreeChange => ({ do: 'chown', path, uid, gid });
/** Sets an extended attribute; `undefined` removes it. `value` is latin1 text. */
export const setxattr = (path: string, name: string, value: string | undefined): TreeChange => ({
  do: 'xattr',
  path,
  name,
  value,
});
/** Sets the time of the last change, in seconds; multiples of 1/1024 arrive exactly. */
export const touch = (path: string, mtime: number): TreeChange => ({ do: 'touch', path, mtime });

/** A path of bytes that are no UTF-8, for use in any change. */
export function bytes(...values: number[]): string {
  return Buffer.from(values).toString('latin1');
}

/** What a list needs of the one who applies it; a suite leaves out what its driver or its user cannot do. */
export interface ChangeNeeds {
  /** Owners, devices, `trusted.` and `security.` attributes. */
  root: boolean;
  xattrs: boolean;
}

export function needsOf(changes: readonly TreeChange[]): ChangeNeeds {
  const xattrs = changes.some((change) => change.do === 'xattr');
  const root = changes.some(
    (change) =>
      change.do === 'chown' ||
      (change.do === 'mknod' && change.type !== 'p') ||
      (change.do === 'xattr' && !change.name.startsWith('user.')),
  );
  return { root, xattrs };
}
