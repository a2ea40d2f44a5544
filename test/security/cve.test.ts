/**
 * One named test for each public vulnerability of other layer stores that concerns layers: the attack, and that it comes
 * to nothing here. docs/security.md has the table.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { loadBinding } from '../../src/engine/native/load.js';
import { directoryGetter } from '../../src/testing/engine-suite-tars.js';
import { buildTar, storedZstd, type TarEntry } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';
import { attackTest, refusal, repeated, streamOf, Victim } from './support.js';

const file = (name: string, content = '', more: Partial<TarEntry> = {}): TarEntry => ({ name, content, ...more });
const directory = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({ name, type: '5', ...more });
const link = (name: string, linkname: string): TarEntry => ({ name, type: '2', linkname });
const hard = (name: string, linkname: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  type: '1',
  linkname,
  ...more,
});

/** A program that exchanges a directory of the layer and a link out of it for as long as it lives. */
const FLIPPER = `
  const fs = require('node:fs');
  const [, tree, outside] = process.argv;
  process.stdout.write('ready\\n');
  for (;;) {
    try { fs.renameSync(tree + '/d', tree + '/aside'); } catch {}
    try { fs.symlinkSync(outside, tree + '/d'); } catch {}
    try { fs.unlinkSync(tree + '/d'); } catch {}
    try { fs.renameSync(tree + '/aside', tree + '/d'); } catch {}
  }`;

