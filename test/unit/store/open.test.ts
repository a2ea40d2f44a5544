/** Opening: roots, locks, versions, options. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore } from '../../../src/store/open.js';
import type { StoreOptions } from '../../../src/store/types.js';
import { runUntilItSpeaks } from '../../support/other-process.js';
import { FullMemoryDriver } from './memory-driver.js';
import { Bench, code, streamOf, tarOf } from './support.js';

test('a missing root is made with a tight mode, whatever the umask', async (t) => {
  const bench = await Bench.make(t);
  const before = process.umask(0o077);
  try {
    await bench.open({ root: join(bench.root, 'deep', 'root') });
  } finally {
    process.umask(before);
  }
  assert.equal((await stat(join(bench.root, 'deep', 'root'))).mode & 0o7777, 0o710);
  assert.equal((await stat(join(bench.root, 'deep', 'root', 'layerstore'))).mode & 0o7777, 0o700);
  assert.equal(await readFile(join(bench.root, 'deep', 'root', 'layerstore', 'version'), 'utf8'), '1\n');
});

test('a root that is a file, below a file, or missing for a reader', async (t) => {
  const bench = await Bench.make(t);
  await writeFile(bench.root, 'precious');
  const notADirectory = (error: unknown): boolean =>
    code('ERR_SYSTEM', bench.root)(error) && (error as { errnoName?: string }).errnoName === 'ENOTDIR';
  await assert.rejects(bench.open(), notADirectory);
  await assert.rejects(bench.open({ root: join(bench.root, 'below') }), notADirectory);
  assert.equal(await readFile(bench.root, 'utf8'), 'precious');
  await rm(bench.root);
  await assert.rejects(
    bench.open({ readOnly: true }),
    (error) => code('ERR_SYSTEM')(error) && (error as { errno?: number; errnoName?: string }).errnoName === 'ENOENT',
  );
  await assert.rejects(stat(bench.root), 'a reader makes nothing');
});

test('a root that others may write to is refused unless asked for', async (t) => {
  const bench = await Bench.make(t);
  await mkdir(bench.root);
  for (const mode of [0o777, 0o770, 0o1777]) {
    await chmod(bench.root, mode);
    await assert.rejects(bench.open(), code('ERR_INVALID_ARGUMENT', 'allowWritableRoot'));
  }
  await (await bench.open({ allowWritableRoot: true })).close();
  await chmod(bench.root, 0o755);
  await mkdir(join(bench.root, 'overlay2'));
  await chmod(join(bench.root, 'overlay2'), 0o777);
  await assert.rejects(bench.open(), code('ERR_INVALID_ARGUMENT', 'overlay2'));
  await chmod(join(bench.root, 'overlay2'), 0o710);
  await symlink(bench.root, `${bench.root}-link`);
  await bench.open({ root: `${bench.root}-link` });
});

test('one writer a root; the error names the holder', async (t) => {
  const bench = await Bench.make(t);
  const store = await bench.open();
  const locked = code('ERR_STORE_LOCKED', `pid ${process.pid}`);
  await assert.rejects(bench.open(), locked);
  await (await bench.openOnDisk({ readOnly: true, driver: bench.driver() })).close();
  await store.close();
  await (await bench.open()).close();
});

test('the lock goes with a killed process, and another process is named', async (t) => {
  const bench = await Bench.make(t);
  const url = new URL('../../../src/store/open.js', import.meta.url).href;
  const child = await runUntilItSpeaks(`const { openStore } = await import(${JSON.stringify(url)});
    await openStore({ root: ${JSON.stringify(bench.root)}, driver: 'vfs', engine: 'js' });
    console.log('open');`);
  t.after(() => child.kill());
  await assert.rejects(bench.open({ driver: 'vfs' }), (error) => {
    code('ERR_STORE_LOCKED', /\(pid \d+\)/)(error);
    const { holders } = error as { holders?: { pid: number }[] };
    return holders?.[0] !== undefined;
  });
  await child.kill();
  for (let round = 0; ; round += 1) {
    try {
      await (await openStore({ root: bench.root, driver: 'vfs', engine: 'js' })).close();
      break;
    } catch (error) {
      // The pure-JavaScript engine's lock is held by a helper that ends a moment after its parent.
      if (round === 6_000) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
});

test("dockerd's databases keep a writer out, and a writer keeps dockerd out", async (t) => {
  const bench = await Bench.make(t);
  await mkdir(join(bench.root, 'volumes'), { recursive: true });
  await mkdir(join(bench.root, 'buildkit'));
  await chmod(bench.root, 0o710);
  for (const path of [join(bench.root, 'volumes', 'metadata.db'), join(bench.root, 'buildkit', 'snapshots.db')]) {
    await writeFile(path, '');
    const docker = spawn('/usr/bin/flock', ['-n', path, '-c', 'echo locked; exec sleep 60'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => docker.kill('SIGKILL'));
    await once(docker.stdout, 'data');
    await assert.rejects(bench.open(), code('ERR_STORE_LOCKED', 'dockerd'));
    await (await bench.openOnDisk({ readOnly: true, driver: bench.driver() })).close();
    docker.kill('SIGKILL');
    await once(docker, 'exit');
    await rm(path);
  }
  const path = join(bench.root, 'volumes', 'metadata.db');
  await writeFile(path, '');
  const store = await bench.open();
  const tries = async (): Promise<number> => {
    const docker = spawn('/usr/bin/flock', ['-n', path, 'true']);
    const [exit] = (await once(docker, 'exit')) as [number];
    return exit;
  };
  assert.equal(await tries(), 1);
  await store.close();
  assert.equal(await tries(), 0);
});

test('a newer format is refused, a damaged version is set aside', async (t) => {
  const bench = await Bench.make(t);
  await (await bench.open()).close();
  const path = join(bench.root, 'layerstore', 'version');
  await writeFile(path, '2\n');
  await assert.rejects(bench.open(), code('ERR_NOT_SUPPORTED', 'format version 2'));
  await assert.rejects(bench.openOnDisk({ readOnly: true, driver: bench.driver() }), code('ERR_NOT_SUPPORTED'));
  await writeFile(path, 'garbage');
  await bench.open();
  assert.equal(await readFile(path, 'utf8'), '1\n');
  assert.ok(bench.lines.some(({ level, message }) => level === 'warn' && message.includes('version')));
});

const wrong: [string, object | undefined][] = [
  ['no options', undefined],
  ['no root', {}],
  ['an empty root', { root: '' }],
  ['an unknown option', { rooot: '/x' }],
  ['a driver that is none', { driver: 'zfs' }],
  ['an incomplete driver', { driver: { name: 'x' } }],
  ['a driver named as a path', { driver: Object.assign(new FullMemoryDriver(), { name: '../x' }) }],
  ['an incomplete metadata store', { metadataStore: {} }],
  ['an engine that is none', { engine: 'wasm' }],
  ['a durability that is none', { durability: 'fast' }],
  ['a depth of 0', { maxDepth: 0 }],
  ['an unknown limit', { limits: { maxFiles: 1 } }],
  ['a limit below 0', { limits: { maxBytes: -1 } }],
  ['a limit that is no number', { limits: { maxBytes: '1' } }],
  ['readOnly that is a text', { readOnly: 'yes' }],
  ['a logger without methods', { logger: {} }],
  ['an unknown driver option', { driver: 'overlay2', driverOptions: { 'overlay2.color': 'red' } }],
  ['a driver option that is no text', { driverOptions: { 'overlay2.size': 1 } }],
];
for (const [what, options] of wrong) {
  test(`openStore with ${what} is ERR_INVALID_ARGUMENT`, async (t) => {
    const bench = await Bench.make(t);
    const root = what.includes('root') ? {} : { root: bench.root };
    const given = options === undefined ? undefined : { engine: 'js', ...root, ...options };
    await assert.rejects(openStore(given as unknown as StoreOptions), code('ERR_INVALID_ARGUMENT', /.{20}/));
  });
}

test('a failed open gives back what it had opened', async (t) => {
  const bench = await Bench.make(t);
  const driver = new FullMemoryDriver(bench.disk);
  driver.list = () => Promise.reject(new Error('no list'));
  await assert.rejects(bench.open({ driver }), /no list/);
  assert.ok(driver.calls.includes('close'));
  const store = await bench.open();
  await store.register(streamOf(tarOf('a')));
});
