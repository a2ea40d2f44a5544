/** "Nothing left behind" of layers of very many files: no path of them when close() has resolved, or the command has ended. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readdirSync, statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { openStore } from '../../src/store/open.js';
import { Disks } from '../faults/support/disks.js';
import { tempDir } from '../support/temp.js';

/** Empty files in directories of a thousand, by a header that is patched for each. */
function* manyFiles(count: number): Generator<Uint8Array> {
  const header = Buffer.alloc(512);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write('00000000000\0', 124);
  header.write('00000000000\0', 136);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  const BLOCKS = 1000;
  for (let at = 0; at < count; at += BLOCKS) {
    const chunk = Buffer.alloc(BLOCKS * 512);
    for (let n = 0; n < BLOCKS; n++) {
      header.fill(0, 0, 100);
      header.write(`d${at}/${n}`, 0);
      header.write('        ', 148);
      let sum = 0;
      for (const byte of header) sum += byte;
      header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
      header.copy(chunk, n * 512);
    }
    yield chunk;
  }
}

const nothingPending = (removals: number): void => assert.fail(`${removals} removals are pending`);

/** The driver's directories below `root` but for its own `l`. */
function trees(root: string): string[] {
  return readdirSync(join(root, 'overlay2')).filter((name) => name !== 'l');
}

for (const [engine, files] of [
  ['native', 8_000],
  ['js', 1_500],
] as const) {
  test(`${engine}: a tar that ends in its ${files}th file leaves no path`, async (t) => {
    const root = join(tempDir(t, 'many'), 'root');
    const store = await openStore({ root, engine, driver: 'overlay2', durability: 'relaxed' });
    const cut = function* (): Generator<Uint8Array> {
      yield* manyFiles(files);
      yield Buffer.alloc(100, 'x');
    };
    await assert.rejects(store.register(Readable.from(cut(), { objectMode: false })), { code: 'ERR_BAD_TAR' });
    await store.close({ onPending: nothingPending });
    assert.deepEqual(trees(root), []);
  });

  test(`${engine}: an abort after ${files} files leaves no path`, async (t) => {
    const root = join(tempDir(t, 'many'), 'root');
    const store = await openStore({ root, engine, driver: 'overlay2', durability: 'relaxed' });
    const abort = new AbortController();
    const reason = new Error('enough');
    const stalling = async function* (): AsyncGenerator<Uint8Array> {
      yield* manyFiles(files);
      setTimeout(() => abort.abort(reason), 300);
      await new Promise(() => undefined);
    };
    await assert.rejects(
      store.register(Readable.from(stalling(), { objectMode: false }), undefined, { signal: abort.signal }),
      (error) => error === reason,
    );
    await store.close({ onPending: nothingPending });
    assert.deepEqual(trees(root), []);
  });
}

// The compiled command, as it is published: `npm test` compiles before it runs.
const COMMAND = resolve(import.meta.dirname, '../../dist/cli/main.js');

function run(root: string, ...words: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [COMMAND, '--root', root, ...words], { encoding: 'utf8' });
}

for (const engine of ['native', 'js'] as const)
  test(`${engine}: a command that ran out of inodes gives all of them back`, async (t) => {
    const disks = Disks.cloning(t);
    const place = disks.mount(disks.image('ext4', { bytes: 24 * 1024 * 1024, mkfs: ['-N', '3000'] }), 'ext4');
    const tar = join(tempDir(t, 'many'), 'many.tar');
    await pipeline(Readable.from(manyFiles(4_000)), createWriteStream(tar));
    const root = join(place, 'root');
    await (await openStore({ root, engine, driver: 'overlay2' })).close();
    const { ffree } = statfsSync(place);
    const { status, stderr } = run(root, '--engine', engine, 'register', tar);
    assert.equal(status, 1, stderr);
    assert.match(stderr, /^layerstore: [^\n]*ENOSPC[^\n]*\n$/);
    assert.deepEqual(trees(root), []);
    assert.equal(statfsSync(place).ffree, ffree);
    disks.unmount(place);
  });

const FILES = 120_000;

/** What came last may lie in a block of the reader that is not full yet. */
const UNPACKED = 100_000;

/**
 * A `register` that has unpacked most of {@link FILES} files and waits for more of its input. On a new file system: where as many files
 * were removed some seconds ago, ext4 looks at each of those before it makes another one.
 */
async function stalledRegistration(
  t: TestContext,
): Promise<{ root: string; before: string[]; command: ChildProcess; ended: Promise<[number | null, string]> }> {
  const disks = Disks.cloning(t);
  const image = disks.image('ext4', { bytes: 512 * 1024 * 1024, mkfs: ['-N', String(FILES + 5_000)] });
  const root = join(disks.mount(image, 'ext4'), 'root');
  await (await openStore({ root, driver: 'overlay2' })).close();
  const before = listing(root);
  const command = spawn(process.execPath, [COMMAND, '--root', root, 'register', '-'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  t.after(() => command.kill('SIGKILL'));
  let said = '';
  command.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = once(command, 'close').then(([code]): [number | null, string] => [code as number | null, said]);
  // What it has not read when it is stopped cannot be written any more.
  command.stdin.on('error', (error: NodeJS.ErrnoException) => assert.equal(error.code, 'EPIPE'));
  for (const chunk of manyFiles(FILES)) if (!command.stdin.write(chunk)) await once(command.stdin, 'drain');
  const unpacked = (): boolean =>
    trees(root).some((id) => {
      try {
        return readdirSync(join(root, 'overlay2', id, 'diff', `d${UNPACKED}`)).length > 0;
      } catch {
        return false; // not there yet
      }
    });
  while (!unpacked()) {
    assert.equal(command.exitCode, null, said);
    await delay(50);
  }
  return { root, before, command, ended };
}

function listing(root: string): string[] {
  return readdirSync(root, { recursive: true }).map(String).sort();
}

test(`Ctrl-C after ${FILES} files leaves no path`, async (t) => {
  const { root, before, command, ended } = await stalledRegistration(t);
  command.kill('SIGINT');
  assert.deepEqual(await ended, [130, 'layerstore: interrupted by SIGINT\n']);
  assert.deepEqual(listing(root), before);
});

test('a second Ctrl-C ends the command at once; it says what remains, and the next command removes that', async (t) => {
  const { root, before, command, ended } = await stalledRegistration(t);
  command.kill('SIGINT');
  // The removal has begun: the layer has another name.
  while (!trees(root).some((name) => name.startsWith('.removing-'))) {
    assert.equal(command.exitCode, null, 'the second one comes while it removes');
    await delay(1);
  }
  command.kill('SIGINT');
  const [code, said] = await ended;
  assert.equal(code, 130);
  assert.match(said, /^layerstore: interrupted by SIGINT; files of 1 removed or unfinished layers are still on disk: /);
  const pending = (): number => {
    const { stdout } = run(root, '--json', 'df');
    return (JSON.parse(stdout) as { pendingRemoval: { count: number } }).pendingRemoval.count;
  };
  assert.equal(pending(), 1);
  assert.equal(run(root, 'gc').status, 0);
  assert.equal(pending(), 0);
  assert.deepEqual(listing(root), before);
});
