/** The examples, as a person runs them. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { join, resolve } from 'node:path';
import { test, type TestContext } from 'node:test';
import { json } from 'node:stream/consumers';
import { createInterface } from 'node:readline';
import { openImages } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import { buildTar, mountsBelow } from '../../src/testing/index.js';
import { tempDir } from '../support/temp.js';
import { entries, oci, sampleConfig, tar as packEntries } from '../unit/image/archives.js';

const top = resolve(import.meta.dirname, '../..');
const tsx = ['--import', 'tsx'];
const env = { ...process.env, SOURCE_DATE_EPOCH: '1700000000', NODE_OPTIONS: '', NODE_TEST_CONTEXT: undefined };

function prepare(t: TestContext): { directory: string; root: string; tar: string; bytes: Buffer } {
  const directory = tempDir(t, 'example');
  const tar = join(directory, 'base.tar');
  const bytes = buildTar([
    { name: 'etc/', type: '5' },
    { name: 'etc/motd', content: 'hello\n' },
  ]);
  writeFileSync(tar, bytes);
  return { directory, root: join(directory, 'root'), tar, bytes };
}

function runExample(name: string, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...tsx, `examples/${name}.ts`, ...words], {
    cwd: top,
    encoding: 'utf8',
    env,
  });
  assert.equal(status, 0, `${stdout}\n${stderr}`);
  return stdout;
}

test('each example is under 100 lines', () => {
  const names = readdirSync(join(top, 'examples')).filter((name) => name.endsWith('.ts'));
  assert.equal(names.length, 4);
  for (const name of names)
    assert.ok(readFileSync(join(top, 'examples', name), 'utf8').split('\n').length <= 100, name);
});

test('the sandbox pool does 50 jobs with 50 root file systems ready, and leaves nothing', (t) => {
  const { root, tar } = prepare(t);
  const out = runExample('sandbox-pool', root, tar, '50');
  assert.match(out, /^50 jobs, [\d.]+ ms each$/m);
  assert.match(out, /^removed 1 layer, 0 sandboxes left$/m);
  assert.deepEqual(mountsBelow(root), []);
});

test('the build cache runs steps once', (t) => {
  const { root, tar } = prepare(t);
  const steps = ['echo hi > $ROOT/etc/hi', 'rm $ROOT/etc/motd'];
  const first = runExample('build-cache', root, tar, ...steps);
  assert.equal(first.match(/^ran /gm)?.length, 2, first);
  assert.match(first, /A \/etc\/hi/);
  assert.match(first, /D \/etc\/motd/);
  const second = runExample('build-cache', root, tar, ...steps);
  assert.equal(second.match(/^cached /gm)?.length, 2, second);
  const result = (text: string): string | undefined => /^result {2}(sha256:[a-f0-9]{64})$/m.exec(text)?.[1];
  assert.ok(result(first) !== undefined);
  assert.equal(result(second), result(first));
  const third = runExample('build-cache', root, tar, steps[0] ?? '', 'mkdir $ROOT/srv');
  assert.match(third, /^cached {2}echo hi[^]*^ran {5}mkdir/m, 'only what changed runs');
  assert.deepEqual(mountsBelow(root), []);
});

/** The shell of this machine with the libraries that it needs, as a layer's tar. */
function shellTar(directory: string): Buffer {
  const libraries = execFileSync('ldd', ['/bin/sh'], { encoding: 'utf8' }).match(/\/\S+/g) ?? [];
  const path = join(directory, 'shell.tar');
  const files = ['/bin/sh', ...libraries].map((name) => name.slice(1));
  execFileSync('tar', ['-C', '/', '--dereference', '--mtime=@0', '-cf', path, ...files]);
  return readFileSync(path);
}

