/** The command line end to end, each command a process of its own, as a person uses it. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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
    assert.match(stderr, /^([a-f0-9]{12}: (Load complete|Already exists|Saved)[^\n]*\n)*$/, words.join(' '));
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
    assert.doesNotMatch(
      outcome.stderr,
      /\w\(\)|"readOnly"|storageOpt/,
      'words of the command line, not of the library',
    );
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

  assert.equal(cli.ok('create', 'box', child.chainID), 'box', 'what the other commands take');
  assert.match(cli.fails(1, 'create', 'box'), /"box" already.*layerstore rm box/);
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
  assert.match(cli.fails(1, 'umount', 'box'), /"box" is not mounted/);

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
  assert.match(cli.fails(2, 'nonsense'), /no command "nonsense"/);
  cli.ok('rm', cli.ok('register', await tarFile(join(cli.directory, 'a.tar'), { a: 'a' })));
  assert.match(cli.fails(1, 'register', join(cli.directory, 'missing')), /missing.*ENOENT/);
  const failed = cli.run(['--json', 'mount', 'nobody']);
  assert.equal(failed.code, 1);
  assert.deepEqual(Object.keys((JSON.parse(failed.stdout) as { error: object }).error), ['code', 'message']);
  assert.deepEqual(cli.json('ls'), { layers: [], rwLayers: [] });
});

/** An archive as `docker save` writes it, of one layer with the name `demo:1`. */
async function demoArchive(directory: string): Promise<{ archive: Buffer; layer: Buffer; chainID: string }> {
  const layer = readFileSync(await tarFile(join(directory, 'l.tar'), { 'bin/sh': '#!' }));
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    history: [
      { created: '2024-05-06T07:08:09Z', created_by: 'ADD rootfs.tar /' },
      { created_by: 'CMD ["sh"]', empty_layer: true, comment: 'by hand' },
    ],
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
  return { archive: Buffer.concat(chunks), layer, chainID: `sha256:${sha256(layer)}` };
}

test('images: load from a pipe, list, save, remove', async (t) => {
  const cli = new Cli(t);
  const { archive, layer } = await demoArchive(cli.directory);
  const short = sha256(layer).slice(0, 12);
  for (const [words, stderr] of [
    [['load'], `${short}: Load complete, 2.05 kB\n`],
    [['load', '-'], `${short}: Already exists\n`],
    [['load', '-q'], ''],
  ] as const) {
    const loaded = cli.run(words, archive);
    assert.deepEqual(loaded, { code: 0, stdout: `demo:1 sha256:${sha256(layer)}\n`, stderr }, words.join(' '));
  }
  assert.match(cli.ok('images'), /demo:1/);
  assert.match(cli.ok('images', '-q'), /^[a-f0-9]{12}$/);
  cli.ok('create', 'box', 'demo:1');
  assert.match(cli.fails(1, 'rm', `sha256:${sha256(layer)}`), /in use/);
  const saved = join(cli.directory, 'saved.tar');
  cli.ok('save', 'demo:1', '-o', saved);
  cli.ok('rm', 'box');
  assert.equal(cli.ok('rm', 'demo:1'), `sha256:${sha256(layer)}`);
  assert.equal(cli.ok('load', saved), `demo:1 sha256:${sha256(layer)}`);
  const oci = join(cli.directory, 'oci.tar');
  cli.ok('save', 'demo:1', '--format', 'oci', '--compression', 'gzip', '-o', oci);
  cli.ok('rmi', 'demo:1');
  assert.match(cli.ok('load', '-i', oci), new RegExp(`sha256:${sha256(layer)}`));
  assert.match(cli.fails(2, 'load', '-i', oci, oci), /one archive/);
});

