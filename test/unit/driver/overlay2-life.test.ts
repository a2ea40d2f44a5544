import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { failure } from './fake-engine.js';
import { overlay2, snapshot } from './fixture.js';

const tarSplit = { path: '/nowhere/tar-split.json.gz' };

test('detach takes the id and its link away at once, the files go later', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  writeFileSync(join(home, 'rw/diff/big'), 'x');
  const unlink = await driver.detach('rw');
  assert.equal(await driver.exists('rw'), false);
  assert.deepEqual(await driver.list(), ['base']);
  assert.deepEqual(readdirSync(join(home, 'l')), [readFileSync(join(home, 'base/link'), 'utf8')]);
  assert.ok(!engine.log.some((step) => step.startsWith('remove')));
  await driver.createReadWrite('rw', 'base', {});
  const second = await driver.detach('rw');
  assert.equal(
    readdirSync(home).filter((name) => name.startsWith('.removing-rw-')).length,
    2,
    'an id may come and go again',
  );
  await Promise.all([unlink(), second()]);
  assert.deepEqual(readdirSync(home).sort(), ['base', 'l']);
  await driver.remove('rw');
  await (
    await driver.detach('never-there')
  )();
});

test('strict: a removal is on disk when detach resolves', async (t) => {
  const { home, engine, driver } = overlay2(t, { durability: 'strict' });
  await driver.createReadWrite('rw', undefined, {});
  engine.log.length = 0;
  await driver.detach('rw');
  assert.equal(engine.log.at(-1), `fsync ${home}`);
});

test('what is mounted is not removed, by whomever it was mounted', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.get('rw');
  await assert.rejects(driver.detach('rw'), { code: 'ERR_ACTIVE_MOUNT' });
  await driver.put('rw');
  mkdirSync(join(home, 'rw/merged'));
  engine.addMount(join(home, 'rw/merged'), '', 'tmpfs');
  await assert.rejects(driver.remove('rw'), { code: 'ERR_ACTIVE_MOUNT' });
  assert.equal(await driver.exists('rw'), true);
  engine.table.length = 0;
  writeFileSync(join(home, 'rw/merged/stranger'), '');
  await driver.remove('rw');
  assert.equal(await driver.exists('rw'), false, 'files of strangers in the mount point go with the layer');
});

test('cleanup ends removals that a crash cut short, and touches nothing else', async (t) => {
  const { home, driver, reopen } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  const link = readFileSync(join(home, 'rw/link'), 'utf8');
  await driver.detach('rw');
  // As a crash between the rename and the removal of the link leaves it.
  symlinkSync('../rw/diff', join(home, 'l', link));
  mkdirSync(join(home, '.probe-XyZ/diff'), { recursive: true });
  mkdirSync(join(home, 'builder/diff'), { recursive: true });
  mkdirSync(join(home, '.unknown'));
  mkdirSync(join(home, 'base-removing'));
  writeFileSync(join(home, 'backingFsBlockDev'), '');
  symlinkSync('../gone/diff', join(home, 'l', 'Z'.repeat(26)));
  symlinkSync('../gone2/diff', join(home, 'l', 'Y'.repeat(26)));
  symlinkSync('/etc', join(home, 'l', 'X'.repeat(26)));
  symlinkSync('../builder/diff', join(home, 'l', 'W'.repeat(26)));
  writeFileSync(join(home, 'l', 'V'.repeat(26)), '');
  symlinkSync('../gone/diff', join(home, 'l', 'odd-name'));
  await reopen().cleanup();
  assert.deepEqual(readdirSync(home).sort(), [
    '.unknown',
    'backingFsBlockDev',
    'base',
    'base-removing',
    'builder',
    'l',
  ]);
  assert.deepEqual(
    readdirSync(join(home, 'l')).sort(),
    [readFileSync(join(home, 'base/link'), 'utf8'), 'V'.repeat(26), 'W'.repeat(26), 'X'.repeat(26), 'odd-name'].sort(),
  );
});

test('one leftover that cannot be removed keeps nobody from the others', async (t) => {
  const { home, engine, driver, logged } = overlay2(t);
  for (const id of ['a', 'b', 'c']) {
    await driver.create(id);
    await driver.detach(id);
  }
  engine.before = (step) => {
    if (step.startsWith('remove') && step.includes('-b-')) throw failure('EIO', -5, 'unlink', step);
  };
  await driver.cleanup();
  assert.equal(readdirSync(home).filter((name) => name.startsWith('.removing-')).length, 1);
  assert.ok(logged.some(({ level }) => level === 'warn'));
});

