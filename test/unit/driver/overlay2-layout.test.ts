import assert from 'node:assert/strict';
import {
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  mkdirSync,
  truncateSync,
} from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { isLinkID, newLinkID, parseLowerText } from '../../../src/driver/overlay2/layout.js';
import { failure } from './fake-engine.js';
import { overlay2, snapshot } from './fixture.js';

const CORRUPT = { code: 'ERR_LAYER_CORRUPT' };

test('link ids are 26 characters of base32, each another one', () => {
  const ids = new Set(Array.from({ length: 2000 }, newLinkID));
  assert.equal(ids.size, 2000);
  for (const id of ids) assert.match(id, /^[A-Z2-7]{26}$/);
  const seen = new Set([...ids].join(''));
  assert.equal(seen.size, 32, 'every letter of the alphabet is used');
});

test('a layer on disk is what Docker writes: names, modes, contents', async (t) => {
  process.umask(0o077);
  t.after(() => process.umask(0o022));
  const { home, driver } = overlay2(t);
  await driver.create('base');
  await driver.create('middle', 'base');
  await driver.createReadWrite('top-init', 'middle', {});
  await driver.createReadWrite('top', 'top-init', {});
  const link = (id: string): string => readFileSync(join(home, id, 'link'), 'utf8');
  const [base, middle, init, top] = ['base', 'middle', 'top-init', 'top'].map(link) as [string, string, string, string];
  for (const id of [base, middle, init, top]) assert.ok(isLinkID(id));
  assert.deepEqual(snapshot(home), {
    base: 'dir 0710',
    'base/committed': 'file 0600 ',
    'base/diff': 'dir 0755',
    'base/link': `file 0644 ${base}`,
    l: 'dir 0700',
    [`l/${base}`]: 'link ../base/diff',
    [`l/${middle}`]: 'link ../middle/diff',
    [`l/${init}`]: 'link ../top-init/diff',
    [`l/${top}`]: 'link ../top/diff',
    middle: 'dir 0710',
    'middle/committed': 'file 0600 ',
    'middle/diff': 'dir 0755',
    'middle/link': `file 0644 ${middle}`,
    'middle/lower': `file 0644 l/${base}`,
    'middle/work': 'dir 0700',
    top: 'dir 0710',
    'top/diff': 'dir 0755',
    'top/link': `file 0644 ${top}`,
    'top/lower': `file 0644 l/${init}:l/${middle}:l/${base}`,
    'top/work': 'dir 0700',
    'top-init': 'dir 0710',
    'top-init/committed': 'file 0600 ',
    'top-init/diff': 'dir 0755',
    'top-init/link': `file 0644 ${init}`,
    'top-init/lower': `file 0644 l/${middle}:l/${base}`,
    'top-init/work': 'dir 0700',
  });
});

test('a reopened driver goes on where the last one stopped', async (t) => {
  const { home, driver, reopen } = overlay2(t);
  await driver.create('a');
  await driver.create('b', 'a');
  const again = reopen();
  await again.create('c', 'b');
  assert.equal(
    readFileSync(join(home, 'c/lower'), 'utf8'),
    `l/${readFileSync(join(home, 'b/link'), 'utf8')}:l/${readFileSync(join(home, 'a/link'), 'utf8')}`,
  );
  assert.deepEqual((await again.list()).sort(), ['a', 'b', 'c']);
  assert.deepEqual(await again.metadata('c'), {
    LowerDir: `${home}/b/diff:${home}/a/diff`,
    MergedDir: `${home}/c/merged`,
    UpperDir: `${home}/c/diff`,
    WorkDir: `${home}/c/work`,
  });
  assert.equal((await again.metadata('a'))['LowerDir'], undefined);
});

