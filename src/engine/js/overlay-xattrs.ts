/** Extended attributes that overlayfs keeps for itself. */
import { isOverlayXattr } from './layer-directory.js';
import { readTreeXattrs, removeXattrs } from './xattr.js';

/** Takes off what belongs to the mount that was (origin, impure, nlink, …); opaque markers are part of the layer. */
export async function stripOverlayXattrs(directory: string, signal: AbortSignal | undefined): Promise<void> {
  const found = await readTreeXattrs(directory, {
    match: '^(trusted|user)\\.overlay\\.',
    ...(signal === undefined ? {} : { signal }),
  });
  const byName = new Map<string, string[]>();
  for (const [path, xattrs] of found) {
    for (const [name] of xattrs) {
      if (!isOverlayXattr(name) || name.endsWith('.overlay.opaque')) continue;
      const paths = byName.get(name) ?? [];
      paths.push(path);
      byName.set(name, paths);
    }
  }
  for (const [name, paths] of byName) await removeXattrs(directory, name, paths, signal);
}
