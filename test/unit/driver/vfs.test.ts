import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { failure } from './fake-engine.js';
import { modeOf, snapshot, vfs } from './fixture.js';

const tarSplit = { path: '/nowhere/tar-split.json.gz' };
const tree = (directory: string): { directories: string[]; whiteouts: string } => ({
  directories: [directory],
  whiteouts: 'plain',
});

test('a layer is a whole tree that begins as a copy of its parent', async (t) => {
  const { home, driver } = vfs(t);
  await driver.create('base');
  assert.equal(modeOf(join(home, 'base')), '0755');
  writeFileSync(join(home, 'base/file'), 'x');
  await driver.createReadWrite('rw', 'base', {});
  assert.equal(readFileSync(join(home, 'rw/file'), 'utf8'), 'x');
  assert.equal(await driver.get('rw'), join(home, 'rw'));
  await driver.put('rw');
  assert.deepEqual(await driver.metadata('rw'), { Dir: join(home, 'rw') });
  assert.equal(driver.capabilities.mounts, false);
  await driver.applyDiff('rw', 'base', { path: '/x' }, {});
  assert.ok(existsSync(join(home, 'rw/ingested')));
  assert.equal((await driver.diffGetter('rw')).directory, join(home, 'rw'));
});

test('differences are between two trees', async (t) => {
  const { home, engine, driver } = vfs(t);
  await driver.create('a');
  await driver.create('b', 'a');
  (await driver.diff('b', 'a')).destroy();
  (await driver.diff('b')).destroy();
  assert.deepEqual(engine.tarRequests, [
    { upper: tree(join(home, 'b')), lower: tree(join(home, 'a')) },
    { upper: tree(join(home, 'b')) },
  ]);
  await assert.rejects(driver.diff('b', 'gone'), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
});

test('a creation that fails leaves nothing, at whatever step', async (t) => {
  const { home, engine, driver } = vfs(t, { durability: 'strict' });
  await driver.create('base');
  writeFileSync(join(home, 'base/file'), 'x');
  const before = snapshot(home);
  for (const word of ['mkdir', 'copy']) {
    engine.before = (step) => {
      if (step.startsWith(word)) throw failure('ENOSPC', -28, word, step);
    };
    await assert.rejects(driver.create('x', 'base'), { errnoName: 'ENOSPC' });
    assert.deepEqual(snapshot(home), before);
  }
  engine.before = () => undefined;
  await assert.rejects(driver.create('base'), { code: 'ERR_INVALID_ARGUMENT' });
  await assert.rejects(driver.create('x', 'gone'), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
  await assert.rejects(driver.create('../x'), { code: 'ERR_INVALID_ARGUMENT' });
  assert.deepEqual(snapshot(home), before);
});

test('labels and sizes are not to be had', async (t) => {
  const { driver } = vfs(t);
  await assert.rejects(driver.createReadWrite('rw', undefined, { mountLabel: 'a:b:c' }), { code: 'ERR_NOT_SUPPORTED' });
  await assert.rejects(driver.createReadWrite('rw', undefined, { storageOpt: { size: '1G' } }), {
    code: 'ERR_NOT_SUPPORTED',
  });
  await assert.rejects(driver.createReadWrite('rw', undefined, { storageOpt: { other: '1' } }), {
    code: 'ERR_INVALID_ARGUMENT',
  });
  assert.deepEqual(await driver.list(), []);
});

test('removal renames first; cleanup ends what a crash left', async (t) => {
  const { home, driver, reopen } = vfs(t);
  await driver.create('a');
  await driver.create('b');
  mkdirSync(join(home, 'foreign'));
  mkdirSync(join(home, '.other'));
  const unlink = await driver.detach('a');
  assert.equal(await driver.exists('a'), false);
  assert.deepEqual((await driver.list()).sort(), ['b', 'foreign']);
  await unlink();
  await driver.detach('b');
  await reopen().cleanup();
  assert.deepEqual(readdirSync(home).sort(), ['.other', 'foreign']);
  await driver.remove('never-there');
});

test('cleanup removes the scratch directories of killed unpackings, and never those of live ones', async (t) => {
  const { home, engine, driver, reopen } = vfs(t);
  mkdirSync(join(home, '.replaced-11/0'), { recursive: true });
  mkdirSync(join(home, '.replaced-other'));
  await driver.create('a');
  engine.before = (step) => {
    if (step.startsWith('ingest')) mkdirSync(join(home, '.replaced-22'));
  };
  // The unpacking comes first, as right after an open whose cleanup runs on behind it.
  await driver.applyDiff('a', undefined, { path: '/x' }, {});
  await driver.cleanup();
  assert.deepEqual(readdirSync(home).sort(), ['.replaced-22', '.replaced-other', 'a']);
  await reopen().cleanup();
  assert.deepEqual(readdirSync(home).sort(), ['.replaced-other', 'a']);
});

test('a commit puts the changes alone onto a copy of the parent, and takes nothing from the RW layer', async (t) => {
  const { home, engine, driver } = vfs(t);
  await driver.create('base');
  await driver.createReadWrite('rw-init', 'base', {});
  writeFileSync(join(home, 'rw-init/init'), '');
  await driver.createReadWrite('rw', 'rw-init', {});
  const before = snapshot(home);
  for (const word of ['mkdir', 'copy', 'ingest']) {
    engine.before = (step) => {
      if (step.startsWith(word)) throw failure('EIO', -5, word, step);
    };
    for (const consume of [false, true]) {
      await assert.rejects(driver.commitDiff('x', 'base', 'rw', 'rw-init', { consume, tarSplit }), {
        errnoName: 'EIO',
      });
      assert.deepEqual(snapshot(home), before);
    }
  }
  engine.before = () => undefined;
  await driver.commitDiff('x', 'base', 'rw', 'rw-init', { consume: true, tarSplit });
  assert.deepEqual(engine.tarRequests.pop(), { upper: tree(join(home, 'rw')), lower: tree(join(home, 'rw-init')) });
  assert.deepEqual(readdirSync(join(home, 'x')), ['ingested'], 'the init layer is no part of it');
  for (let n = 0; n < 2; n++) {
    await driver.undoConsume('x', 'rw');
    assert.deepEqual(snapshot(home), before);
  }
});

test('exchange, sync, usage, and a root open for reading', async (t) => {
  const { home, engine, driver, reopen } = vfs(t, { durability: 'strict' });
  await driver.create('a');
  await driver.create('b');
  writeFileSync(join(home, 'a/file'), '');
  await driver.exchange('a', 'b');
  assert.deepEqual([readdirSync(join(home, 'a')), readdirSync(join(home, 'b'))], [[], ['file']]);
  engine.log.length = 0;
  await Promise.all([driver.sync(['a']), driver.sync(['b'])]);
  assert.deepEqual(engine.log, [`syncfs ${home}`, `syncfs ${home}`]);
  assert.equal((await driver.usage('a')).inodes, 2);
  const reader = reopen({ readOnly: true });
  for (const write of [() => reader.create('x'), () => reader.remove('a'), () => reader.exchange('a', 'b')]) {
    await assert.rejects(write(), { code: 'ERR_READ_ONLY' });
  }
  assert.equal(await reader.get('a'), join(home, 'a'));
  assert.deepEqual(driver.status(), [['Chosen', 'a test']]);
});
