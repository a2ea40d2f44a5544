/** Commands in this process, on stores of their own: what they say when something is wrong, and how they are stopped. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import { Interrupted, run } from '../../../src/cli/run.js';
import { openStore } from '../../../src/index.js';
import { buildTar } from '../../../src/testing/index.js';
import { tempDir } from '../../support/temp.js';

/** A stream that keeps what is written as text. */
function sink(): { stream: Writable; text: () => string } {
  let text = '';
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      text += chunk.toString();
      done();
    },
  });
  return { stream, text: () => text };
}

async function command(
  words: readonly string[],
  stop: { signal: AbortSignal; hurry: AbortSignal },
): Promise<{ code: number; stdout: string; stderr: string }> {
  const [stdout, stderr] = [sink(), sink()];
  const code = await run(words, { stdout: stdout.stream, stderr: stderr.stream, env: {} }, stop);
  return { code, stdout: stdout.text(), stderr: stderr.text() };
}

const never = new AbortController().signal;

test('a removal that is cut short is told, and the next command ends it', async (t) => {
  const root = join(tempDir(t, 'cli-run'), 'root');
  const store = await openStore({ root, durability: 'relaxed' });
  const files = Array.from({ length: 5_000 }, (_, i) => ({ name: `d${i % 40}/f${i}`, content: '' }));
  const layer = await store.register(Readable.from([buildTar(files)]));
  await store.retain(layer.chainID, `cli:${layer.chainID}`);
  await store.close();

  const cut = await command(['--root', root, 'rm', layer.chainID], { signal: never, hurry: AbortSignal.abort() });
  assert.deepEqual([cut.code, cut.stdout], [0, `${layer.chainID}\n`]);
  assert.match(cut.stderr, /^layerstore: files of 1 removed or unfinished layers are still on disk: the next command/);

  const next = await command(['--root', root, 'gc'], { signal: never, hurry: never });
  assert.deepEqual([next.code, next.stderr], [0, '']);
  const df = await command(['--root', root, '--json', 'df'], { signal: never, hurry: never });
  assert.equal((JSON.parse(df.stdout) as { pendingRemoval: { count: number } }).pendingRemoval.count, 0);
});

