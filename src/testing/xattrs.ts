/**
 * Extended attributes in tests, many at once. Node has no call for them; Python's `os` has, and no package is needed.
 * Names and values travel as hex, so that every byte arrives.
 */
import { execFileSync } from 'node:child_process';

/** Not part of a tree's content: what overlayfs, SELinux or the store itself put there. */
const HIDDEN = /^(trusted|user)\.overlay\.|^security\.selinux$/;

function python(script: string, input: unknown): unknown {
  const output = execFileSync('python3', ['-I', '-S', '-c', script], {
    input: JSON.stringify(input),
    maxBuffer: 1 << 30,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  return JSON.parse(output.toString() || 'null');
}

const READ = `
import json, os, sys
root = bytes.fromhex(json.load(sys.stdin))
found = {}
def look(path, name):
    try:
        keys = os.listxattr(path, follow_symlinks=False)
        if keys:
            found[name.hex()] = {k: os.getxattr(path, k, follow_symlinks=False).hex() for k in keys}
    except OSError as error:
        # A file system without them has none.
        if error.errno != 95: raise
look(root, b'/')
for base, dirs, files in os.walk(root):
    for name in dirs + files:
        path = os.path.join(base, name)
        look(path, path[len(root):])
json.dump(found, sys.stdout)
`;

/** Of everything at or below `root`: path inside it (latin1 of its bytes, `/` for itself) -> name -> value as hex. */
export function readXattrs(root: string): Map<string, Record<string, string>> {
  const read = python(READ, Buffer.from(root).toString('hex')) as Record<string, Record<string, string>>;
  const all = new Map<string, Record<string, string>>();
  for (const [path, names] of Object.entries(read)) {
    const kept = Object.entries(names).filter(([name]) => !HIDDEN.test(name));
    kept.sort(([a], [b]) => (a < b ? -1 : 1));
    if (kept.length > 0) all.set(Buffer.from(path, 'hex').toString('latin1'), Object.fromEntries(kept));
  }
  return all;
}

const WRITE = `
import json, os, sys
for path, name, value in json.load(sys.stdin):
    path = bytes.fromhex(path)
    if value is None: os.removexattr(path, name, follow_symlinks=False)
    else: os.setxattr(path, name, bytes.fromhex(value), follow_symlinks=False)
`;

export interface XattrChange {
  path: string | Buffer;
  name: string;
  /** `undefined` removes the attribute. */
  value: Uint8Array | undefined;
}

/** Makes each change in order. Links are not followed. */
export function writeXattrs(changes: readonly XattrChange[]): void {
  if (changes.length === 0) return;
  python(
    WRITE,
    changes.map(({ path, name, value }) => [
      Buffer.from(path as string).toString('hex'),
      name,
      value === undefined ? null : Buffer.from(value).toString('hex'),
    ]),
  );
}
