import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { once } from 'node:events';
import { test } from 'node:test';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { tempDir } from '../support/temp.js';
import { prepare, ways, native } from './driver-support.js';

for (const { label, engine } of ways) {
  test(`${label}: layers are stacked, written and taken apart`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open();
    const home = join(root, 'overlay2');
    assert.equal((statSync(home).mode & 0o7777).toString(8), '710');
    assert.equal((statSync(join(home, 'l')).mode & 0o7777).toString(8), '700');
    await driver.create('base');
    writeFileSync(join(home, 'base/diff/kept'), 'base');
    writeFileSync(join(home, 'base/diff/gone'), 'base');
    mkdirSync(join(home, 'base/diff/opaque'));
    writeFileSync(join(home, 'base/diff/opaque/old'), 'base');
    await driver.create('middle', 'base');
    writeFileSync(join(home, 'middle/diff/middle'), 'middle');
    await driver.createReadWrite('rw-init', 'middle', {});
    const init = await driver.get('rw-init');
    writeFileSync(join(init, 'hostname'), 'init');
    await driver.put('rw-init');
    await driver.createReadWrite('rw', 'rw-init', {});

    const merged = await driver.get('rw');
    assert.deepEqual(readdirSync(merged).sort(), ['gone', 'hostname', 'kept', 'middle', 'opaque']);
    writeFileSync(join(merged, 'kept'), 'changed');
    for (const name of ['gone', 'hostname']) rmSync(join(merged, name));
    rmSync(join(merged, 'opaque'), { recursive: true });
    mkdirSync(join(merged, 'opaque'));
    assert.deepEqual(readdirSync(join(merged, 'opaque')), []);
    await driver.put('rw');
    assert.equal(existsSync(merged), false);
    assert.deepEqual(mountsBelow(root), []);

    const upper = join(home, 'rw/diff');
    assert.equal(readFileSync(join(upper, 'kept'), 'utf8'), 'changed');
    for (const name of ['gone', 'hostname']) {
      const whiteout = lstatSync(join(upper, name));
      assert.ok(whiteout.isCharacterDevice() && whiteout.rdev === 0, name);
    }
    assert.equal(readFileSync(join(home, 'base/diff/kept'), 'utf8'), 'base', 'lower layers never change');
    assert.deepEqual(
      readdirSync(await driver.get('rw')).sort(),
      ['kept', 'middle', 'opaque'],
      'mounted again, it is the same',
    );
    await driver.put('rw');

    const view = await driver.view('middle');
    assert.throws(() => writeFileSync(join(view, 'x'), ''), { code: 'EROFS' });
    assert.equal(readFileSync(join(view, 'kept'), 'utf8'), 'base');
    await driver.put('middle');
    const bottom = await driver.view('base');
    assert.deepEqual(readdirSync(bottom).sort(), ['gone', 'kept', 'opaque']);
    assert.throws(() => writeFileSync(join(bottom, 'x'), ''), { code: 'EROFS' });
    await driver.put('base');

    for (const id of ['rw', 'rw-init', 'middle', 'base']) await driver.remove(id);
    assert.deepEqual(readdirSync(home), ['l']);
    assert.deepEqual(readdirSync(join(home, 'l')), []);
    assert.deepEqual(mountsBelow(root), []);
  });

  test(`${label}: a chain of 125 layers mounts`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open();
    let parent: string | undefined;
    for (let n = 0; n < 125; n++) {
      const id = `${n.toString(16).padStart(4, '0').repeat(16)}`;
      await driver.create(id, parent);
      writeFileSync(join(root, 'overlay2', id, 'diff', `file${n}`), String(n));
      writeFileSync(join(root, 'overlay2', id, 'diff', 'newest'), String(n));
      parent = id;
    }
    await driver.createReadWrite('rw', parent, {});
    const again = await open();
    const merged = await again.get('rw');
    assert.equal(readdirSync(merged).length, 126);
    assert.equal(readFileSync(join(merged, 'newest'), 'utf8'), '124');
    assert.equal((await again.metadata('rw'))['LowerDir']?.split(':').length, 125);
    await again.put('rw');
  });

  test(`${label}: a mount left by an earlier process is taken over, and goes in the end`, async (t) => {
    const { root, open } = prepare(t, engine);
    const first = await open();
    await first.create('base');
    for (const id of ['a', 'b']) await first.createReadWrite(id, 'base', {});
    const path = await first.get('a');
    writeFileSync(join(path, 'file'), 'from before');
    const driver = await open();
    assert.deepEqual(await driver.liveMounts(), [{ id: 'a', path }]);
    assert.equal(await driver.adopt('a'), path);
    assert.equal(readFileSync(join(await driver.get('a'), 'file'), 'utf8'), 'from before');
    assert.equal(mountsBelow(root).length, 1, 'nothing is mounted twice');
    await driver.put('a');
    await driver.put('a');
    assert.deepEqual(mountsBelow(root), []);
    await assert.rejects(driver.adopt('b'), { code: 'ERR_NOT_MOUNTED' });
  });

  test(`${label}: busy, vanished, foreign and stacked mounts`, async (t) => {
    const { root, open, logged } = prepare(t, engine);
    const driver = await open();
    await driver.create('base');
    await driver.createReadWrite('rw', 'base', {});
    const path = await driver.get('rw');

    const holder = spawn('/bin/sleep', ['60'], { cwd: path, stdio: 'ignore' });
    await once(holder, 'spawn');
    await assert.rejects(driver.put('rw'), (error: Error & { errnoName?: string; holders?: { pid: number }[] }) => {
      assert.equal(error.errnoName, 'EBUSY');
      assert.ok(error.holders?.some(({ pid }) => pid === holder.pid));
      return true;
    });
    assert.equal(mountsBelow(root).length, 1);
    holder.kill();
    await once(holder, 'exit');
    await driver.put('rw');
    assert.deepEqual(mountsBelow(root), []);

    await driver.get('rw');
    execFileSync('/bin/umount', [path]);
    assert.equal(await driver.get('rw'), path, 'a mount that vanished is made again');
    assert.equal(mountsBelow(root).length, 1);
    assert.ok(logged.some(({ level, message }) => level === 'warn' && /vanished/.test(message)));
    await driver.put('rw');
    execFileSync('/bin/umount', [path]);
    await driver.put('rw');
    assert.equal(existsSync(path), false);

    await driver.get('rw');
    execFileSync('/bin/mount', ['-t', 'tmpfs', 'stranger', path]);
    await assert.rejects(driver.put('rw'), { code: 'ERR_ACTIVE_MOUNT' });
    await assert.rejects(driver.get('rw'), { code: 'ERR_ACTIVE_MOUNT' });
    assert.equal(mountsBelow(root).length, 2, 'strangers are left alone');
    execFileSync('/bin/umount', [path]);
    await driver.put('rw');

    mkdirSync(path);
    execFileSync('/bin/mount', ['-t', 'tmpfs', 'stranger', path]);
    await assert.rejects(driver.get('rw'), { code: 'ERR_ACTIVE_MOUNT' });
    await assert.rejects(driver.remove('rw'), { code: 'ERR_ACTIVE_MOUNT' });
    execFileSync('/bin/umount', [path]);
    await driver.remove('rw');
    assert.deepEqual(mountsBelow(root), []);
  });

  test(`${label}: volatile markers`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driverOptions = { 'overlay2.mountopt': 'volatile' };
    const driver = await open({ driverOptions });
    await driver.create('base');
    await driver.createReadWrite('rw', 'base', {});
    const layer = join(root, 'overlay2/rw');
    const marker = join(layer, 'work/work/incompat/volatile');
    for (let round = 0; round < 2; round++) {
      const path = await driver.get('rw');
      writeFileSync(join(path, `file${round}`), '');
      assert.ok(existsSync(marker));
      await driver.put('rw');
      assert.equal(existsSync(marker) || existsSync(join(layer, 'volatile-boot')), false);
    }
    const path = await driver.get('rw');
    execFileSync('/bin/umount', [path]);
    assert.ok(existsSync(marker), 'as a crash leaves it');
    const same = await open({ driverOptions });
    await same.get('rw');
    await same.put('rw');

    await same.get('rw');
    execFileSync('/bin/umount', [path]);
    writeFileSync(join(layer, 'volatile-boot'), '11111111-1111-4111-8111-111111111111');
    for (const change of [{ driverOptions }, {}]) {
      await assert.rejects((await open(change)).get('rw'), { code: 'ERR_LAYER_CORRUPT' });
    }
    const accepting = await open({ acceptVolatile: true });
    assert.deepEqual(readdirSync(await accepting.get('rw')).sort(), ['file0', 'file1']);
    await accepting.put('rw');
    assert.equal(existsSync(marker) || existsSync(join(layer, 'volatile-boot')), false);
  });

  test(`${label}: mount options reach the kernel`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open({
      driverOptions: { 'overlay2.mountopt': 'nodev,nosuid,noexec,metacopy=on,redirect_dir=on,index=on,xino=on' },
    });
    await driver.create('base');
    await driver.createReadWrite('rw', 'base', {});
    await driver.get('rw');
    const line =
      readFileSync('/proc/self/mountinfo', 'utf8')
        .split('\n')
        .find((text) => text.includes(`${root}/overlay2/rw/merged`)) ?? '';
    // The kernel shows no xino where one file system holds all layers.
    for (const option of ['nodev', 'nosuid', 'noexec', 'metacopy=on', 'redirect_dir=on', 'index=on']) {
      assert.match(line, new RegExp(`[ ,]${option}(?:[ ,]|$)`), option);
    }
    await driver.create('other');
    await assert.rejects(driver.exchange('base', 'other'), { code: 'ERR_ACTIVE_MOUNT' });
    await driver.put('rw');
    await assert.rejects(
      driver.exchange('base', 'other'),
      { code: 'ERR_ACTIVE_MOUNT' },
      'its index stays when it is unmounted',
    );
    await driver.view('base');
    await driver.put('base');
    assert.deepEqual(mountsBelow(root), []);
  });

  test(`${label}: a copy of the mount in another namespace holds nothing up`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open();
    await driver.create('base');
    await driver.createReadWrite('rw', 'base', {});
    const path = await driver.get('rw');
    const elsewhere = spawn(
      '/usr/bin/unshare',
      ['--mount', '--propagation', 'private', '/bin/sh', '-c', 'echo ready; exec sleep 60'],
      {
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    t.after(() => elsewhere.kill());
    await once(elsewhere.stdout, 'data');
    await driver.put('rw');
    assert.equal(existsSync(path), false);
    assert.ok(
      !readFileSync(`/proc/${elsewhere.pid}/mountinfo`, 'utf8').includes(root),
      'the copy went with the directory',
    );
    await driver.get('rw');
    await driver.put('rw');
    await driver.remove('rw');
  });

  test(`${label}: sixty-four layers at once`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open();
    await driver.create('base');
    await Promise.all(
      Array.from({ length: 64 }, async (_, n) => {
        const id = `rw${n}`;
        await driver.createReadWrite(id, 'base', {});
        const [path] = await Promise.all([driver.get(id), driver.get(id)]);
        writeFileSync(join(path, 'file'), id);
        await Promise.all([driver.put(id), driver.put(id)]);
        await driver.remove(id);
      }),
    );
    assert.deepEqual(await driver.list(), ['base']);
    assert.deepEqual(readdirSync(join(root, 'overlay2/l')).length, 1);
    assert.deepEqual(mountsBelow(root), []);
  });
}

