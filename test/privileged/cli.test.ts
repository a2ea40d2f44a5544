/** The command line end to end, each command a process of its own, as a person uses it. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pack } from 'tar-stream';
import { tempDir } from '../support/temp.js';

const top = resolve(import.meta.dirname, '../..');
// The compiled command, as it is published: `npm test` compiles before it runs.
const main = join(top, 'dist/cli/main.js');

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

class Cli {
  readonly directory: string;
  readonly root: string;

  constructor(t: TestContext) {
    this.directory = tempDir(t, 'cli');
    this.root = join(this.directory, 'root');
  }

  run(words: readonly string[], input?: Uint8Array, env: NodeJS.ProcessEnv = {}): Outcome {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, '--root', this.root, ...words], {
      cwd: top,
      encoding: 'utf8',
      maxBuffer: 64 << 20,
      env: { ...process.env, NO_COLOR: '', NODE_OPTIONS: '', ...env },
      ...(input === undefined ? {} : { input }),
    });
    return { code: status, stdout, stderr };
  }

  ok(...words: string[]): string {
    const { code, stdout, stderr } = this.run(words);
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
    assert.equal(stderr, '', words.join(' '));
    return stdout.trimEnd();
  }

  json<T>(...words: string[]): T {
    const text = this.ok('--json', ...words);
    assert.equal(text.split('\n').length, 1, 'one JSON value on one line');
    return JSON.parse(text) as T;
  }

  /** The one line on standard error. */
  fails(code: number, ...words: string[]): string {
    const outcome = this.run(words);
    assert.equal(outcome.code, code, `${words.join(' ')}: ${outcome.stdout}${outcome.stderr}`);
    assert.equal(outcome.stdout, '');
    assert.match(outcome.stderr, /^layerstore: [^\n]+\n$/, 'exactly one line, no stack trace');
    return outcome.stderr.trimEnd();
  }
}

