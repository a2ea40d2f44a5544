import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { failure } from './fake-engine.js';
import { overlay2, snapshot } from './fixture.js';

const ACTIVE = { code: 'ERR_ACTIVE_MOUNT' };

test('many gets make one mount, and the last put takes it away', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  const paths = await Promise.all(Array.from({ length: 50 }, () => driver.get('rw')));
  assert.deepEqual(new Set(paths), new Set([join(home, 'rw/merged')]));
  assert.equal(engine.mountRequests.length, 1);
  assert.deepEqual(engine.mountRequests[0], {
    upper: join(home, 'rw/diff'),
    work: join(home, 'rw/work'),
    lowers: [join(home, 'l', readFileSync(join(home, 'base/link'), 'utf8'))],
    target: join(home, 'rw/merged'),
    options: ['index=off'],
  });
  await Promise.all(Array.from({ length: 49 }, () => driver.put('rw')));
  assert.equal(engine.table.length, 1);
  await driver.put('rw');
  assert.equal(engine.table.length, 0);
  assert.equal(existsSync(join(home, 'rw/merged')), false);
  await assert.rejects(driver.put('rw'), { code: 'ERR_NOT_MOUNTED' });
});

test('the mount table is not read while nothing is out of order', async (t) => {
  const { engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  engine.log.length = 0;
  await driver.get('rw');
  await driver.get('rw');
  await driver.put('rw');
  await driver.put('rw');
  assert.deepEqual(
    engine.log.map((step) => step.split(' ')[0]),
    ['mkdir', 'mount', 'unmount'],
  );
});

test('layers without a parent are given without a mount', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.createReadWrite('rw', undefined, {});
  assert.equal(await driver.get('rw'), join(home, 'rw/diff'));
  await driver.put('rw');
  assert.equal(engine.mountRequests.length, 0);
});

test('read-only layers are mounted without an upper directory, by get and by view', async (t) => {
  const { home, engine, driver, reopen } = overlay2(t, {}, 'volatile,nodev');
  await driver.create('base');
  await driver.create('leaf', 'base');
  await driver.get('leaf');
  const link = join(home, 'l', readFileSync(join(home, 'base/link'), 'utf8'));
  const expected = {
    lowers: [join(home, 'leaf/diff'), link],
    target: join(home, 'leaf/merged'),
    options: ['index=off', 'nodev'],
  };
  assert.deepEqual(engine.mountRequests.pop(), expected);
  await driver.put('leaf');
  const again = reopen();
  await again.view('leaf');
  assert.deepEqual(engine.mountRequests.pop(), expected, 'nothing on disk says that a leaf is read-only: view does');
  await again.put('leaf');
  assert.equal(await again.view('base'), join(home, 'base/merged'));
  assert.deepEqual(engine.mountRequests.pop()?.lowers, [join(home, 'base/diff'), join(home, 'base/merged')]);
  await again.put('base');
  assert.equal(engine.table.length, 0);
  await again.create('child', 'leaf');
  await reopen().get('leaf');
  assert.equal(engine.mountRequests.pop()?.upper, undefined, 'a parent is read-only for everybody');
});

test('a mount that fails leaves nothing, and the next one works', async (t) => {
  const { home, engine, driver } = overlay2(t, {}, 'volatile');
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  const before = snapshot(home);
  engine.before = (step) => {
    if (step.startsWith('mount ')) throw failure('ENOMEM', -12, 'mount', step);
  };
  await assert.rejects(driver.get('rw'), { errnoName: 'ENOMEM' });
  assert.deepEqual(snapshot(home), before);
  await assert.rejects(driver.put('rw'), { code: 'ERR_NOT_MOUNTED' });
  engine.before = () => undefined;
  await driver.get('rw');
  await driver.put('rw');
  assert.deepEqual(snapshot(home), before);
});