test('build-image: an image out of a base, an RW layer and options', async (t) => {
  const cli = new Cli(t);
  const { archive, chainID } = await demoArchive(cli.directory);
  cli.run(['load'], archive);
  cli.ok('create', 'box', 'demo:1');
  writeFileSync(join(cli.ok('mount', 'box'), 'made'), 'x');
  cli.ok('umount', 'box');
  const first = ['--cmd', '["/bin/app","-v"]', '--env', 'A=1', '--env', 'B=x=y', '--label', 'l=1', '--workdir', '/srv'];
  const built = cli.json<{ id: string; names: string[]; chainID: string; diffIDs: string[] }>(
    ...['build-image', '--base', 'demo:1', ...first, '--user', '1:1', '--name', 'app:1', '--name', 'app:latest', 'box'],
  );
  assert.deepEqual([built.names, built.diffIDs.length], [['app:1', 'app:latest'], 2]);
  assert.notEqual(built.chainID, chainID);
  interface Inspected {
    config: { config: Record<string, unknown>; history: { created_by: string }[] };
  }
  const { config } = cli.json<Inspected>('inspect', '--type', 'image', 'app:1');
  assert.deepEqual(config.config, {
    Cmd: ['/bin/app', '-v'],
    Env: ['A=1', 'B=x=y'],
    Labels: { l: '1' },
    User: '1:1',
    WorkingDir: '/srv',
  });
  assert.deepEqual(
    config.history.map((entry) => entry.created_by),
    ['ADD rootfs.tar /', 'CMD ["sh"]', 'layerstore'],
  );

  // On its layers again: what is asked for replaces or joins what the base says.
  const second = ['--entrypoint', 'exec app', '--env', 'A=2', '--label', 'm=', '--expose', '80', '--volume', '/data'];
  const created = ['--created', '2024-01-01T00:00:00Z', '--stop-signal', 'SIGINT', '--comment', 'more'];
  const id = cli.ok('build-image', '--base', 'app:1', ...second, ...created);
  assert.match(id, /^sha256:[a-f0-9]{64}$/);
  assert.equal(cli.ok('build-image', '--base', 'app:1', ...second, ...created), id, 'reproducible');
  assert.deepEqual(cli.json<Inspected>('inspect', '--type', 'image', id).config.config, {
    Cmd: [],
    Entrypoint: ['/bin/sh', '-c', 'exec app'],
    Env: ['B=x=y', 'A=2'],
    ExposedPorts: { '80/tcp': {} },
    Labels: { l: '1', m: '' },
    StopSignal: 'SIGINT',
    User: '1:1',
    Volumes: { '/data': {} },
    WorkingDir: '/srv',
  });

  assert.match(cli.ok('history', id), /more/);

  assert.match(cli.fails(1, 'build-image', '--base', 'none:1', 'box'), /no image "none:1"/);
  assert.match(cli.fails(1, 'build-image', '--base', 'demo:1', '--name', 'A B', 'box'), /not an image name/);
  assert.match(cli.fails(2, 'build-image', '--base', 'demo:1', 'app:1'), /is an image: give it as --base/);
  assert.match(cli.fails(2, 'build-image'), /needs --base IMAGE/);
  for (const wrong of [
    ['--env', 'A'],
    ['--label', '=x'],
    ['--cmd', '["a",1]'],
    ['--entrypoint', '["a"'],
    ['--created', 'soon'],
  ])
    assert.match(cli.fails(2, 'build-image', '--base', 'demo:1', ...wrong), new RegExp(`${wrong[0] ?? ''} takes`));
  cli.ok('rm', 'box');
  for (const name of ['app:1', 'app:latest', id, 'demo:1']) cli.ok('rmi', name);
  assert.deepEqual(cli.json<{ layers: unknown[] }>('ls').layers, [], 'a failed build leaves no layer');
});

