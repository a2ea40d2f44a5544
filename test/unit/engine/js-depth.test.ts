/**
 * Depth costs nothing: whatever is asked of a tree, a directory takes as many calls 3,000 levels down as 300 levels down,
 * also where paths pass 4,096 bytes, on the way down and on the way back, and a bounded number of descriptors. Calls and
 * descriptors are counted, not time.
 */
import assert from 'node:assert/strict';
import childProcess from 'node:child_process';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { DiffRequest } from '../../../src/engine/engine.js';
import { directoryGetter } from '../../../src/testing/engine-suite-tars.js';
import { buildTar, type TarEntry } from '../../../src/testing/tar-builder.js';
import { tempDir } from '../../support/temp.js';

/** What the engine does its work with; {@link calls} counts them. A run of a command is one. */
const COUNTED = [
  ...['open', 'close', 'lstat', 'fstat', 'stat', 'readdir', 'readlink', 'read', 'write', 'mkdir', 'rmdir', 'unlink'],
  ...['link', 'symlink', 'rename', 'chmod', 'lchown', 'fchmod', 'fchown', 'futimes', 'lutimes', 'copyFile'],
];
let calls = 0;
for (const [holder, names] of [
  [fs, COUNTED],
  [childProcess, ['spawn']],
] as const) {
  const functions = holder as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const name of names) {
    const real = functions[name]!;
    functions[name] = (...args) => {
      calls++;
      return real(...args);
    };
  }
}
let descriptors = 0;
let mostDescriptors = 0;
type Done = (error: Error | null, fd?: number) => void;
{
  const { open, close } = fs as unknown as Record<'open' | 'close', (...args: unknown[]) => void>;
  const counting = {
    open: (...args: unknown[]): void => {
      const done = args.pop() as Done;
      open(...args, (error: Error | null, fd?: number) => {
        if (error === null) mostDescriptors = Math.max(mostDescriptors, ++descriptors);
        done(error, fd);
      });
    },
    close: (fd: number, done: Done): void => {
      descriptors--;
      close(fd, done);
    },
  };
  Object.assign(fs, counting);
}
syncBuiltinESMExports();
// Only now: the engine takes the functions when it is loaded.
const { createJsEngine } = await import('../../../src/engine/js/index.js');
const { TreeRoot } = await import('../../../src/engine/js/tree-root.js');
const { loadNativeEngine } = await import('../../../src/engine/native/index.js');
const engine = createJsEngine();

/** One directory in so many has files. */
const FILES_EVERY = 12;

/**
 * Directories called `name` inside each other. In some of them a file before and one behind the next directory, in byte
 * order; where they are changes, the first is a whiteout. The last directory has an attribute, and one of overlayfs.
 */
function makeDeep(top: string, name: string, depth: number, what: 'layer' | 'changes'): void {
  fs.mkdirSync(top);
  let at = fs.openSync(top, 'r');
  const path = (entry: string): string => `/proc/self/fd/${String(at)}/${entry}`;
  const whiteout = `${top}.whiteout`;
  if (what === 'changes') childProcess.execFileSync('mknod', [whiteout, 'c', '0', '0']);
  for (let level = 0; level < depth; level++) {
    if (level % FILES_EVERY === 0) {
      if (what === 'changes') fs.linkSync(whiteout, path('aa'));
      else fs.writeFileSync(path('aa'), 'aa');
      fs.writeFileSync(path('zz'), what);
    }
    fs.mkdirSync(path(name));
    const next = fs.openSync(path(name), 'r');
    fs.futimesSync(at, 1, 1);
    fs.closeSync(at);
    at = next;
  }
  for (const attribute of ['user.deep', 'trusted.overlay.impure'])
    childProcess.execFileSync('setfattr', ['-n', attribute, '-v', 'y', '.'], { cwd: path('') });
  fs.closeSync(at);
}

async function hasAttribute(tar: AsyncIterable<unknown>): Promise<boolean> {
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).includes('SCHILY.xattr.user.deep=y\n');
}