test('differences name the directories of exactly the layers between', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('a');
  await driver.create('b', 'a');
  await driver.create('c', 'b');
  const diffs = (...ids: string[]): { directories: string[]; whiteouts: string } => ({
    directories: ids.map((id) => join(home, id, 'diff')),
    whiteouts: 'overlay',
  });
  const asked = async (id: string, parent?: string): Promise<object | undefined> => {
    (await driver.diff(id, parent)).destroy();
    return engine.tarRequests.pop();
  };
  assert.deepEqual(await asked('c', 'b'), { upper: diffs('c'), lower: diffs('b', 'a') });
  assert.deepEqual(await asked('c', 'a'), { upper: diffs('c', 'b'), lower: diffs('a') });
  assert.deepEqual(await asked('c'), { upper: diffs('c', 'b', 'a') });
  assert.deepEqual(await asked('a'), { upper: diffs('a') });
  await assert.rejects(driver.diff('a', 'c'), { code: 'ERR_INVALID_ARGUMENT' });
  await assert.rejects(driver.diff('gone'), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
  await driver.createReadWrite('rw-init', 'c', {});
  await driver.createReadWrite('rw', 'rw-init', {});
  assert.deepEqual(await asked('rw', 'rw-init'), {
    upper: diffs('rw'),
    lower: diffs('rw-init', 'c', 'b', 'a'),
    whiteoutsOf: diffs('c', 'b', 'a'),
  });
  (await driver.diff('c', 'b', { sparse: true })).destroy();
  assert.equal(engine.tarRequests.pop()?.sparse, true);
});

test('a commit copies, or takes the directory over; both give the layer a parent and a link', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw-init', 'base', {});
  await driver.createReadWrite('rw', 'rw-init', {});
  writeFileSync(join(home, 'rw/diff/new'), 'content');
  await driver.commitDiff('copy', 'base', 'rw', 'rw-init', { consume: false, tarSplit });
  assert.equal(readFileSync(join(home, 'copy/diff/new'), 'utf8'), 'content');
  assert.equal(readFileSync(join(home, 'copy/lower'), 'utf8'), `l/${readFileSync(join(home, 'base/link'), 'utf8')}`);
  assert.equal(existsSync(join(home, 'rw/diff/new')), true);
  assert.deepEqual(engine.tarRequests.pop(), {
    upper: { directories: [join(home, 'rw/diff')], whiteouts: 'overlay' },
    lower: { directories: [join(home, 'rw-init/diff'), join(home, 'base/diff')], whiteouts: 'overlay' },
    whiteoutsOf: { directories: [join(home, 'base/diff')], whiteouts: 'overlay' },
    directory: join(home, 'copy/diff'),
    consume: false,
    tarSplit,
  });
  await driver.commitDiff('on-top', 'copy', 'copy', 'base', { consume: false, tarSplit });
  assert.equal(existsSync(join(home, 'copy/committed')), true, 'a parent is marked, however its child was made');
  engine.tarRequests.pop();
  await driver.remove('on-top');
  await driver.commitDiff('taken', 'base', 'rw', 'rw-init', { consume: true, tarSplit });
  assert.equal(engine.tarRequests.pop()?.upper.directories[0], join(home, 'taken/diff'));
  assert.equal(readFileSync(join(home, 'taken/diff/new'), 'utf8'), 'content');
  assert.equal(existsSync(join(home, 'rw/diff')), false);
  await driver.remove('rw');
  assert.deepEqual((await driver.list()).sort(), ['base', 'copy', 'rw-init', 'taken']);
  assert.equal(readdirSync(join(home, 'l')).length, 4);
});

test('a commit that fails at any step leaves the RW layer as it was and nothing else', async (t) => {
  for (const consume of [false, true]) {
    const { home, engine, driver } = overlay2(t);
    await driver.create('base');
    await driver.createReadWrite('rw', 'base', {});
    writeFileSync(join(home, 'rw/diff/new'), 'content');
    const before = snapshot(home);
    let done = false;
    for (let step = 1; !done; step++) {
      let at = 0;
      let failed = false;
      engine.before = (name) => {
        if (failed || ++at !== step) return;
        failed = true;
        throw failure('EIO', -5, 'write', name);
      };
      done = await driver.commitDiff('layer', 'base', 'rw', 'base', { consume, tarSplit }).then(
        () => true,
        () => false,
      );
      if (!done) assert.deepEqual(snapshot(home), before, `consume ${consume}, step ${step}`);
      else assert.ok(step > 8);
    }
    engine.before = () => undefined;
    assert.equal(existsSync(join(home, 'rw/diff')), !consume);
  }
});

test('a commit with another diff id than expected is taken back', async (t) => {
  const { home, driver } = overlay2(t);
  await driver.createReadWrite('rw', undefined, {});
  writeFileSync(join(home, 'rw/diff/new'), 'content');
  const before = snapshot(home);
  const diffID = `sha256:${'b'.repeat(64)}` as never;
  for (const consume of [false, true]) {
    await assert.rejects(driver.commitDiff('x', undefined, 'rw', undefined, { consume, tarSplit, diffID }), {
      code: 'ERR_DIGEST_MISMATCH',
    });
    assert.deepEqual(snapshot(home), before);
  }
});

