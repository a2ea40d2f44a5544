/** Directories that are gone when the test is, whatever it left mounted or unreadable in them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** Base of all of them: a file system that overlayfs can have as its upper one (a tmpfs in /tmp cannot hold all xattrs). */
const BASE = process.env['LAYERSTORE_TEST_DIR'] ?? (tmpdir() === '/tmp' ? '/var/tmp' : tmpdir());

type Hooks = Pick<TestContext, 'after'>;

/** A new directory, removed after the test. */
export function tempDir(t: Hooks, name = 'test'): string {
  const path = makeTempDir(name);
  t.after(() => removeTempDir(path));
  return path;
}

/** The same for callers with another life span; they call {@link removeTempDir} themselves. */
export function makeTempDir(name = 'test'): string {
  return mkdtempSync(join(BASE, `layerstore-${name}-`));
}

/** Unmounts what is mounted at or below, then removes all of it. */
export function removeTempDir(path: string): void {
  // Twice: mounts may lie on top of each other.
  for (let round = 0; round < 4; round++) {
    const targets = mountsBelow(path).reverse();
    if (targets.length === 0) break;
    for (const target of targets) execFileSync('/bin/umount', ['-l', '--', target], { stdio: 'ignore' });
  }
  rmSync(path, { recursive: true, force: true, maxRetries: 3 });
}

/** Mount points at or below `path`, in mount order. */
export function mountsBelow(path: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => unescape(line.split(' ')[4] ?? ''))
    .filter((target) => target === path || target.startsWith(`${path}/`));
}

/** The kernel writes blanks and backslashes of paths as octal digits. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