/** Calls per directory of each operation on trees of one depth. */
async function measure(base: string, depth: number): Promise<Map<string, number>> {
  const costs = new Map<string, number>();
  const measured = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    const before = calls;
    const result = await work();
    costs.set(what, (calls - before) / depth);
    return result;
  };
  const [lower, upper] = [join(base, 'lower'), join(base, 'upper')];
  makeDeep(lower, 'dd', depth, 'layer');
  makeDeep(upper, 'dd', depth, 'changes');
  const layer = { directories: [lower], whiteouts: 'overlay' as const };
  const alone: DiffRequest = { upper: { directories: [upper], whiteouts: 'overlay' } };
  const request: DiffRequest = { ...alone, lower: layer };
  const changes = await measured('changes', () => engine.changes(request));
  // Two files in some; the directories behind the last of them are in both trees.
  assert.equal(changes.length, depth + (2 * depth) / FILES_EVERY - FILES_EVERY);
  const size = await measured('size', () => engine.diffSize(alone));
  assert.equal(size, (depth / FILES_EVERY) * 'changes'.length);
  const tarSplit = { path: join(base, 'layer.json.gz') };
  await measured('commit, with the tar', () =>
    engine.commitTree({ ...request, whiteoutsOf: layer, directory: upper, tarSplit, consume: true }),
  );
  await measured('removal', () => engine.removeTree(upper));
  const copy = join(base, 'copy');
  fs.mkdirSync(copy);
  await measured('copy', () => engine.copyTree(lower, copy));
  const [copied, original] = [copy, lower].map((directory) => ({
    directories: [directory],
    whiteouts: 'plain' as const,
  }));
  assert.deepEqual(await engine.changes({ upper: copied!, lower: original! }), []);
  const ingest = (directory: string, entry: TarEntry): Promise<unknown> =>
    engine.ingest(Readable.from([buildTar([entry])]), { directory, whiteouts: 'plain' });
  await measured('opaque marker', () => ingest(copy, { name: 'dd/.wh..wh..opq' }));
  assert.deepEqual(fs.readdirSync(join(copy, 'dd')), []);
  await measured('replacement by a file', () => ingest(lower, { name: 'dd', content: 'x' }));
  assert.ok(fs.statSync(join(lower, 'dd')).isFile());
  for (const rest of [copy, lower]) await engine.removeTree(rest);
  assert.ok(!fs.existsSync(upper) && !fs.existsSync(lower));
  return costs;
}

test('a directory costs as many calls 3,000 levels down as 300 levels down', async (t) => {
  const base = tempDir(t);
  const [shallow, deep] = [join(base, 'shallow'), join(base, 'deep')];
  fs.mkdirSync(shallow);
  fs.mkdirSync(deep);
  const few = await measure(shallow, 300);
  const many = await measure(deep, 3000);
  for (const [what, cost] of few) {
    const text = `${what}: ${cost.toFixed(1)} calls a directory at 300, ${many.get(what)!.toFixed(1)} at 3,000`;
    t.diagnostic(text);
    assert.ok(many.get(what)! <= cost * 1.5, text);
  }
  t.diagnostic(`${mostDescriptors} descriptors at once`);
  assert.equal(descriptors, 0);
  assert.ok(mostDescriptors < 600, 'a process may have 1,024 by default');
});

test('paths longer than the kernel takes: the same layer as of the native engine, whole, without attributes of overlayfs', async (t) => {
  const base = tempDir(t);
  const [lower, upper] = [join(base, 'lower'), join(base, 'upper')];
  const [js, native] = [join(base, 'js'), join(base, 'native')];
  const name = `dd${'x'.repeat(198)}`;
  makeDeep(lower, name, 48, 'layer');
  makeDeep(upper, name, 48, 'changes');
  const request: DiffRequest = {
    upper: { directories: [upper], whiteouts: 'overlay' },
    lower: { directories: [lower], whiteouts: 'overlay' },
  };
  const diffIDs: string[] = [];
  for (const [by, directory, consume] of [
    [loadNativeEngine(), native, false],
    [engine, js, false],
    [engine, upper, true],
  ] as const) {
    const tarSplit = { path: `${directory}.json.gz` };
    const { diffID } = await by.commitTree({ ...request, directory, tarSplit, consume });
    diffIDs.push(diffID);
    const layer = { tarSplit, tree: directoryGetter(directory), diffID };
    assert.ok(await hasAttribute(await engine.assemble(layer)));
    for (const reader of [loadNativeEngine(), engine]) {
      const problems = await reader.verifyTree({ ...layer, whiteouts: 'overlay' });
      // Copies of the JavaScript engine have their times to the microsecond.
      assert.deepEqual(
        problems.filter(({ cosmetic }) => !cosmetic),
        [],
      );
    }
    assert.deepEqual(await overlayAttributes(directory, name, 48), []);
  }
  assert.equal(new Set(diffIDs).size, 1);
  for (const directory of [lower, upper, js, native]) await engine.removeTree(directory);
  assert.deepEqual(
    fs.readdirSync(base).filter((left) => !left.includes('.')),
    [],
  );
});

/** Names of overlayfs' own attributes on the last directory. */
async function overlayAttributes(top: string, name: string, depth: number): Promise<string[]> {
  const root = await TreeRoot.open(top);
  try {
    return await root.in(Array<string>(depth).fill(name).join('/'), async (directory) => {
      const dump = childProcess.execFileSync('getfattr', ['-m', '-', '.'], { cwd: directory.at('').toString() });
      return dump
        .toString()
        .split('\n')
        .filter((line) => line.startsWith('trusted.overlay.'));
    });
  } finally {
    await root.close();
  }
}