test('a command that a signal stops says by which one', async (t) => {
  const root = join(tempDir(t, 'cli-run'), 'root');
  for (const [name, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    const signal = AbortSignal.abort(new Interrupted(name));
    const outcome = await command(['--root', root, 'register', '/dev/zero'], { signal, hurry: never });
    assert.deepEqual(outcome, { code, stdout: '', stderr: `layerstore: interrupted by ${name}\n` });
  }
});

/** A command that has to fail with one line on standard error that is made of words of the command line. */
async function fails(code: number, ...words: string[]): Promise<string> {
  const outcome = await command(words, { signal: never, hurry: never });
  assert.deepEqual([outcome.code, outcome.stdout], [code, ''], `${words.join(' ')}: ${outcome.stderr}`);
  assert.match(outcome.stderr, /^layerstore: [^\n]+\n$/, 'exactly one line, no stack trace');
  assert.doesNotMatch(outcome.stderr, /\w\(\)|"readOnly"|storageOpt/, 'words of the command line, not of the library');
  return outcome.stderr.trimEnd();
}

async function ok(...words: string[]): Promise<string> {
  const outcome = await command(words, { signal: never, hurry: never });
  assert.deepEqual([outcome.code, outcome.stderr], [0, ''], words.join(' '));
  return outcome.stdout.trimEnd();
}

test('wrong usage exits 2 and names what is wrong', async () => {
  for (const [words, pattern] of [
    [['nonsense'], /no command "nonsense"/],
    [['register'], /register takes/],
    [['ls', '--wrong'], /^layerstore: ls has no option "--wrong" \(/],
    [['--driver', 'zfs', 'ls'], /--driver takes overlay2 or vfs, not "zfs"/],
    [['inspect', '--type', 'thing', 'x'], /--type takes rw, layer or image/],
    [['bench', '--runs', '0'], /--runs takes a whole number from 1 to 100, not "0"/],
  ] as const) {
    assert.match(await fails(2, ...words), pattern);
  }
});

test('a failure exits 1, and says what is wrong and what to do', async (t) => {
  const directory = tempDir(t, 'cli-run');
  const root = join(directory, 'root');
  const [tar, truncated, other] = ['a.tar', 'truncated.tar', 'other'].map((name) => join(directory, name));
  assert.ok(tar !== undefined && truncated !== undefined && other !== undefined);
  const bytes = buildTar([{ name: 'a', content: 'a'.repeat(600) }]);
  writeFileSync(tar, bytes);
  writeFileSync(truncated, bytes.subarray(0, 700));
  writeFileSync(other, 'x'.repeat(2000));
  await ok('--root', root, 'rm', await ok('--root', root, 'register', tar));
  for (const [words, pattern] of [
    [['register', join(directory, 'missing')], /missing.*ENOENT/],
    [['register', directory], /EISDIR/],
    [['register', other], /checksum|tar/],
    [['register', truncated], /truncated|ends/],
    [['register', '--diff-id', `sha256:${'0'.repeat(64)}`, tar], /0{64}/],
    [['register', '--parent', 'feedbeef', tar], /called "feedbeef"/],
    [['mount', 'nobody'], /no RW layer named "nobody".*`layerstore ls`/],
    [['umount', 'nobody'], /no RW layer named "nobody"/],
    [['diff', 'nobody'], /no RW layer named "nobody"/],
    [['commit', 'nobody'], /no RW layer named "nobody"/],
    [['save', 'nobody'], /no image "nobody".*`layerstore images`/],
    [['tag', 'nobody', 'somebody'], /no image "nobody"/],
    [['history', 'nobody'], /no image "nobody"/],
    [['report', 'nobody'], /no image "nobody"/],
    [['export', 'nobody'], /nothing here is called "nobody"/],
    [['verify', 'nobody'], /nothing here is called "nobody"/],
    [['rm', '--type', 'layer', 'feedbeef'], /no layer "feedbeef"/],
    [['create', '../evil'], /evil/],
    [['create', 'box', 'feedbeef'], /feedbeef/],
    [['create', 'box', '--size', '1G'], /cannot limit the size .*project quota, which .*Omit the size/],
    [['rm', 'nothing'], /nothing/],
    [['load', tar], /image/],
  ] as const) {
    assert.match(await fails(1, '--root', root, ...words), pattern, words.join(' '));
  }
  assert.equal(await ok('--root', root, '--json', 'ls'), '{"layers":[],"rwLayers":[]}');
  assert.match(await fails(1, '--root', other, 'create', 'x'), /other/);
});

test('only what brings content in makes a store: a mistyped root is told', async (t) => {
  const root = join(tempDir(t, 'cli-run'), 'root');
  for (const line of [
    ...['ls', 'images', 'df', 'gc', 'gc --dry-run', 'verify', 'inspect x', 'mount x', 'umount x', 'diff x', 'commit x'],
    ...['rm x', 'rm -f x', 'tag x y', 'history x', 'report x', 'export x', 'save x'],
  ]) {
    const said = await fails(1, '--root', root, ...line.split(' '));
    assert.match(said, /there is no store in ".*root": name its place with --root/, line);
    assert.ok(!existsSync(root), line);
  }
  mkdirSync(root, { mode: 0o710 });
  assert.match(await fails(1, '--root', root, 'gc'), /there is no store in/);
  const info = JSON.parse(await ok('--root', root, '--json', 'info')) as { driver?: string; engine: string };
  assert.deepEqual([info.driver, info.engine], [undefined, 'native'], 'what this machine can, without a store');
  assert.deepEqual(readdirSync(root), []);
  assert.equal(await ok('--root', root, 'create', 'box'), 'box');
  assert.match(await ok('--root', root, 'info'), /^driver +overlay2$/m);
});