test('a busy target keeps its count', async (t) => {
  const { engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.get('rw');
  engine.before = (step) => {
    if (step.startsWith('unmount')) throw failure('EBUSY', -16, 'umount2', step);
  };
  await assert.rejects(driver.put('rw'), { code: 'ERR_SYSTEM', errnoName: 'EBUSY' });
  await assert.rejects(driver.detach('rw'), ACTIVE);
  engine.before = () => undefined;
  await driver.put('rw');
  await assert.rejects(driver.put('rw'), { code: 'ERR_NOT_MOUNTED' });
});

test('mounts of different layers do not wait for each other, those of one layer do', async (t) => {
  const { engine, driver } = overlay2(t);
  await driver.create('base');
  for (const id of ['a', 'b']) await driver.createReadWrite(id, 'base', {});
  let release!: () => void;
  const gate = new Promise<void>((resolve) => (release = resolve));
  engine.before = (step) => (step.startsWith('mount ') && step.includes('/a/') ? gate : undefined);
  const slow = driver.get('a');
  const put = slow.then(() => driver.put('a'));
  await driver.get('b');
  await driver.put('b');
  let waited = true;
  void slow.then(() => (waited = false));
  await turn();
  assert.equal(waited, true);
  release();
  await put;
  assert.equal(engine.table.length, 0);
});

test('live mounts of an earlier process are found and taken over once', async (t) => {
  const { home, engine, driver, reopen } = overlay2(t);
  await driver.create('base');
  for (const id of ['a', 'b']) await driver.createReadWrite(id, 'base', {});
  await driver.get('a');
  await driver.get('a');
  engine.addMount(join(home, 'a/merged/proc'), '', 'proc');
  engine.addMount(join(home, 'elsewhere'), '', 'tmpfs');
  const again = reopen();
  assert.deepEqual(await again.liveMounts(), [{ id: 'a', path: join(home, 'a/merged') }]);
  assert.equal(await again.adopt('a'), join(home, 'a/merged'));
  assert.equal(await again.get('a'), join(home, 'a/merged'));
  assert.equal(engine.mountRequests.length, 1, 'nothing is mounted twice');
  await again.put('a');
  await again.put('a');
  assert.equal(engine.table.filter(({ target }) => target === join(home, 'a/merged')).length, 0);
  await assert.rejects(again.adopt('b'), { code: 'ERR_NOT_MOUNTED' });
});

test('a mount that nobody adopted is taken over by the first get', async (t) => {
  const { engine, driver, reopen } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.get('rw');
  const again = reopen();
  await again.get('rw');
  assert.equal(engine.mountRequests.length, 1);
  await again.put('rw');
  assert.equal(engine.table.length, 0);
  await driver.get('rw').catch(() => undefined);
});

test('a mount point that is left over is used, a foreign or stacked mount on it is refused', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  const merged = join(home, 'rw/merged');
  mkdirSync(merged);
  await driver.get('rw');
  await driver.put('rw');
  mkdirSync(merged);
  engine.addMount(merged, '', 'tmpfs');
  await assert.rejects(
    driver.get('rw'),
    (error: Error) => /tmpfs/.test(error.message) && /by hand/.test(error.message),
  );
  engine.table.length = 0;
  engine.addMount(merged, 'rw,upperdir=/somewhere/else,workdir=/x');
  await assert.rejects(driver.get('rw'), ACTIVE);
  engine.table.length = 0;
  for (let n = 0; n < 2; n++) engine.addMount(merged, `rw,upperdir=${home}/rw/diff`);
  await assert.rejects(driver.get('rw'), (error: Error) => /2 mounts are stacked/.test(error.message));
  await assert.rejects(driver.adopt('rw'), ACTIVE);
  assert.equal(engine.table.length, 2, 'strangers are left alone');
});

test('the upper directory is known in every way the kernel shows it', async (t) => {
  const { home, engine, driver, reopen } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  for (const upper of [`${home}/rw/diff`, '/proc/thread-self/fd/7', 'rw/diff', 'diff', './rw/diff']) {
    engine.table.length = 0;
    engine.addMount(join(home, 'rw/merged'), `rw,lowerdir=l/X,upperdir=${upper},workdir=w`);
    mkdirSync(join(home, 'rw/merged'), { recursive: true });
    await reopen().adopt('rw');
  }
});

test('labels: refused without SELinux', async (t) => {
  const { driver } = overlay2(t);
  await driver.create('base');
  await assert.rejects(driver.createReadWrite('rw', 'base', { mountLabel: 'a:b:c:s0' }), { code: 'ERR_NOT_SUPPORTED' });
  await driver.createReadWrite('rw', 'base', { mountLabel: '' });
  await assert.rejects(driver.get('rw', 'a:b:c:s0'), { code: 'ERR_NOT_SUPPORTED' });
});