test('the build tool makes an image out of a recipe', async (t) => {
  const { directory, root } = prepare(t);
  const layer = shellTar(directory);
  const config = sampleConfig([layer], { config: { Env: ['PATH=/bin', 'A=1'], Labels: { from: 'base' } } });
  writeFileSync(
    join(directory, 'base.tar'),
    await packEntries(entries(oci([layer], { name: 'shell:1', config }).files)),
  );
  const recipe = join(directory, 'recipe');
  const out = join(directory, 'out.tar');
  writeFileSync(
    recipe,
    `# a recipe
FROM ${join(directory, 'base.tar')}
ENV GREETING=hello world
RUN echo "$GREETING from $$" > /motd; test ! -e ${directory}
RUN echo more >> /motd; echo done
LABEL stage=test
NAME app:1
CMD ["/bin/sh", "-c", "read line < /motd; echo $line"]
`,
  );
  assert.match(runExample('build-image', root, recipe, out), /^done\nimage sha256:[a-f0-9]{64}$/m);

  await using store = await openStore({ root: join(directory, 'other'), durability: 'relaxed' });
  const images = await openImages(store);
  const [image] = await images.load({ path: out });
  assert.ok(image !== undefined);
  assert.deepEqual([image.names, image.diffIDs.length], [['app:1'], 3]);
  assert.deepEqual(image.config.config, {
    Cmd: ['/bin/sh', '-c', 'read line < /motd; echo $line'],
    Env: ['PATH=/bin', 'A=1', 'GREETING=hello world'],
    Labels: { from: 'base', stage: 'test' },
  });
  assert.equal(image.config.created, '2023-11-14T22:13:20Z');
  const box = await store.createRWLayer('box', image.chainID);
  assert.equal(
    readFileSync(join(await box.mount(), 'motd'), 'utf8'),
    'hello world from 1\nmore\n',
    'in a pid namespace',
  );
  await box.unmount();
  await store.releaseRWLayer(box);

  await using again = await openStore({ root });
  assert.deepEqual(again.mounts(), new Map(), 'no RW layer is left');
  assert.equal(again.map().size, 3);
  assert.deepEqual(mountsBelow(root), []);
});

class Daemon {
  readonly #child: ChildProcess;
  readonly #socket: string;
  readonly lines: string[] = [];

  constructor(t: TestContext, root: string, socket: string) {
    this.#socket = socket;
    this.#child = spawn(process.execPath, [...tsx, 'examples/daemon.ts', root, socket], {
      cwd: top,
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => this.#child.kill('SIGKILL'));
  }

  async listening(): Promise<string> {
    const { stdout } = this.#child;
    assert.ok(stdout !== null);
    const reader = createInterface(stdout);
    reader.on('line', (line) => this.lines.push(line));
    while (!this.lines.some((line) => line.startsWith('listening'))) await once(reader, 'line');
    return this.lines.find((line) => line.startsWith('listening')) ?? '';
  }

  async ask<T>(method: string, path: string, body?: Uint8Array): Promise<{ status: number | undefined; value: T }> {
    const sent = request({ socketPath: this.#socket, method, path });
    sent.end(body);
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    return { status: response.statusCode, value: (await json(response)) as T };
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
    assert.match(this.lines.at(-1) ?? '', /^stopped; mounts stay/);
  }
}

test('the daemon restarts with live mounts', async (t) => {
  const { directory, root, bytes } = prepare(t);
  const socket = join(directory, 'socket');
  const first = new Daemon(t, root, socket);
  assert.match(await first.listening(), /0 boxes from before/);
  const layer = await first.ask<{ chainID: string }>('PUT', '/layers', bytes);
  assert.equal(layer.status, 200);
  const box = await first.ask<{ path: string }>('PUT', `/boxes/one?parent=${layer.value.chainID}`);
  assert.equal(readFileSync(join(box.value.path, 'etc/motd'), 'utf8'), 'hello\n');
  assert.equal((await first.ask('PUT', '/boxes/one')).status, 409, 'the name is taken');
  assert.equal((await first.ask('GET', '/boxes/two/changes')).status, 404);
  assert.equal((await first.ask('PUT', '/layers', Buffer.from('no tar'.repeat(200)))).status, 400);
  await first.stop();

  writeFileSync(join(box.value.path, 'etc/new'), 'written while no daemon ran');
  const second = new Daemon(t, root, socket);
  assert.match(await second.listening(), /1 boxes from before/);
  const boxes = await second.ask<{ name: string; mountCount: number; path: string }[]>('GET', '/boxes');
  assert.deepEqual(
    boxes.value.map(({ name, mountCount, path }) => ({ name, mountCount, path })),
    [{ name: 'one', mountCount: 1, path: box.value.path }],
  );
  const changes = await second.ask<{ path: string; kind: string }[]>('GET', '/boxes/one/changes');
  assert.deepEqual(changes.value, [
    { path: '/etc', kind: 'modify' },
    { path: '/etc/new', kind: 'add' },
  ]);
  assert.equal((await second.ask('DELETE', '/boxes/one')).status, 200);
  assert.deepEqual(mountsBelow(root), []);
  assert.deepEqual((await second.ask('GET', '/boxes')).value, []);
  await second.stop();
});
