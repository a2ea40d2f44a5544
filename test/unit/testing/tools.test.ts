/** The tools that tests are made of are held against the system's own: a tool that sees nothing would pass everything. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, openSync, closeSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import {
  append,
  applyChanges,
  assertSameTree,
  buildTar,
  chmod,
  chown,
  createFile,
  diffTrees,
  expectedChanges,
  expectedSize,
  gnuLong,
  link,
  mkdir,
  mknod,
  remove,
  sampleLayers,
  setxattr,
  snapshotTree,
  storedZstd,
  symlink,
  touch,
} from '../../../src/testing/index.js';
import type { TreeChange } from '../../../src/testing/index.js';
import { corpus } from '../../support/corpus.js';
import { assertLeavesNothing } from '../../support/leaks.js';
import { NOBODY, runAsUser } from '../../support/run-as-user.js';
import { tempDir } from '../../support/temp.js';

test('a difference of any kind between two trees is seen and named', (t) => {
  const base = [
    mkdir('d'),
    createFile('d/f', 'content'),
    createFile('g', 'g'),
    symlink('s', 'target'),
    mknod('p', 'p'),
  ];
  const cases: [string, TreeChange[], RegExp][] = [
    ['content', [createFile('d/f', 'CONTENT')], /"\/d\/f": content/],
    ['size', [append('d/f', '!')], /"\/d\/f": size/],
    ['mode', [chmod('d', 0o700)], /"\/d": mode expected "755", found "700"/],
    ['owner', [chown('g', 5, 6)], /"\/g": owner expected "0:0", found "5:6"/],
    ['mtime', [touch('g', 1)], /"\/g": mtime/],
    ['target', [remove('s'), symlink('s', 'other')], /"\/s": target/],
    ['type', [remove('p'), mkdir('p')], /"\/p": type expected "fifo", found "directory"/],
    ['missing', [remove('g')], /"\/g": missing/],
    ['more', [createFile('new')], /"\/new": not expected/],
    ['links', [remove('g'), link('d/f', 'g')], /"\/g": links expected none, found "\/d\/f"/],
    ['xattrs', [setxattr('g', 'user.x', 'y')], /"\/g": xattrs expected none, found \{"user.x":"79"\}/],
  ];
  for (const [what, changes, line] of cases) {
    const [a, b] = ['a', 'b'].map((name) => join(tempDir(t, what), name)) as [string, string];
    for (const path of [a, b]) {
      mkdirSync(path);
      applyChanges(path, base);
    }
    const read = (path: string) => snapshotTree(path, { xattrs: what === 'xattrs' });
    assertSameTree(read(a), read(b), 'the same list gives the same tree');
    applyChanges(b, changes, 1);
    const lines = diffTrees(read(a), read(b));
    assert.ok(
      lines.some((each) => line.test(each)),
      `${what}: ${lines.join(' | ')}`,
    );
    assert.throws(() => assertSameTree(read(a), read(b), what), /the trees differ/);
  }
});

test('the model of changes says what Docker says', (t) => {
  const flat = tempDir(t);
  let before = snapshotTree(flat);
  const said: string[][] = [];
  for (const [i, changes] of sampleLayers.entries()) {
    applyChanges(flat, changes, i);
    const after = snapshotTree(flat);
    said.push(expectedChanges(before, after));
    before = after;
  }
  // Written down by hand from the rules, for the last list: a/b removed, a renamed, gone/again and kept/two removed.
  assert.deepEqual(said[3], [
    'D /a',
    'C /gone',
    'D /gone/again',
    'C /kept',
    'D /kept/two',
    'A /renamed',
    'A /renamed/new',
  ]);
  assert.ok(said[1]?.includes('C /turns-file') && !said[1].includes('D /turns-file/inside'));
  assert.ok(said[1]?.includes('C /turns-directory') && said[1].includes('A /turns-directory/inside'));
  assert.ok(said[1]?.includes('D /gone') && !said[1].includes('D /gone/deep'));
  const du = execFileSync('find', [flat, '!', '-type', 'd', '-printf', '%i %s\n']).toString().trim().split('\n');
  const sizes = new Map(du.map((line) => line.split(' ') as [string, string]));
  assert.equal(
    expectedSize(before.values()),
    [...sizes.values()].reduce((sum, size) => sum + Number(size), 0),
  );
});

test('GNU tar reads what the builder writes; zstd reads its frames', (t) => {
  const directory = tempDir(t);
  const path = join(directory, 'built.tar');
  const long = 'n'.repeat(200);
  const tar = buildTar([
    { name: 'd/', type: '5', mode: 0o711 },
    { name: 'd/file', content: 'hello', uid: 3_000_000, mtime: 2 ** 33 },
    { name: 'link', type: '2', linkname: 'd/file' },
    gnuLong('L', long),
    { name: 'short', content: 'x', magic: 'gnu' },
    { name: 'ignored', content: 'y', pax: { path: 'ümläut', mtime: '1.5' } },
  ]);
  writeFileSync(path, tar);
  const listed = execFileSync('tar', ['--numeric-owner', '-tvf', path], {
    env: { ...process.env, LC_ALL: 'C.UTF-8' },
  }).toString();
  for (const line of [
    /drwx--x--x 0\/0 .* d\/$/m,
    /-rw-r--r-- 3000000\/0 +5 2242-.* d\/file$/m,
    /link -> d\/file$/m,
    new RegExp(`${long}$`, 'm'),
    /ümläut$/m,
  ])
    assert.match(listed, line);
  assert.throws(() => {
    writeFileSync(path, buildTar([{ name: 'a', checksum: '000001\0 ' }]));
    execFileSync('tar', ['-tf', path], { stdio: 'pipe' });
  });
  const frame = join(directory, 'built.zst');
  const bytes = Buffer.alloc(300_000, 'zstd');
  writeFileSync(frame, storedZstd(bytes));
  // RFC 8878: magic, descriptor, 8 bytes of content size, blocks of at most 128 KiB with 3 bytes in front.
  const stored = readFileSync(frame);
  assert.equal(stored.readUInt32LE(0), 0xfd2fb528);
  assert.equal(stored.length, 4 + 1 + 8 + 3 * 3 + bytes.length);
});

test('leaks are seen: a descriptor, a mount', async (t) => {
  const directory = tempDir(t);
  const opened: number[] = [];
  const leak = assertLeavesNothing(
    directory,
    async () => {
      opened.push(openSync('/dev/null', 'r'));
    },
    5,
  );
  await assert.rejects(leak, /descriptors/);
  for (const fd of opened) closeSync(fd);
  let count = 0;
  const mount = assertLeavesNothing(
    directory,
    async () => {
      const target = join(directory, String(count++));
      mkdirSync(target);
      execFileSync('mount', ['-t', 'tmpfs', 'none', target]);
    },
    5,
  );
  await assert.rejects(mount, /mounts/);
  await assertLeavesNothing(directory, async () => {
    closeSync(openSync('/dev/null', 'r'));
  });
});

test('another user is another user', async (t) => {
  const directory = tempDir(t);
  chmodSync(directory, 0o755);
  writeFileSync(join(directory, 'secret'), 'root only', { mode: 0o600 });
  const { stdout, stderr, status } = await runAsUser(
    `import { readFileSync } from 'node:fs';
     const { createChainID } = await src('digest.ts');
     let read = 'readable';
     try { readFileSync(process.argv.at(-1)); } catch (error) { read = error.code; }
     console.log(process.getuid(), read, typeof createChainID);`,
    { args: [join(directory, 'secret')] },
  );
  assert.equal(stdout.trim(), `${NOBODY} EACCES function`, stderr);
  assert.equal(status, 0);
});

test('there is a real layer on every machine', async (t) => {
  const { layers } = corpus(tempDir(t));
  const child = spawn('tar', ['-tf', layers[0] ?? ''], { stdio: ['ignore', 'pipe', 'inherit'] });
  let lines = 0;
  for await (const chunk of child.stdout) lines += String(chunk).split('\n').length - 1;
  assert.ok(lines > 100, `only ${lines} entries`);
});