test('sizes: unknown options are refused, a size names what is missing', async (t) => {
  const { driver } = overlay2(t);
  await assert.rejects(driver.createReadWrite('rw', undefined, { storageOpt: { inodes: '1' } }), {
    code: 'ERR_INVALID_ARGUMENT',
  });
  await assert.rejects(driver.createReadWrite('rw', undefined, { storageOpt: { size: 'big' } }), {
    code: 'ERR_INVALID_ARGUMENT',
  });
  await assert.rejects(
    driver.createReadWrite('rw', undefined, { storageOpt: { size: '10G' } }),
    (error: Error & { code?: string }) => {
      assert.equal(error.code, 'ERR_NOT_SUPPORTED');
      assert.match(
        error.message,
        /project quota, which (only XFS|the running kernel lacks|XFS has|ext4 has|this driver)/,
      );
      return true;
    },
  );
  await driver.createReadWrite('rw', undefined, { storageOpt: { size: '0' } });
});

test('volatile: the marker goes with a clean unmount and with a crash of the process, not with another boot', async (t) => {
  const { home, engine, driver, reopen, logged } = overlay2(t, {}, 'volatile');
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  const record = join(home, 'rw/volatile-boot');
  const marker = join(home, 'rw/work/work/incompat/volatile');
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  // What the kernel does at a mount.
  engine.before = (step) => {
    if (!step.startsWith('mount ')) return;
    if (existsSync(marker)) throw failure('EINVAL', -22, 'mount', step);
    mkdirSync(marker, { recursive: true });
  };
  await driver.get('rw');
  assert.equal(readFileSync(record, 'utf8'), boot);
  await driver.put('rw');
  assert.equal(existsSync(record) || existsSync(join(home, 'rw/work/work/incompat')), false);

  await driver.get('rw');
  engine.table.length = 0;
  const crashed = reopen();
  await crashed.get('rw');
  await crashed.put('rw');
  assert.equal(existsSync(marker), false, 'a crash of the process alone');

  await crashed.get('rw');
  engine.table.length = 0;
  writeFileSync(record, '00000000-0000-4000-8000-000000000000');
  await assert.rejects(reopen().get('rw'), { code: 'ERR_LAYER_CORRUPT' });
  await assert.rejects(
    reopen({}, 'nodev').get('rw'),
    { code: 'ERR_LAYER_CORRUPT' },
    'also where this store is not volatile',
  );
  assert.equal(existsSync(marker), true);
  const accepting = reopen({ acceptVolatile: true });
  await accepting.get('rw');
  await accepting.put('rw');
  assert.ok(logged.some(({ level, message }) => level === 'warn' && /acceptVolatile/.test(message)));
  assert.equal(existsSync(marker) || existsSync(record), false);

  mkdirSync(marker, { recursive: true });
  await assert.rejects(
    reopen().get('rw'),
    { code: 'ERR_LAYER_CORRUPT' },
    'a marker of somebody else, of an unknown boot',
  );
});

test('a store that is open read-only mounts and writes nothing', async (t) => {
  const { home, engine, driver, reopen } = overlay2(t);
  await driver.create('base');
  await driver.create('top', 'base');
  const before = snapshot(home);
  engine.log.length = 0;
  const reader = reopen({ readOnly: true });
  const READ_ONLY = { code: 'ERR_READ_ONLY' };
  await assert.rejects(reader.get('top'), READ_ONLY);
  await assert.rejects(reader.view('base'), READ_ONLY);
  assert.equal(await reader.get('base'), join(home, 'base/diff'));
  await reader.put('base');
  for (const write of [
    () => reader.create('x'),
    () => reader.createReadWrite('x', undefined, {}),
    () => reader.remove('top'),
    () => reader.exchange('top', 'base'),
    () => reader.applyDiff('top', 'base', { path: '/dev/null' }, {}),
    () => reader.adopt('top'),
  ]) {
    await assert.rejects(write(), READ_ONLY);
  }
  await reader.cleanup();
  await reader.sync(['top']);
  assert.deepEqual(engine.log, []);
  assert.deepEqual(snapshot(home), before);
  await driver.remove('top');
  await assert.rejects(reader.metadata('top'), { code: 'ERR_LAYER_DOES_NOT_EXIST' }, 'what the writer removes is gone');
  renameSync(home, `${home}.away`);
  assert.deepEqual(await reader.list(), []);
});
