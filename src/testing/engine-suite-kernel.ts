/** Engines: mounts, batches of small steps, locks, syncs, records in bulk. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { EngineTestContext } from './engine-test-context.js';

/** Goes 20 directories of 250 letters down, says so, and stays. */
const GO_DEEP = `
  const name = 'd'.repeat(250);
  for (let i = 0; i < 20; i++) { require('fs').mkdirSync(name); process.chdir(name); }
  process.stdout.write('there');
  process.stdin.resume();`;

export function engineKernelTests({ test, privileged }: EngineTestContext): void {
  test('runs a batch in order, with exact modes', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    const umask = process.umask(0o077);
    try {
      await engine.batch([
        { op: 'mkdir', path: at('made'), mode: 0o751 },
        { op: 'mkdir', path: at('made'), mode: 0o700, existOk: true },
        { op: 'write', path: at('made/text'), mode: 0o664, data: 'text', sync: true },
        { op: 'write', path: at('made/bytes'), mode: 0o600, data: Uint8Array.of(0, 255) },
        { op: 'symlink', target: 'text', path: at('made/link') },
        { op: 'rename', path: at('made/text'), dest: at('made/moved') },
        { op: 'chmod', path: at('made/bytes'), mode: 0o444 },
        { op: 'fsync', path: at('made/bytes') },
        { op: 'fsync', path: at('made') },
        { op: 'unlink', path: at('made/never'), missingOk: true },
        { op: 'rmdir', path: at('made/never'), missingOk: true },
      ]);
    } finally {
      process.umask(umask);
    }
    assert.equal(lstatSync(at('made')).mode & 0o7777, 0o751);
    assert.equal(readFileSync(at('made/moved'), 'utf8'), 'text');
    assert.equal(lstatSync(at('made/moved')).mode & 0o7777, 0o664);
    assert.deepEqual([...readFileSync(at('made/bytes'))], [0, 255]);
    assert.equal(lstatSync(at('made/bytes')).mode & 0o7777, 0o444);
    assert.equal(readlinkSync(at('made/link')), 'text');
  });

  test('takes back what a failed batch made', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    const failed = engine.batch([
      { op: 'mkdir', path: at('made'), mode: 0o755 },
      { op: 'write', path: at('made/file'), mode: 0o644, data: 'x' },
      { op: 'symlink', target: 'file', path: at('made/link') },
      { op: 'rename', path: at('nothing'), dest: at('nowhere') },
      { op: 'mkdir', path: at('never'), mode: 0o755 },
    ]);
    await assert.rejects(failed, { code: 'ERR_SYSTEM', errnoName: 'ENOENT', path: at('nothing') });
    assert.deepEqual(readdirSync(directory), []);
  });

  test('a batch writes over nothing, and leaves a directory that may be there as it is', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    mkdirSync(at('there'), { mode: 0o751 });
    writeFileSync(at('file'), 'old');
    symlinkSync('there', at('link'));
    symlinkSync('file', at('link to a file'));
    symlinkSync('nothing', at('dangling'));
    const taken = { code: 'ERR_SYSTEM', errnoName: 'EEXIST' };
    for (const name of ['there', 'file', 'link', 'dangling']) {
      const path = at(name);
      await assert.rejects(engine.batch([{ op: 'write', path, mode: 0o600, data: 'new' }]), taken, name);
      await assert.rejects(engine.batch([{ op: 'mkdir', path, mode: 0o700 }]), taken, name);
    }
    for (const name of ['there', 'link']) {
      await assert.rejects(
        engine.batch([
          { op: 'mkdir', path: at(name), mode: 0o700, uid: 5, gid: 6, existOk: true },
          { op: 'rename', path: at('nothing'), dest: at('nowhere') },
        ]),
        { errnoName: 'ENOENT' },
      );
    }
    for (const name of ['file', 'link to a file'])
      await assert.rejects(engine.batch([{ op: 'mkdir', path: at(name), mode: 0o700, existOk: true }]), taken, name);
    assert.equal(readFileSync(at('file'), 'utf8'), 'old');
    const { mode, uid } = lstatSync(at('there'));
    assert.deepEqual([mode & 0o7777, uid], [0o751, process.getuid?.()]);
    assert.deepEqual(readdirSync(directory).sort(), ['dangling', 'file', 'link', 'link to a file', 'there']);
  });

  test('renames without replacing, and exchanges', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    for (const name of ['a', 'b']) {
      mkdirSync(at(name));
      writeFileSync(at(`${name}/name`), name);
    }
    await assert.rejects(engine.batch([{ op: 'rename', path: at('a'), dest: at('b'), noReplace: true }]), {
      code: 'ERR_SYSTEM',
      errnoName: 'EEXIST',
    });
    await engine.batch([{ op: 'exchange', path: at('a'), dest: at('b') }]);
    assert.equal(readFileSync(at('a/name'), 'utf8') + readFileSync(at('b/name'), 'utf8'), 'ba');
  });

  test('locks a file for one at a time, or for many readers', async (engine, directory) => {
    const path = join(directory, 'lock');
    const first = await engine.lock(path, 'exclusive');
    assert.ok(first !== undefined);
    assert.equal(lstatSync(path).mode & 0o777, 0o600);
    assert.equal(await engine.lock(path, 'exclusive'), undefined);
    assert.equal(await engine.lock(path, 'shared'), undefined);
    await first.release();
    const readers = [await engine.lock(path, 'shared'), await engine.lock(path, 'shared')];
    assert.ok(readers.every((lock) => lock !== undefined));
    assert.equal(await engine.lock(path, 'exclusive'), undefined);
    for (const lock of readers) await lock?.release();
    const last = await engine.lock(path, 'exclusive');
    assert.ok(last !== undefined);
    await last.release();
  });

  test('syncs file systems', async (engine, directory) => {
    await engine.syncFs([directory, directory, '/']);
    await assert.rejects(engine.syncFs([join(directory, 'gone')]), { code: 'ERR_SYSTEM' });
  });

  test('reads small files in bulk', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    for (const name of ['one', 'two', 'odd']) mkdirSync(at(name));
    writeFileSync(at('one/a'), 'A of one');
    writeFileSync(at('one/b'), Buffer.from([0xe9, 0x00, 0x0a]));
    writeFileSync(at('two/a'), 'x'.repeat(1000));
    symlinkSync('/etc/hostname', at('odd/a'));
    mkdirSync(at('odd/b'));
    execFileSync('mkfifo', [at('odd/c')]);
    writeFileSync(at('file'), 'no directory');
    symlinkSync('one', at('link'));
    const rows = await engine.readSmallFiles(directory, ['a', 'b', 'c'], 64);
    rows.sort((x, y) => (x.directory < y.directory ? -1 : 1));
    assert.deepEqual(rows, [
      { directory: 'odd', files: [{ failed: 'ELOOP' }, { failed: 'EINVAL' }, { failed: 'EINVAL' }] },
      { directory: 'one', files: ['A of one', '\xe9\0\n', undefined] },
      { directory: 'two', files: ['x'.repeat(64), undefined, undefined] },
    ]);
    await assert.rejects(engine.readSmallFiles(at('gone'), ['a'], 64), { code: 'ERR_SYSTEM', errnoName: 'ENOENT' });
  });

  test('lists the names in a directory', async (engine, directory) => {
    mkdirSync(join(directory, 'one'));
    writeFileSync(join(directory, 'file'), '');
    symlinkSync('one', join(directory, 'link'));
    assert.deepEqual((await engine.names(directory, 'all')).sort(), ['file', 'link', 'one']);
    assert.deepEqual(await engine.names(directory, 'directories'), ['one']);
    assert.deepEqual(await engine.names(join(directory, 'one'), 'all'), []);
    for (const only of ['all', 'directories'] as const) {
      await assert.rejects(engine.names(join(directory, 'gone'), only), { code: 'ERR_SYSTEM', errnoName: 'ENOENT' });
    }
  });

  test('says what it found here', async (engine) => {
    const features = engine.features();
    assert.match(features.kernel, /^\d+\.\d+/);
    for (const [feature, value] of Object.entries(features)) assert.equal(typeof value, 'string', feature);
  });

  if (!privileged) return;

  test('a batch sets an owner, or the one half of it that is given', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    await engine.batch([
      { op: 'mkdir', path: at('uid'), mode: 0o4755, uid: 5 },
      { op: 'mkdir', path: at('gid'), mode: 0o755, gid: 6 },
      { op: 'write', path: at('file'), mode: 0o4755, data: '', uid: 7 },
      { op: 'symlink', target: 'file', path: at('link') },
      { op: 'chown', path: at('link'), gid: 8 },
      { op: 'chown', path: at('gid'), uid: 9 },
      { op: 'chown', path: at('file') },
    ]);
    const found = ['uid', 'gid', 'file', 'link'].map((name) => {
      const { uid, gid, mode } = lstatSync(at(name));
      return [name, uid, gid, (mode & 0o7000).toString(8)];
    });
    assert.deepEqual(found, [
      ['uid', 5, 0, '4000'],
      ['gid', 9, 6, '0'],
      ['file', 7, 0, '4000'],
      ['link', 0, 8, '0'],
    ]);
  });

  test('mounts overlays, lists them and takes them away', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    // Names that an option string would have to escape.
    for (const name of ['low:1', 'low,2', 'up\\per', 'work', 'merged target']) mkdirSync(at(name));
    writeFileSync(at('low:1/one'), '1');
    writeFileSync(at('low,2/two'), '2');
    const mount = {
      upper: at('up\\per'),
      work: at('work'),
      lowers: [at('low:1'), at('low,2')],
      target: at('merged target'),
      options: ['index=off'],
    };
    const tier = await engine.mountOverlay(mount);
    assert.ok(['fd', 'lowerdir+', 'classic'].includes(tier));
    assert.deepEqual(readdirSync(mount.target).sort(), ['one', 'two']);
    writeFileSync(join(mount.target, 'three'), '3');
    const [entry, ...others] = await engine.mounts(directory);
    assert.equal(entry?.target, mount.target);
    assert.equal(entry.fsType, 'overlay');
    assert.deepEqual(others, []);
    await engine.unmount(mount.target);
    assert.deepEqual(await engine.mounts(directory), []);
    assert.equal(existsSync(at('up\\per/three')), true);
    await assert.rejects(engine.unmount(mount.target), { code: 'ERR_SYSTEM', errnoName: 'EINVAL' });
  });

  test('makes a mount point with its mount, and takes both away', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    for (const name of ['one', 'up', 'work', 'taken']) mkdirSync(at(name));
    const mount = { upper: at('up'), work: at('work'), lowers: [at('one')], target: at('merged'), options: [] };
    const made = await engine.mountOnNewTarget(mount, 0o700);
    assert.equal(made.device, lstatSync(at('merged')).dev);
    await assert.rejects(engine.mountOnNewTarget({ ...mount, target: at('taken') }, 0o700), {
      errnoName: 'EEXIST',
      syscall: 'mkdir',
    });
    assert.equal(await engine.unmountAndRemove(at('merged'), made.device + 1), 'foreign');
    assert.equal((await engine.mounts(directory)).length, 1);
    const teardown = engine.deferredTeardown();
    assert.equal(await engine.unmountAndRemove(at('merged'), made.device, teardown), 'removed');
    await teardown.end();
    assert.deepEqual(await engine.mounts(directory), []);
    assert.equal(existsSync(at('merged')), false);
    assert.equal(await engine.unmountAndRemove(at('merged'), made.device), 'foreign');
    // A mount that fails leaves no mount point.
    await assert.rejects(engine.mountOnNewTarget({ ...mount, lowers: [at('gone')] }, 0o700), { errnoName: 'ENOENT' });
    assert.equal(existsSync(at('merged')), false);
  });

  test('mounts read-only, and says who keeps a mount busy', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    for (const name of ['one', 'two', 'merged']) mkdirSync(at(name));
    await engine.mountOverlay({ lowers: [at('one'), at('two')], target: at('merged'), options: [] });
    assert.throws(() => writeFileSync(at('merged/x'), ''), { code: 'EROFS' });
    // Another process, so deep in a tree that the kernel cannot tell its path: what it holds is not known, the rest is.
    const deep = spawn(process.execPath, ['-e', GO_DEEP], { cwd: directory, stdio: ['pipe', 'pipe', 'inherit'] });
    await once(deep.stdout, 'data');
    const before = process.cwd();
    process.chdir(at('merged'));
    try {
      await assert.rejects(engine.unmount(at('merged')), (error) => {
        const { errnoName, holders } = error as { errnoName?: string; holders?: { pid: number }[] };
        assert.equal(errnoName, 'EBUSY');
        assert.ok(
          holders?.some(({ pid }) => pid === process.pid),
          'the holder is named',
        );
        return true;
      });
    } finally {
      process.chdir(before);
      deep.kill();
      await once(deep, 'exit');
      await engine.removeTree(at('d'.repeat(250)));
    }
    await engine.unmount(at('merged'));
  });

  test('leaves nothing mounted where a mount fails', async (engine, directory) => {
    const at = (name: string): string => join(directory, name);
    for (const name of ['one', 'up', 'work', 'merged']) mkdirSync(at(name));
    const mount = { upper: at('up'), work: at('work'), lowers: [at('one')], target: at('merged'), options: [] };
    await assert.rejects(engine.mountOverlay({ ...mount, lowers: [at('gone')] }), {
      code: 'ERR_SYSTEM',
      errnoName: 'ENOENT',
    });
    await assert.rejects(engine.mountOverlay({ ...mount, target: at('gone') }), {
      code: 'ERR_SYSTEM',
      errnoName: 'ENOENT',
    });
    await assert.rejects(engine.mountOverlay({ ...mount, options: ['no_such_option'] }), {
      code: 'ERR_SYSTEM',
      errnoName: 'EINVAL',
    });
    assert.deepEqual(await engine.mounts(directory), []);
  });
}