test('names are taken wherever an id is: tag, history, export, verify, register, rm of several', async (t) => {
  const cli = new Cli(t);
  const { archive, layer, chainID } = await demoArchive(cli.directory);
  cli.run(['load'], archive);
  assert.equal(cli.ok('tag', 'demo:1', 'other:2'), '');
  const both = join(cli.directory, 'both.tar');
  cli.ok('save', 'demo:1', 'other:2', '-o', both);
  const manifest = execFileSync('tar', ['-xOf', both, 'manifest.json'], { encoding: 'utf8' });
  assert.deepEqual((JSON.parse(manifest) as { RepoTags: string[] }[])[0]?.RepoTags, ['demo:1', 'other:2']);
  assert.deepEqual(cli.json<{ names: string[] }[]>('images')[0]?.names, ['demo:1', 'other:2']);

  assert.match(
    cli.ok('history', 'other:2'),
    /CMD \["sh"\] +by hand\n.* 2024-05-06 07:08:09 {2}ADD rootfs.tar \/ +2 B$/,
  );
  assert.deepEqual(cli.json('history', 'demo:1'), [
    { createdBy: 'CMD ["sh"]', comment: 'by hand' },
    { created: '2024-05-06T07:08:09Z', createdBy: 'ADD rootfs.tar /', chainID, size: 2 },
  ]);

  const upper = await tarFile(join(cli.directory, 'upper.tar'), { 'srv/x': 'x' });
  const child = cli.ok('register', '--parent', 'demo:1', upper);
  cli.ok('create', 'box', child);
  writeFileSync(join(cli.ok('mount', 'box'), 'srv/new'), 'new');
  const listed = (...words: string[]): string[] => {
    const file = join(cli.directory, 'out.tar');
    cli.ok('export', ...words, '-o', file);
    return execFileSync('tar', ['-tf', file], { encoding: 'utf8' }).trimEnd().split('\n');
  };
  assert.deepEqual(listed('demo:1'), ['bin/', 'bin/sh'], 'an image: its root file system');
  assert.deepEqual(listed('box'), ['srv/', 'srv/new'], 'an RW layer: its changes');
  assert.deepEqual(listed(chainID), ['bin/sh'], 'a layer: the tar as it was registered');
  const whole = cli.run(['export', 'demo:1'], undefined).stdout;
  assert.ok(whole.includes('bin/sh'));
  assert.equal(layer.length % 512, 0);

  assert.match(cli.ok('verify', 'demo:1'), /^[a-f0-9]{12} {2}ok$/);
  assert.match(cli.ok('verify', 'box', 'demo:1'), /^([a-f0-9]{12} {2}ok\n?){2}$/, 'each layer once');

  assert.match(cli.fails(1, 'rm', 'other:2', 'nothing'), /called "nothing"/);
  assert.deepEqual(cli.json<{ names: string[] }[]>('images')[0]?.names, ['demo:1', 'other:2'], 'nothing was removed');
  assert.match(cli.fails(1, 'rm', 'box'), /mounted/);
  assert.deepEqual(
    cli
      .json<{ chainID: string }[]>('rm', '-f', 'box', 'missing', child, 'demo:1', 'other:2')
      .map((each) => each.chainID),
    [child, chainID],
  );
  assert.deepEqual(cli.json('ls'), { layers: [], rwLayers: [] });
});

for (const [signal, expected] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  test(`${signal} leaves nothing behind and exits with ${expected}`, (t) => interrupts(t, signal, expected));

async function interrupts(t: TestContext, signal: 'SIGINT' | 'SIGTERM', expected: number): Promise<void> {
  const cli = new Cli(t);
  cli.ok('rm', cli.ok('register', await tarFile(join(cli.directory, 'small.tar'), { small: 'x' })));
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
  child.kill(signal);
  const [code, stderr] = await new Promise<[number | null, string]>((resolve) => {
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    child.on('close', (status) => resolve([status, text]));
  });
  assert.equal(code, expected, stderr);
  assert.match(stderr, new RegExp(`interrupted by ${signal}`));
  assert.deepEqual(listing(cli.root), before);
}

function listing(root: string): string[] {
  return readdirSync(root, { recursive: true }).map(String).sort();
}

/** Runs a shell with the completion script loaded and `layerstore` being this command. */
function inShell(cli: Cli, shell: 'bash' | 'zsh' | 'fish', program: string): string[] {
  const script = join(cli.directory, `completion.${shell}`);
  writeFileSync(script, cli.ok('completion', shell));
  const call = `layerstore() { ${process.execPath} ${main} "$@"; }`;
  const start = {
    bash: ['--norc', '-c', `${call}; source ${script}; ${program}`],
    zsh: ['-f', '-c', `${call}; compdef() { :; }; source ${script}; ${program}`],
    fish: [
      '--no-config',
      '-c',
      `function layerstore; ${process.execPath} ${main} $argv; end; source ${script}; ${program}`,
    ],
  };
  const env = { ...process.env, NODE_OPTIONS: '', HOME: cli.directory, TERM: 'dumb' };
  const { status, stdout, stderr } = spawnSync(shell, start[shell], { cwd: cli.directory, encoding: 'utf8', env });
  assert.deepEqual([status, stderr], [0, ''], `${shell}: ${stdout}${stderr}`);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split('\t')[0]?.trimEnd() ?? '');
}