attackTest('CVE-2018-15664: a directory becomes a link out of the layer while files are made in it', async (scene) => {
  const { directory: base, victim, engine } = scene;
  const tree = join(base, 'raced');
  mkdirSync(join(tree, 'd'), { recursive: true });
  const flipper = spawn(process.execPath, ['-e', FLIPPER, tree, victim.directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(flipper.stdout, 'data');
  try {
    for (let round = 0; round < 10; round++) {
      const entries = Array.from({ length: 100 }, (_, i) => [
        file(`d/${round}-${i}`, 'x', { mode: 0o666, uid: 1 }),
        link(`d/link-${round}-${i}`, 'x'),
        directory(`d/sub-${round}-${i}`),
        file(`d/.wh.file`),
      ]).flat();
      const tar = buildTar(entries);
      // It may fail in any way, as its tree is taken from under it; it must not get out.
      await engine.ingest(streamOf([tar]), { directory: tree, whiteouts: 'plain' }).catch(() => undefined);
      victim.assertUntouched(`round ${round}`);
    }
  } finally {
    flipper.kill('SIGKILL');
    await once(flipper, 'exit');
  }
  victim.assertUntouched();
});

attackTest(
  'CVE-2021-32760: a hard link to a symbolic link, whose mode, owner and times would reach its target',
  async (scene) => {
    const { attack, victim } = scene;
    for (const mode of [0o777, 0o4755]) {
      const more = { mode, uid: 7, gid: 7, mtime: 5, pax: { 'SCHILY.xattr.user.x': 'y' } };
      await attack([link('l', victim.file), hard('h', 'l', more), hard('again', 'h', more)]).catch(
        refusal('ERR_SYSTEM', 'ERR_BAD_TAR', 'ERR_UNSAFE_PATH'),
      );
      await attack([link('l', victim.file), hard('h', 'l', { mode, uid: 7, gid: 7, mtime: 5 })]);
      await attack([link('l', victim.directory), directory('l', { mode, uid: 7, gid: 7, mtime: 5 })]);
      victim.assertUntouched();
    }
  },
);

attackTest('CVE-2025-47290: a checked directory is replaced by a link later in the same archive', async (scene) => {
  const { attack, victim, directory: base } = scene;
  const out = victim.directory;
  const { tree } = await attack([directory('d'), file('d/a', 'x'), link('d', '/'), file('d/b', 'in the layer')]);
  assert.equal(readFileSync(join(tree, 'b'), 'utf8'), 'in the layer', 'the layer is the root of its links');
  const archives: TarEntry[][] = [
    [directory('d'), file('d/a', 'x'), link('d', out), file('d/file', 'x')],
    [directory('d/e'), file('d/e/a', 'x'), link('d', join(base)), file('d/victim/file', 'x')],
    [directory('d'), file('d/a'), file('.wh.d'), link('d', out), file('d/file', 'x')],
    [link('d', out), directory('d'), link('d', out), file('d/file', 'x')],
    [directory('a'), link('a/l', '../../victim'), link('b', 'a/l'), file('b/file', 'x')],
    [link('d', '/proc/self/cwd'), file('d/file', 'x')],
    [link('d', '/proc/1/root'), file(`d${victim.file}`, 'x')],
  ];
  for (const [i, entries] of archives.entries()) {
    for (const whiteouts of ['overlay', 'plain'] as const) {
      // Refused, or contained in the layer.
      await attack(entries, { whiteouts }).catch(refusal('ERR_BAD_TAR', 'ERR_UNSAFE_PATH'));
      victim.assertUntouched(`archive ${i}, ${whiteouts}`);
    }
  }
});

attackTest(
  'CVE-2024-9676: a file of the layer is a link to one of the host, or a FIFO that never answers, when it is read',
  async (scene) => {
    const { attack, engine, victim } = scene;
    const { tree, record, result } = await attack([file('etc/passwd', 'secret')]);
    const path = join(tree, 'etc/passwd');
    const read = async (): Promise<Buffer> =>
      buffer(
        await engine.assemble({
          tarSplit: { path: record },
          tree: { ...directoryGetter(tree), directory: tree },
          diffID: result.diffID,
        }),
      );
    assert.ok((await read()).includes('secret'));
    rmSync(path);
    symlinkSync(victim.file, path);
    await assert.rejects(read(), refusal('ERR_LAYER_CORRUPT'));
    rmSync(path);
    execFileSync('mkfifo', [path]);
    await assert.rejects(read(), refusal('ERR_LAYER_CORRUPT'));
    rmSync(join(tree, 'etc'), { recursive: true });
    symlinkSync(victim.directory, join(tree, 'etc'));
    writeFileSync(join(victim.directory, 'passwd'), 'secret');
    await read().then(() => assert.fail('a file of the host was exported'), refusal('ERR_LAYER_CORRUPT'));
  },
);

attackTest(
  'CVE-2019-14271: names of users are never looked up, by whatever library the layer brings',
  async (scene) => {
    const { tree } = await scene.attack([
      file('etc/nsswitch.conf', 'passwd: files evil\n'),
      file('lib/libnss_evil.so.2', 'no library'),
      file('a', 'x', { uname: 'daemon', gname: 'daemon', uid: 4321, gid: 4322 }),
    ]);
    const { uid, gid } = lstatSync(join(tree, 'a'));
    assert.deepEqual([uid, gid], [4321, 4322]);
  },
);

test('CVE-2019-14271, CVE-2026-41567: the addon can start no program, change no root and look up no user', () => {
  const { path } = loadBinding() as unknown as { path: string };
  const wanted = execFileSync('nm', ['-D', '--undefined-only', path], { encoding: 'utf8' });
  assert.match(wanted, /\b(__)?openat(64)?(_2)?\b/);
  assert.doesNotMatch(
    wanted,
    / (fork|vfork|execv\w*|execl\w*|posix_spawnp?|popen|system|chroot|pivot_root|getpw\w+|getgr\w+|initgroups|wordexp)(@|$)/m,
  );
});

attackTest('CVE-2026-41567: no decompressor is taken from PATH', async (scene) => {
  const { attack, directory: base } = scene;
  const bin = join(base, 'bin');
  mkdirSync(bin);
  for (const name of [
    'unpigz',
    'pigz',
    'gzip',
    'gunzip',
    'igzip',
    'zstd',
    'unzstd',
    'xz',
    'tar',
    'setfattr',
    'mknod',
    'mkfifo',
  ]) {
    writeFileSync(join(bin, name), `#!/bin/sh\ntouch ${base}/ran\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const before = process.env['PATH'];
  process.env['PATH'] = `${bin}:${before ?? ''}`;
  try {
    const tar = buildTar([
      file('a', 'x', { pax: { 'SCHILY.xattr.user.a': 'b' } }),
      { name: 'null', type: '3', devmajor: 1, devminor: 3 },
      { name: 'fifo', type: '6' },
      file('.wh.gone'),
    ]);
    assert.equal((await attack(gzipSync(tar))).result.compression, 'gzip');
    assert.equal((await attack(storedZstd(tar))).result.compression, 'zstd');
    await assert.rejects(
      attack(Buffer.concat([Buffer.from('fd377a585a00', 'hex'), tar])),
      refusal('ERR_BAD_TAR', 'ERR_BAD_COMPRESSION', 'ERR_NOT_SUPPORTED'),
    );
  } finally {
    process.env['PATH'] = before;
  }
  assert.ok(!existsSync(join(base, 'ran')));
});

attackTest('CVE-2017-14992: gigabytes of padding behind the end of a small archive fill no memory', async (scene) => {
  const tar = buildTar([file('a', 'x')]);
  const zeros = gzipSync(Buffer.alloc(16 << 20));
  const before = peakMemory();
  const { result, record } = await scene.attack(streamOf([gzipSync(tar), ...repeated(zeros, 16)]));
  assert.equal(result.tarSize, tar.length + 16 * (16 << 20));
  assert.ok(peakMemory() - before < 200 << 20, `${peakMemory() - before} bytes more`);
  assert.ok(statSync(record).size < 4 << 20, 'the record is small, too');
});

/** Highest resident size of this process since the last call. */
function peakMemory(): number {
  const [, kib] = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  writeFileSync('/proc/self/clear_refs', '5');
  return Number(kib) * 1024;
}

attackTest('CVE-2021-20291: broken archives hold nothing up, several at once', async (scene) => {
  const { attack, directory: base } = scene;
  const tar = buildTar([file('big', 'x'.repeat(2 << 20))]);
  const broken = [
    tar.subarray(0, 1 << 20),
    gzipSync(tar).subarray(0, 900),
    storedZstd(tar).subarray(0, 1 << 20),
    Buffer.alloc(3 << 20, 'garbage'),
    Buffer.concat([tar.subarray(0, 512), Buffer.alloc(4 << 20, 'x')]),
    gzipSync(Buffer.alloc(3 << 20, 'garbage')),
  ];
  const outcomes = await Promise.allSettled([...broken, ...broken].map((bytes) => attack(bytes)));
  for (const outcome of outcomes) {
    assert.equal(outcome.status, 'rejected');
    refusal('ERR_BAD_TAR', 'ERR_BAD_COMPRESSION')(outcome.reason);
  }
  assert.equal((await attack(tar)).result.entries, 1);
  assert.deepEqual(
    readdirSync(base).filter((name) => name.endsWith('.gz')).length,
    1,
    'only the good archive left a record',
  );
});

attackTest('CVE-2024-23652: taking away what a link points to', async (scene) => {
  const { attack, engine, victim } = scene;
  const out = victim.directory;
  const archives: TarEntry[][] = [
    [link('l', out), file('l/.wh.file')],
    [link('l', out), file('l/.wh..wh..opq')],
    [link('l', '../victim'), file('.wh.l')],
    [link('l', victim.file), file('l', 'replaced')],
    [directory('d'), link('d/l', out), file('.wh.d')],
    [directory('d'), link('d/l', out), file('d', 'replaced')],
  ];
  for (const entries of archives) {
    for (const whiteouts of ['overlay', 'plain'] as const) {
      await attack(entries, { whiteouts }).catch(refusal('ERR_BAD_TAR', 'ERR_UNSAFE_PATH'));
      victim.assertUntouched();
    }
  }
  const { tree } = await attack([link('l', out), directory('d'), link('d/l', out), hard('d/h', 'l')]);
  await engine.removeTree(tree);
  assert.ok(!existsSync(tree));
  victim.assertUntouched();
});

attackTest('CVE-2024-23651: a tree that is being removed gets links out of it', async (scene) => {
  const { directory: base, engine, victim } = scene;
  const tree = join(base, 'raced');
  for (let round = 0; round < 5; round++) {
    mkdirSync(join(tree, 'd'), { recursive: true });
    for (let i = 0; i < 50; i++) writeFileSync(join(tree, 'd', String(i)), '');
    writeFileSync(join(tree, 'd', 'file'), '');
    const flipper = spawn(process.execPath, ['-e', FLIPPER, tree, victim.directory], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(flipper.stdout, 'data');
    await engine.removeTree(tree).catch(refusal('ERR_SYSTEM'));
    flipper.kill('SIGKILL');
    await once(flipper, 'exit');
    victim.assertUntouched();
    rmSync(tree, { recursive: true, force: true });
  }
});

attackTest(
  '0:0 devices and attributes of overlayfs: a layer cannot hide or redirect what lies below it',
  async (scene) => {
    const { attack } = scene;
    await assert.rejects(attack([{ name: 'etc', type: '3', devmajor: 0, devminor: 0 }]), refusal('ERR_UNSAFE_PATH'));
    await assert.rejects(attack([file('.wh.w'), hard('h', 'w')]), refusal('ERR_UNSAFE_PATH', 'ERR_BAD_TAR'));
    const { tree, result } = await attack([
      directory('d', {
        pax: {
          'SCHILY.xattr.trusted.overlay.redirect': '/etc',
          'SCHILY.xattr.trusted.overlay.opaque': 'y',
          'SCHILY.xattr.user.overlay.metacopy': '',
          'SCHILY.xattr.user.kept': 'yes',
        },
      }),
    ]);
    assert.equal(result.ignoredXattrs, 3);
    const listed = execFileSync('getfattr', ['-d', '-m', '-', '--absolute-names', join(tree, 'd')], {
      encoding: 'utf8',
    });
    assert.match(listed, /user\.kept="yes"/);
    assert.doesNotMatch(listed, /overlay/);
  },
);

test('the victim of these tests would show what is done to it', (t) => {
  const victim = new Victim(join(tempDir(t), 'victim'));
  chmodSync(victim.file, 0o644);
  assert.throws(() => {
    victim.assertUntouched();
  });
});
