/** Stores of who is not root of the machine: in a user namespace, and as a plain user. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openStore } from '../../src/index.js';
import { tempDir } from '../support/temp.js';
import { TARS } from './rootless-tars.js';

/** The machine's id of the namespace's root. */
const OWNER = 200_000;
const MAIN = fileURLToPath(new URL('./rootless-main.ts', import.meta.url));
const CLI = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const ENGINES = ['native', 'js'] as const;

interface Made {
  driver: string;
  privilege: string;
  exact: boolean[];
  problems: unknown[];
  tree: string[];
  hidden: string[];
  standIn: boolean;
  changes: string[];
  foreign: string;
}

function ownedDirectory(t: TestContext, owner: number): string {
  const directory = tempDir(t, 'rootless');
  chownSync(directory, owner, owner);
  chmodSync(directory, 0o755);
  return directory;
}

function json(command: string, args: readonly string[]): unknown {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

/** Runs a program as root of a user namespace that has 65,536 ids. */
async function namespace(t: TestContext): Promise<(args: readonly string[]) => unknown> {
  const holder = spawn('unshare', ['--user', '--mount', 'sleep', '600'], { stdio: 'ignore' });
  t.after(() => holder.kill('SIGKILL'));
  const of = (who: string): string => readlinkSync(`/proc/${who}/ns/user`);
  const pid = String(holder.pid);
  for (let tries = 0; of(pid) === of('self'); tries++) {
    assert.ok(tries < 1000, 'unshare made no user namespace');
    await sleep(10);
  }
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${pid}/${map}`, `0 ${OWNER} 65536\n`);
  return (args) =>
    json('nsenter', ['--target', pid, '--user', '--mount', '--setuid', '0', '--setgid', '0', '--', ...args]);
}

const node = (...args: string[]): string[] => [process.execPath, '--import', import.meta.resolve('tsx'), ...args];

for (const engine of ENGINES) {
  describe(`without the machine's root, ${engine}`, () => {
    it('a user namespace has overlay2, whose layers are exact and verify', async (t) => {
      const root = join(ownedDirectory(t, OWNER), 'store');
      const inside = await namespace(t);
      const made = inside(node(MAIN, root, engine, 'make')) as Made;
      assert.equal(made.driver, 'overlay2');
      assert.equal(made.privilege, 'namespace');
      assert.deepEqual(made.exact, [true, true]);
      assert.deepEqual(made.problems, []);
      assert.deepEqual(made.hidden, ['new']);
      assert.ok(!made.tree.includes('gone') && made.tree.includes('su'));
      assert.ok(made.standIn);
      assert.deepEqual(made.changes, ['add /written']);
      assert.match(made.foreign, /this user namespace does not have that id/);

      for (const reader of ENGINES) {
        await using store = await openStore({ root, engine: reader, readOnly: true, allowWritableRoot: true });
        assert.equal(store.driverName, 'overlay2');
        assert.deepEqual(
          // The JavaScript engine sets times of whole microseconds, which the other one tells as cosmetic.
          (await store.verify()).layers.flatMap(({ problems }) => problems.filter(({ cosmetic }) => !cosmetic)),
          [],
          reader,
        );
        const base = [...store.map().values()].find((layer) => layer.parent === undefined);
        assert.ok(base !== undefined && (await buffer(await base.tarStream())).equals(TARS.base));
        await assert.rejects(openStore({ root, engine: reader, allowWritableRoot: true }), {
          code: 'ERR_NOT_SUPPORTED',
          message: /belong to a user namespace: change them there/,
        });
      }
      const again = inside(node(MAIN, root, engine, 'open'));
      assert.deepEqual(again, { driver: 'overlay2', layers: 3, problems: [], box: ['new'] });
    });

    it('a namespace refuses a root whose layers need trusted attributes', async (t) => {
      const root = join(ownedDirectory(t, OWNER), 'store');
      {
        await using store = await openStore({ root, engine, driver: 'overlay2', durability: 'relaxed' });
        const layer = await store.register(Readable.from([TARS.top]));
        await store.retain(layer.chainID, 'top');
      }
      spawnSync('chown', ['-R', `${OWNER}:${OWNER}`, root]);
      const { code, message } = (await namespace(t))(node(MAIN, root, engine, 'open')) as Record<string, string>;
      assert.equal(code, 'ERR_NOT_SUPPORTED');
      assert.match(message ?? '', /trusted\.\*, which no user namespace can set or see/);
    });

    it('a plain user takes images apart with vfs where owners are ignored, and else is told how', (t) => {
      const directory = ownedDirectory(t, OWNER);
      const user = (...args: string[]): unknown =>
        json('setpriv', [`--reuid=${OWNER}`, `--regid=${OWNER}`, '--clear-groups', '--', ...node(...args)]);
      const refused = user(MAIN, join(directory, 'exact'), engine, 'make') as Record<string, string>;
      assert.match(refused['message'] ?? '', /layerstore unshare.*ignore_chown_errors=true/);

      const made = user(MAIN, join(directory, 'store'), engine, 'ignore') as Made;
      assert.equal(made.driver, 'vfs');
      assert.equal(made.privilege, 'none');
      assert.deepEqual(made.exact, [true, true]);
      assert.deepEqual(made.problems, []);
      assert.deepEqual(made.hidden, ['new']);
      assert.ok(made.standIn);
      assert.equal(made.foreign, 'it was taken');
    });
  });
}

describe('layerstore unshare', () => {
  /** Runs it as a user of these files, which lie over the machine's own in a mount namespace of the test. */
  function unshare(t: TestContext, files: Readonly<Record<string, string>>, ...words: string[]) {
    const directory = ownedDirectory(t, 0);
    const binds = Object.entries(files).map(([name, text]) => {
      writeFileSync(join(directory, name), text, { mode: 0o644 });
      return `mount --bind ${join(directory, name)} /etc/${name} &&`;
    });
    const user = ['setpriv', `--reuid=${OWNER}`, `--regid=${OWNER}`, '--clear-groups', '--'];
    const script = `${binds.join(' ')} exec "$@"`;
    const command = [...user, ...node(CLI, 'unshare', ...words)];
    return spawnSync('unshare', ['--mount', 'sh', '-c', script, 'sh', ...command], { encoding: 'utf8' });
  }
  const passwd = `root:x:0:0::/root:/bin/sh\nalice:x:${OWNER}:${OWNER}::/:/bin/sh\n`;
  const range = 'alice:300000:65536\n';

  it('says which line of which file is missing', (t) => {
    for (const [files, words] of [
      [{ passwd, subuid: '', subgid: range }, /\/etc\/subuid has no line for you.*"alice:100000:65536"/],
      [{ passwd, subuid: range, subgid: 'bob:1:2\n' }, /\/etc\/subgid has no line for you/],
    ] as const) {
      const { status, stderr } = unshare(t, files, 'true');
      assert.equal(status, 1);
      assert.match(stderr, words);
    }
  });

  it('runs a program with its own options as root of the namespace, and gives its exit code', (t) => {
    const files = { passwd, subuid: range, subgid: range };
    const { status, stdout, stderr } = unshare(t, files, 'sh', '-c', 'id -u; cat /proc/self/uid_map; exit 7');
    assert.equal(status, 7, stderr);
    assert.match(stdout, /^0\n\s+0\s+200000\s+1\n\s+1\s+300000\s+65535\n$/);
  });
});