async function tarFile(path: string, files: Readonly<Record<string, string>>): Promise<string> {
  const tar = pack();
  for (const [name, content] of Object.entries(files)) tar.entry({ name, mtime: new Date(0) }, content);
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  writeFileSync(path, Buffer.concat(chunks));
  return path;
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

test('a layer and an RW layer through all of their commands', async (t) => {
  const cli = new Cli(t);
  const base = await tarFile(join(cli.directory, 'base.tar'), { 'etc/motd': 'hello\n', 'etc/passwd': 'root\n' });
  const upper = await tarFile(join(cli.directory, 'upper.tar'), { 'srv/x': 'x' });

  const chainID = cli.ok('register', base);
  assert.equal(chainID, `sha256:${sha256(readFileSync(base))}`, 'a base layer: chain id and diff id are one');
  const child = cli.json<{ chainID: string; parent: string; diffSize: number; size: number }>(
    'register',
    '--parent',
    chainID.slice(7, 19),
    upper,
  );
  assert.equal(child.parent, chainID);
  assert.deepEqual([child.diffSize, child.size], [1, 12]);

  const ls = cli.json<{ layers: { chainID: string; references: string[] }[]; rwLayers: unknown[] }>('ls');
  assert.deepEqual(
    new Map(ls.layers.map((layer) => [layer.chainID, layer.references])),
    new Map([
      [chainID, [`cli:${chainID}`]],
      [child.chainID, [`cli:${child.chainID}`]],
    ]),
  );
  assert.match(cli.ok('ls'), /^LAYER .*\n.*\n└ /);

  const exported = join(cli.directory, 'exported.tar');
  cli.ok('export', chainID, '-o', exported);
  assert.deepEqual(readFileSync(exported), readFileSync(base));

  assert.match(cli.ok('create', 'box', child.chainID), /^[a-f0-9]{64}$/);
  const path = cli.ok('mount', 'box');
  assert.equal(readFileSync(join(path, 'etc/motd'), 'utf8'), 'hello\n', 'mounted after the command has ended');
  writeFileSync(join(path, 'srv/new'), 'new');
  rmSync(join(path, 'etc/passwd'));
  assert.equal(cli.ok('mount', 'box'), path, 'a second mount gives the same path and makes no second mount');
  assert.equal(cli.ok('diff', 'box'), 'C /etc\nD /etc/passwd\nC /srv\nA /srv/new');
  assert.deepEqual(cli.json('diff', 'box'), [
    { path: '/etc', kind: 'modify' },
    { path: '/etc/passwd', kind: 'delete' },
    { path: '/srv', kind: 'modify' },
    { path: '/srv/new', kind: 'add' },
  ]);
  assert.match(cli.fails(1, 'rm', 'box'), /mounted/);
  cli.ok('umount', 'box');
  assert.ok(!existsSync(join(path, 'etc')));
  assert.match(cli.fails(1, 'umount', 'box'), /mounted/);

  const committed = cli.ok('commit', 'box');
  assert.match(committed, /^sha256:[a-f0-9]{64}$/);
  assert.match(cli.fails(1, 'rm', chainID), /in use by layer/);
  assert.match(cli.ok('verify'), /^([a-f0-9]{12} {2}ok\n?){3}$/);
  assert.equal(cli.json<{ type: string }>('inspect', 'box').type, 'rw');
  assert.equal(cli.json<{ type: string }>('inspect', committed).type, 'layer');
  assert.match(cli.ok('df'), /layers +3/);

  assert.equal(cli.ok('rm', 'box'), '');
  assert.equal(cli.ok('rm', committed), committed);
  assert.equal(cli.ok('rm', child.chainID), child.chainID);
  assert.deepEqual(
    cli.json<{ chainID: string }[]>('rm', chainID).map((each) => each.chainID),
    [chainID],
  );
  assert.deepEqual(cli.json('ls'), { layers: [], rwLayers: [] });
  assert.deepEqual(cli.json('gc'), []);
});

test('a damaged layer: verify says where and exits 1', async (t) => {
  const cli = new Cli(t);
  const chainID = cli.ok('register', await tarFile(join(cli.directory, 'a.tar'), { 'a/file': 'content' }));
  const { metadata } = cli.json<{ metadata: Record<string, string> }>('inspect', chainID);
  const directory = metadata['UpperDir'];
  assert.ok(directory !== undefined);
  writeFileSync(join(directory, 'a/file'), 'CONTENT');
  const { code, stdout } = cli.run(['verify', chainID]);
  assert.equal(code, 1);
  assert.match(stdout, /DAMAGED/);
  assert.match(stdout, /a\/file: content/);
});

test('wrong usage exits 2, failures exit 1, each with one line that helps', async (t) => {
  const cli = new Cli(t);
  const tar = await tarFile(join(cli.directory, 'a.tar'), { a: 'a'.repeat(600) });
  for (const [words, pattern] of [
    [['nonsense'], /no command "nonsense"/],
    [['register'], /register takes/],
    [['ls', '--wrong'], /--wrong/],
    [['inspect', '--type', 'thing', 'x'], /--type takes rw, layer or image/],
  ] as const) {
    assert.match(cli.fails(2, ...words), pattern);
  }
  const truncated = join(cli.directory, 'truncated.tar');
  writeFileSync(truncated, readFileSync(tar).subarray(0, 700));
  for (const [words, pattern] of [
    [['register', join(cli.directory, 'missing')], /missing.*ENOENT/],
    [['register', cli.directory], /EISDIR/],
    [['register', main], /checksum|tar/],
    [['register', truncated], /truncated|ends/],
    [['register', '--diff-id', `sha256:${'0'.repeat(64)}`, tar], /0{64}/],
    [['register', '--parent', 'feedbeef', tar], /no layer "feedbeef"/],
    [['mount', 'nobody'], /no RW layer named "nobody"/],
    [['create', '../evil'], /evil/],
    [['create', 'box', 'feedbeef'], /feedbeef/],
    [['create', 'box', '--size', '1G'], /cannot limit the size .*project quota, which .*Omit the size/],
    [['rm', 'nothing'], /nothing/],
    [['load', tar], /image/],
  ] as const) {
    assert.match(cli.fails(1, ...words), pattern, words.join(' '));
  }
  const failed = cli.run(['--json', 'mount', 'nobody']);
  assert.equal(failed.code, 1);
  assert.deepEqual(Object.keys((JSON.parse(failed.stdout) as { error: object }).error), ['code', 'message']);
  assert.deepEqual(cli.json('ls'), { layers: [], rwLayers: [] });
  const file = join(cli.directory, 'a-file');
  writeFileSync(file, '');
  const onFile = spawnSync(process.execPath, [main, '--root', file, 'create', 'x'], { cwd: top, encoding: 'utf8' });
  assert.equal(onFile.status, 1);
  assert.match(onFile.stderr, /a-file/);
});

test('images: load from a pipe, list, save, remove', async (t) => {
  const cli = new Cli(t);
  const layer = readFileSync(await tarFile(join(cli.directory, 'l.tar'), { 'bin/sh': '#!' }));
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(layer)}`] },
  });
  const archive = pack();
  archive.entry({ name: `${sha256(Buffer.from(config))}.json` }, config);
  archive.entry({ name: 'l/layer.tar' }, layer);
  archive.entry(
    { name: 'manifest.json' },
    JSON.stringify([{ Config: `${sha256(Buffer.from(config))}.json`, RepoTags: ['demo:1'], Layers: ['l/layer.tar'] }]),
  );
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);

  const loaded = cli.run(['load', '-'], Buffer.concat(chunks));
  assert.deepEqual(loaded, { code: 0, stdout: `demo:1 sha256:${sha256(layer)}\n`, stderr: '' });
  assert.match(cli.ok('images'), /demo:1/);
  assert.match(cli.ok('create', 'box', 'demo:1'), /^[a-f0-9]{64}$/);
  assert.match(cli.fails(1, 'rm', `sha256:${sha256(layer)}`), /in use/);
  const saved = join(cli.directory, 'saved.tar');
  cli.ok('save', 'demo:1', '-o', saved);
  cli.ok('rm', 'box');
  assert.equal(cli.ok('rm', 'demo:1'), `sha256:${sha256(layer)}`);
  assert.equal(cli.ok('load', saved), `demo:1 sha256:${sha256(layer)}`);
  const oci = join(cli.directory, 'oci.tar');
  cli.ok('save', 'demo:1', '--format', 'oci', '--compression', 'gzip', '-o', oci);
  cli.ok('rm', 'demo:1');
  assert.match(cli.ok('load', oci), new RegExp(`sha256:${sha256(layer)}`));
});

test('Ctrl-C leaves nothing behind', async (t) => {
  const cli = new Cli(t);
  cli.ok('info');
  const before = listing(cli.root);
  const child = spawn(process.execPath, [main, '--root', cli.root, 'register', '-'], {
    cwd: top,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const tar = await tarFile(join(cli.directory, 'big.tar'), { big: 'x'.repeat(1 << 20) });
  // The input stalls in the middle of a file, as a download does; the signal comes when the layer's directory is there.
  // What it has not read when it is stopped cannot be written any more.
  child.stdin.on('error', (error: NodeJS.ErrnoException) => assert.equal(error.code, 'EPIPE'));
  child.stdin.write(readFileSync(tar).subarray(0, 300_000));
  const layers = join(cli.root, 'overlay2');
  for (let i = 0; i < 6_000 && readdirSync(layers).length < 2; i++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(readdirSync(layers).length >= 2, 'a registration is under way');
  child.kill('SIGINT');
  const [code, stderr] = await new Promise<[number | null, string]>((resolve) => {
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    child.on('close', (status) => resolve([status, text]));
  });
  assert.equal(code, 1, stderr);
  assert.match(stderr, /interrupted/);
  // All but files that were taken away already, whose unlinking a busy machine may leave to the next command.
  assert.deepEqual(
    listing(cli.root).filter((path) => !path.includes('.removing-')),
    before,
  );
  cli.ok('gc');
  assert.deepEqual(listing(cli.root), before);
});

function listing(root: string): string[] {
  return readdirSync(root, { recursive: true }).map(String).sort();
}

test('completion scripts parse, and name every command', (t) => {
  const cli = new Cli(t);
  mkdirSync(cli.root, { recursive: true, mode: 0o710 });
  const script = cli.ok('completion', 'bash');
  execFileSync('/bin/bash', ['-n'], { input: script });
  for (const name of ['register', 'umount', 'completion']) assert.ok(script.includes(name), name);
  assert.match(cli.ok('completion', 'fish'), /complete -c layerstore/);
  assert.match(cli.fails(2, 'completion', 'tcsh'), /bash, zsh and fish/);
});

test('without the addon the commands work on JavaScript, say so in one line, and info shows it', async (t) => {
  const cli = new Cli(t);
  const hidden = { LAYERSTORE_HIDE_ADDON: '1' };
  const tar = await tarFile(join(cli.directory, 'layer.tar'), { 'etc/motd': 'hello\n' });
  const said = /^[^\n]*using the pure-JavaScript engine: [^\n]*LAYERSTORE_HIDE_ADDON[^\n]*\n$/;

  const registered = cli.run(['register', tar], undefined, hidden);
  assert.equal(registered.code, 0, registered.stderr);
  assert.match(registered.stderr, said, 'one line that gives the reason');
  assert.equal(registered.stdout, `sha256:${sha256(readFileSync(tar))}\n`);

  const info = cli.run(['--json', 'info'], undefined, hidden);
  assert.equal(info.code, 0, info.stderr);
  assert.match(info.stderr, said);
  const shown = JSON.parse(info.stdout) as { engine: string; features: Record<string, string> };
  assert.equal(shown.engine, 'js');
  assert.match(shown.features['fsopen'] ?? '', /only the native engine/);
  assert.match(cli.run(['info'], undefined, hidden).stdout, /^engine +js$/m);

  const refused = cli.run(['--engine', 'native', 'ls'], undefined, hidden);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^layerstore: [^\n]*native engine[^\n]*LAYERSTORE_HIDE_ADDON[^\n]*\n$/);
  assert.equal(cli.run(['--engine', 'js', 'ls'], undefined, hidden).stderr, '', 'asked for: nothing to say');
});