test('a consuming commit needs the layer to itself', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.get('rw');
  const commit = (): Promise<unknown> => driver.commitDiff('x', 'base', 'rw', 'base', { consume: true, tarSplit });
  await assert.rejects(commit(), { code: 'ERR_ACTIVE_MOUNT' });
  await driver.put('rw');
  engine.addMount(join(home, 'rw/merged'), 'rw');
  await assert.rejects(commit(), { code: 'ERR_ACTIVE_MOUNT' });
  engine.table.length = 0;
  assert.equal(await driver.exists('x'), false);
  await commit();
});

test('undoConsume finds out how far a commit got', async (t) => {
  const { home, driver, reopen } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  writeFileSync(join(home, 'rw/diff/new'), 'content');
  const before = snapshot(home);
  await reopen().undoConsume('x', 'rw');
  assert.deepEqual(snapshot(home), before, 'nothing was begun');
  mkdirSync(join(home, 'x'));
  await reopen().undoConsume('x', 'rw');
  assert.deepEqual(snapshot(home), before, 'the directory alone was made');
  await driver.commitDiff('x', 'base', 'rw', 'base', { consume: true, tarSplit });
  for (let n = 0; n < 2; n++) {
    await reopen().undoConsume('x', 'rw');
    assert.deepEqual(snapshot(home), before, 'the directory had been taken over');
  }
  await driver.commitDiff('y', 'base', 'rw', 'base', { consume: true, tarSplit });
  await driver.remove('rw');
  await reopen().undoConsume('y', 'rw');
  assert.equal(readFileSync(join(home, 'y/diff/new'), 'utf8'), 'content', 'the only copy is never removed');
});

test('exchange swaps contents; not under a writable mount, nor under a layer that was indexed', async (t) => {
  const { home, engine, driver, reopen } = overlay2(t);
  await driver.create('a');
  await driver.create('b');
  await driver.createReadWrite('rw', 'a', {});
  writeFileSync(join(home, 'a/diff/which'), 'a');
  writeFileSync(join(home, 'b/diff/which'), 'b');
  const read = (id: string): string => readFileSync(join(home, id, 'diff/which'), 'utf8');
  await driver.exchange('a', 'b');
  assert.deepEqual([read('a'), read('b')], ['b', 'a']);
  await driver.get('rw');
  await driver.exchange('a', 'b');
  assert.deepEqual([read('a'), read('b')], ['a', 'b'], 'mounts above keep what they have');
  await assert.rejects(driver.exchange('rw', 'b'), { code: 'ERR_ACTIVE_MOUNT' });
  await driver.put('rw');

  engine.addMount(join(home, 'rw/merged'), `rw,upperdir=${home}/rw/diff,index=on`);
  await assert.rejects(driver.exchange('a', 'b'), { code: 'ERR_ACTIVE_MOUNT' });
  await assert.rejects(driver.exchange('b', 'a'), { code: 'ERR_ACTIVE_MOUNT' });
  engine.table.length = 0;
  const indexed = reopen({}, 'index=on');
  await indexed.exchange('a', 'b');
  mkdirSync(join(home, 'rw/work/index'));
  await assert.rejects(indexed.exchange('a', 'b'), { code: 'ERR_ACTIVE_MOUNT' });
  writeFileSync(join(home, 'rw/lower'), 'damaged');
  await reopen({}, 'index=on').exchange('a', 'b');
});

test('concurrent syncs are shared, and there are none where nobody asked for durability', async (t) => {
  const strict = overlay2(t, { durability: 'strict' });
  await Promise.all(Array.from({ length: 20 }, (_, n) => strict.driver.sync([`id${n}`])));
  assert.deepEqual(strict.engine.log, [`syncfs ${strict.home}`, `syncfs ${strict.home}`]);
  const relaxed = overlay2(t);
  await relaxed.driver.sync(['a']);
  assert.deepEqual(relaxed.engine.log, []);
});

test('a tar goes into the upper directory, or through the mount where there is one', async (t) => {
  const { home, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.applyDiff('rw', 'base', { path: '/x' }, {});
  await driver.get('rw');
  await driver.applyDiff('rw', 'base', { path: '/x' }, {});
  assert.deepEqual(
    engine.log.filter((step) => step.startsWith('ingest')),
    [`ingest ${home}/rw/diff overlay`, `ingest ${home}/rw/merged plain`],
  );
  await assert.rejects(driver.applyDiff('gone', undefined, { path: '/x' }, {}), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
});

test('status, getters and usage', async (t) => {
  const { home, driver } = overlay2(t);
  await driver.create('base');
  assert.deepEqual(Object.fromEntries(driver.status()), {
    'Mount tier': 'none',
    'Mount options': 'index=off',
    Chosen: 'a test',
  });
  const getter = await driver.diffGetter('base');
  assert.equal(getter.directory, join(home, 'base/diff'));
  await getter.close();
  assert.deepEqual(await driver.usage('base'), { size: 1, allocated: 4096, inodes: 2 });
  await driver.close();
});