test('shells complete commands, options, and names of images, layers and RW layers', async (t) => {
  const cli = new Cli(t);
  assert.match(cli.fails(2, 'completion', 'tcsh'), /bash, zsh and fish/);
  const complete = {
    bash: (line: string) =>
      inShell(
        cli,
        'bash',
        `COMP_LINE='${line}'; COMP_POINT=\${#COMP_LINE}; _layerstore; printf '%s\\n' "\${COMPREPLY[@]}"`,
      ),
    // What compadd would leave out, since it does not begin with the word, is left out here.
    zsh: (line: string) =>
      inShell(
        cli,
        'zsh',
        `compadd() { shift; print -l -- "\${(M)@:#$words[CURRENT]*}"; }; _files() { print FILES; }; words=('${line.split(' ').join("' '")}'); CURRENT=$#words; _layerstore; true`,
      ),
    fish: (line: string) => inShell(cli, 'fish', `complete -C '${line}'`),
  };
  const shells = ['bash', 'zsh', 'fish'] as const;
  for (const shell of shells) {
    assert.deepEqual(complete[shell](`layerstore --root ${cli.root} mount `), [], `${shell}: no store, no complaint`);
    assert.deepEqual(complete[shell]('layerstore moun'), ['mount'], shell);
    assert.ok(complete[shell]('layerstore rm --ty').includes('--type'), shell);
  }
  assert.ok(!existsSync(cli.root));

  const { archive, chainID } = await demoArchive(cli.directory);
  cli.run(['load', '-q'], archive);
  for (const name of ['box-1', 'box-2', 'other']) cli.ok('create', name, 'demo:1');
  const layer = chainID.slice(7, 19);
  for (const shell of shells) {
    const at = (line: string): string[] => complete[shell](`layerstore --root ${cli.root} ${line}`).sort();
    assert.deepEqual(at('mount bo'), ['box-1', 'box-2'], shell);
    assert.deepEqual(at('unmount '), ['box-1', 'box-2', 'other'], shell);
    assert.deepEqual(at('history '), ['demo:1'], shell);
    assert.deepEqual(at('verify '), [layer, 'box-1', 'box-2', 'demo:1', 'other'].sort(), shell);
  }
  assert.deepEqual(complete.bash(`layerstore --root=${cli.root} save demo:`), ['1'], 'what follows the colon');
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
  const shown = JSON.parse(info.stdout) as { engine: string; engineReason: string; features: Record<string, string> };
  assert.match(shown.engineReason, /LAYERSTORE_HIDE_ADDON/);
  assert.equal(shown.engine, 'js');
  assert.match(shown.features['fsopen'] ?? '', /only the native engine/);
  assert.match(cli.run(['info'], undefined, hidden).stdout, /^engine +js: [^\n]*LAYERSTORE_HIDE_ADDON/m);

  const refused = cli.run(['--engine', 'native', 'ls'], undefined, hidden);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /^layerstore: [^\n]*native engine[^\n]*LAYERSTORE_HIDE_ADDON[^\n]*\n$/);
  assert.equal(cli.run(['--engine', 'js', 'ls'], undefined, hidden).stderr, '', 'asked for: nothing to say');
});