test('a child costs one batch, and the parent is marked and read once', async (t) => {
  const { engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('first', 'base', {});
  engine.log.length = 0;
  await driver.createReadWrite('second', 'base', {});
  assert.equal(engine.log.filter((step) => step.startsWith('mkdir')).length, 3);
  assert.equal(engine.log.filter((step) => step.includes('committed')).length, 0);
  assert.equal(engine.log.length, 6, engine.log.join('\n'));
});

test('strict: an RW layer is synced by its few files and directories, contents first, never by a whole file system', async (t) => {
  const { home, engine, driver } = overlay2(t, { durability: 'strict' });
  await driver.create('base');
  assert.ok(!engine.log.some((step) => step.startsWith('fsync')), 'a read-only layer is synced when it is filled');
  engine.log.length = 0;
  await driver.createReadWrite('rw', 'base', {});
  const syncs = engine.log.filter((step) => /sync/.test(step));
  assert.deepEqual(syncs, [
    `fsync ${home}/rw/link`,
    `fsync ${home}/rw/lower`,
    `fsync ${home}/rw/work`,
    `fsync ${home}/rw/diff`,
    `fsync ${home}/rw`,
    `fsync ${home}/l`,
    `fsync ${home}`,
    `fsync ${home}/base/committed`,
    `fsync ${home}/base`,
  ]);
  const firstSync = engine.log.indexOf(`fsync ${home}/rw/link`);
  assert.ok(engine.log.indexOf(`write ${home}/rw/lower`) < firstSync, 'everything is written before the first sync');
});

test('a failure at any step of a creation leaves nothing behind', async (t) => {
  const { home, engine, driver } = overlay2(t, { durability: 'strict' });
  await driver.create('base');
  const before = snapshot(home);
  for (let step = 1; ; step++) {
    let at = 0;
    engine.before = (name) => {
      if (++at === step) throw failure('ENOSPC', -28, 'write', name);
    };
    const made = await driver.createReadWrite('rw', 'base', {}).then(
      () => true,
      (error: unknown) => {
        assert.equal((error as { errnoName?: string }).errnoName, 'ENOSPC');
        return false;
      },
    );
    if (made) {
      assert.ok(step > 10, 'every step was tried');
      break;
    }
    assert.deepEqual(snapshot(home), before, `after a failure at step ${step}`);
    await assert.rejects(driver.get('rw'), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
  }
  engine.before = () => undefined;
  assert.equal(await driver.exists('rw'), true);
});

test('of children made at once the first marks the parent, and one that fails leaves that to the next', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  let failed = false;
  engine.before = (step) => {
    if (failed || !step.endsWith('/link')) return;
    failed = true;
    throw failure('ENOSPC', -28, 'write', step);
  };
  const made = await Promise.allSettled(
    Array.from({ length: 8 }, (_, n) => driver.createReadWrite(`rw${n}`, 'base', {})),
  );
  assert.deepEqual(made.map(({ status }) => status).sort(), [...Array<string>(7).fill('fulfilled'), 'rejected']);
  assert.equal(engine.log.filter((step) => step === `write ${home}/base/committed`).length, 2);
  assert.equal(snapshot(home)['base/committed'], 'file 0600 ');
});

test('what is no layer id, and an id that is taken, is refused', async (t) => {
  const { driver } = overlay2(t);
  for (const id of ['', 'l', '.', '..', '../x', 'a/b', '.removing-x', 'a'.repeat(129), 'a b', 'ä', 'a\n', '-x']) {
    await assert.rejects(driver.create(id), { code: 'ERR_INVALID_ARGUMENT' }, id);
    await assert.rejects(driver.get(id), { code: 'ERR_INVALID_ARGUMENT' }, id);
    await assert.rejects(driver.remove(id), { code: 'ERR_INVALID_ARGUMENT' }, id);
    assert.equal(await driver.exists(id), false);
  }
  await driver.create(`${'a'.repeat(64)}-init`);
  await driver.create('x');
  await assert.rejects(driver.create('x'), { code: 'ERR_INVALID_ARGUMENT' });
  assert.equal(await driver.exists('x'), true);
  await assert.rejects(driver.create('y', 'nothing'), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
  assert.equal(await driver.exists('y'), false);
});

test('a stack has at most the 500 layers that overlayfs takes', async (t) => {
  const { home, driver } = overlay2(t);
  await driver.create('n0');
  for (let n = 1; n <= 500; n++) await driver.create(`n${n}`, `n${n - 1}`);
  assert.equal(readFileSync(join(home, 'n500/lower'), 'utf8').split(':').length, 500);
  await assert.rejects(driver.create('n501', 'n500'), { code: 'ERR_MAX_DEPTH_EXCEEDED' });
  assert.equal(await driver.exists('n501'), false);
});

test("whatever stands in a lower file, nothing outside the driver's home is ever used", async (t) => {
  const { home, engine, driver, reopen, root } = overlay2(t);
  mkdirSync(join(root, 'outside/diff'), { recursive: true });
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  const good = readFileSync(join(home, 'rw/lower'), 'utf8');
  const bad = [
    '',
    ':',
    `${good}:`,
    `:${good}`,
    `${good}\n`,
    '/etc',
    'l/',
    'l/../../etc',
    '../outside/diff',
    good.toLowerCase(),
    `${good}A`,
    good.slice(0, -1),
    good.slice(2),
    `l/${good}`,
    `${good}:${good}`,
    `${good} `,
    `${good}\0`,
    'base/diff',
    '../base/diff',
    Array(501).fill(good).join(':'),
    `l/${'A'.repeat(26)}`,
    `l/${'1'.repeat(26)}`,
    '\xff'.repeat(28),
  ];
  for (const text of bad) {
    writeFileSync(join(home, 'rw/lower'), text, 'latin1');
    const again = reopen();
    await assert.rejects(again.get('rw'), CORRUPT, JSON.stringify(text).slice(0, 80));
    await assert.rejects(again.changes('rw', 'base'), CORRUPT);
    await assert.rejects(again.createReadWrite('child', 'rw', {}), CORRUPT);
    assert.equal(await again.exists('base'), true, 'the others work on');
  }
  rmSync(join(home, 'rw/lower'));
  execFileSync('/usr/bin/mkfifo', [join(home, 'rw/lower')]);
  await assert.rejects(reopen().get('rw'), CORRUPT, 'a FIFO makes nobody wait');
  rmSync(join(home, 'rw/lower'));
  symlinkSync('/etc/hostname', join(home, 'rw/lower'));
  await assert.rejects(reopen().get('rw'), CORRUPT, 'a link is not followed');
  rmSync(join(home, 'rw/lower'));
  mkdirSync(join(home, 'rw/lower'));
  await assert.rejects(reopen().get('rw'), CORRUPT);
  rmSync(join(home, 'rw/lower'), { recursive: true });
  writeFileSync(join(home, 'rw/lower'), '');
  truncateSync(join(home, 'rw/lower'), 2 ** 31);
  await assert.rejects(reopen().get('rw'), CORRUPT, 'a huge one is not read');
  writeFileSync(join(home, 'rw/lower'), good);
  await reopen().get('rw');
  assert.equal(engine.mountRequests.length, 1, 'nothing was mounted before');
});

test("a link that leads anywhere but to a layer's diff is refused", async (t) => {
  const { home, driver, reopen, root } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  mkdirSync(join(root, 'outside/diff'), { recursive: true });
  mkdirSync(join(home, 'sneaky'));
  symlinkSync(join(root, 'outside/diff'), join(home, 'sneaky/diff'));
  symlinkSync(join(root, 'outside'), join(home, 'linked'));
  const link = join(home, readFileSync(join(home, 'rw/lower'), 'utf8'));
  for (const target of [
    '/etc',
    '../../outside/diff',
    '../base',
    '../base/diff/',
    '../base/../base/diff',
    '../l/diff',
    '../../diff',
    '..//diff',
    '../gone/diff',
    '../sneaky/diff',
    '../linked/diff',
    '../.x/diff',
    'base/diff',
    join(home, 'base/diff'),
    '../rw/diff',
  ]) {
    unlinkSync(link);
    symlinkSync(target, link);
    await assert.rejects(reopen().get('rw'), CORRUPT, target);
  }
  unlinkSync(link);
  await assert.rejects(reopen().get('rw'), CORRUPT, 'missing');
  writeFileSync(link, '../base/diff');
  await assert.rejects(reopen().get('rw'), CORRUPT, 'a file');
});

test('a damaged link file hinders children to come, not the layer itself', async (t) => {
  const { home, driver, reopen } = overlay2(t);
  await driver.create('base');
  await driver.create('other');
  await driver.createReadWrite('rw', 'base', {});
  const others = readFileSync(join(home, 'other/link'), 'utf8');
  for (const text of ['', 'short', '../../../../../../etc/passwd', others, 'A'.repeat(26)]) {
    writeFileSync(join(home, 'base/link'), text);
    const again = reopen();
    await again.get('rw');
    await again.put('rw');
    assert.equal(await again.get('base'), join(home, 'base/diff'));
    await assert.rejects(again.create('child', 'base'), CORRUPT, text);
    assert.equal(await again.exists('child'), false);
  }
  // Its link is another layer's: removing it must not take that one's.
  writeFileSync(join(home, 'base/link'), others);
  const again = reopen();
  await again.get('base');
  await again.remove('base');
  assert.ok(readdirSync(join(home, 'l')).includes(others));
});

test('any byte of a record that flips is noticed or harmless', async (t) => {
  const { home, driver, reopen } = overlay2(t);
  await driver.create('a');
  await driver.create('b', 'a');
  await driver.createReadWrite('rw', 'b', {});
  const path = join(home, 'rw/lower');
  const good = readFileSync(path);
  for (let at = 0; at < good.length; at++) {
    for (const flip of [1, 0x20, 0x80, 0xff]) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] as number) ^ flip;
      writeFileSync(path, bad);
      await assert.rejects(reopen().get('rw'), CORRUPT, `byte ${at} with ${flip}`);
    }
  }
});

test('parsing lower text', () => {
  const a = 'A'.repeat(26);
  const b = 'B'.repeat(26);
  assert.deepEqual(parseLowerText(`l/${a}:l/${b}`, 'x'), [a, b]);
});