test('native: 500 lower layers mount, under a root with a path of 3,000 bytes too', async (t) => {
  let root = tempDir(t, 'driver');
  while (root.length < 2800) {
    root = join(root, 'x'.repeat(200));
    mkdirSync(root);
  }
  const { open } = prepare(t, native, root);
  const driver = await open();
  await driver.create('n0');
  for (let n = 1; n < 500; n++) await driver.create(`n${n}`, `n${n - 1}`);
  await driver.createReadWrite('rw', 'n499', {});
  writeFileSync(join(root, 'overlay2/n0/diff/bottom'), '');
  assert.ok(readdirSync(await driver.get('rw')).includes('bottom'));
  await driver.put('rw');
});

test('auto takes overlay2 here, says so, and keeps it', async (t) => {
  for (const { engine } of ways) {
    const { root, open } = prepare(t, engine);
    const driver = await open({ driver: 'auto' });
    assert.equal(driver.name, 'overlay2');
    const status = Object.fromEntries(driver.status());
    assert.equal(status['Supports d_type'], 'true');
    assert.match(status['Backing Filesystem'] ?? '', /^[a-z0-9]+$/);
    assert.match(status['Mount tier'] ?? '', /^(fd|lowerdir\+|classic)$/);
    assert.match(status['Chosen'] ?? '', /trial mount/);
    assert.deepEqual(readdirSync(root).sort(), ['layerstore', 'overlay2']);
    assert.deepEqual(readdirSync(join(root, 'layerstore')), []);
    await driver.create('layer');
    assert.match(Object.fromEntries((await open({ driver: 'auto' })).status())['Chosen'] ?? '', /layers are here/);
    assert.deepEqual(mountsBelow(root), []);
  }
});

test('auto takes vfs where overlay cannot have its upper directory', async (t) => {
  const { root, open } = prepare(t, native);
  // overlayfs refuses an upper directory on overlayfs with whiteouts below it: a mount on top of a mount.
  for (const name of ['lower', 'upper', 'work', 'root']) mkdirSync(join(root, name));
  execFileSync('/bin/mount', ['-t', 'ramfs', 'none', join(root, 'root')]);
  const driver = await open({ root: join(root, 'root'), driver: 'auto' });
  assert.equal(driver.name, 'vfs');
  assert.match(Object.fromEntries(driver.status())['Chosen'] ?? '', /overlay2 does not work/);
  await assert.rejects(open({ root: join(root, 'root'), driver: 'overlay2' }), { code: 'ERR_NOT_SUPPORTED' });
});
