/** What the tests of the native engine share: small tars, and a look at this process from outside. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { IngestRequest } from '../../../src/engine/engine.js';
import { tempDir } from '../../support/temp.js';

/** A tar made by the system's command of a directory with `files` files of `bytes` bytes each. */
export function makeTar(directory: string, files = 3, bytes = 1000): string {
  const tree = join(directory, 'tree');
  mkdirSync(tree);
  for (let i = 0; i < files; i++) writeFileSync(join(tree, `file-${i}`), Buffer.alloc(bytes, i + 1));
  const tar = join(directory, 'layer.tar');
  execFileSync('tar', ['-cf', tar, '-C', tree, '.']);
  return tar;
}

/** A request for a fresh directory of the test. */
export function freshRequest(t: TestContext, extra: Partial<IngestRequest> = {}): IngestRequest {
  const base = tempDir(t, 'native');
  mkdirSync(join(base, 'layer'));
  return {
    directory: join(base, 'layer'),
    whiteouts: 'overlay',
    tarSplit: { path: join(base, 'record.gz') },
    ...extra,
  };
}

/** Open descriptors of this process; the one that lists them is not among them. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length - 1;
}

/** Waits until `done`, looking every 20 ms; fails after a generous while with `what`. */
export async function eventually(done: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let i = 0; i < 15_000; i++) {
    if (await done()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never happened: ${what}`);
}

/** Names of the addon's own threads in this process: they begin with `ls-`. */
export function addonThreads(): string[] {
  return [...threadNames().values()];
}

/** What the kernel says of each of the addon's own threads; of one that ended meanwhile nothing. */
export function addonThreadStatus(): string[] {
  return [...threadNames().keys()].map((id) => readTask(id, 'status'));
}

function threadNames(): Map<string, string> {
  const threads = readdirSync('/proc/self/task').map((id): [string, string] => [id, readTask(id, 'comm').trim()]);
  return new Map(threads.filter(([, name]) => name.startsWith('ls-')));
}

function readTask(id: string, file: string): string {
  try {
    return readFileSync(`/proc/self/task/${id}/${file}`, 'latin1');
  } catch {
    return ''; // it ended while we looked
  }
}

/** Memory that may grow to twice its size; this TypeScript's library does not know it yet. */
export function growable<T extends ArrayBuffer | SharedArrayBuffer>(kind: new (bytes: number) => T, bytes: number): T {
  return Reflect.construct(kind, [bytes, { maxByteLength: 2 * bytes }]) as T;
}

/** A view whose memory was handed to somebody else. */
export function detachedView(): Uint8Array {
  const bytes = new Uint8Array(64);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}
