/** Directories that are gone when the test is, whatever it left mounted or unreadable in them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { mountsBelow } from '../../src/testing/suite-directory.js';

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
  for (const target of mountsBelow(path).reverse()) execFileSync('/bin/umount', ['-l', '--', target]);
  rmSync(path, { recursive: true, force: true, maxRetries: 3 });
}
