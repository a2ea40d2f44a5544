import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { applyChanges } from '../../src/testing/apply-changes.js';
import {
  append,
  bytes,
  chmod,
  createFile,
  link,
  mkdir,
  mknod,
  remove,
  symlink,
} from '../../src/testing/change-list.js';
import { buildTar } from '../../src/testing/tar-builder.js';
import { assertSameTree, snapshotTree, type TreeSnapshot } from '../../src/testing/tree-snapshot.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { type FullDriver, js, native, prepare } from './driver-support.js';

const base = buildTar([
  { name: 'etc/', type: '5' },
  { name: 'etc/passwd', content: 'root' },
  { name: 'etc/shadow', content: 'secret', mode: 0o600 },
  { name: 'usr/', type: '5' },
  { name: 'usr/lib/', type: '5' },
  { name: 'usr/lib/one', content: '1'.repeat(5000) },
  { name: 'usr/lib/two', content: '2' },
  { name: 'var/', type: '5' },
  { name: 'var/old', content: 'old' },
]);

const changes = [
  append('etc/passwd', ' and others'),
  remove('etc/shadow'),
  createFile('etc/new', 'new', 0o4755),
  remove('var'),
  mkdir('var', 0o1777),
  createFile('var/fresh', 'x'.repeat(100_000)),
  link('var/fresh', 'var/linked'),
  symlink('var/pointer', '../etc/new'),
  mknod('var/pipe', 'p'),
  createFile(`name-${bytes(0xff, 0xfe)}`, 'no UTF-8'),
  chmod('usr/lib/two', 0o600),
];

async function filled(driver: FullDriver, id: string, parent: string | undefined, tar: Buffer): Promise<void> {
  await driver.create(id, parent);
  await driver.applyDiff(id, parent, Readable.from([tar]), {});
}

async function tree(driver: FullDriver, id: string): Promise<TreeSnapshot> {
  const path = await (driver.view?.(id) ?? driver.get(id));
  try {
    return snapshotTree(path);
  } finally {
    await driver.put(id);
  }
}

async function change(driver: FullDriver, id: string, work: (path: string) => void): Promise<void> {
  const path = await driver.get(id);
  try {
    work(path);
  } finally {
    await driver.put(id);
  }
}

const sha256 = (data: Buffer): string => `sha256:${createHash('sha256').update(data).digest('hex')}`;

for (const engine of [native, js]) {
  for (const name of ['overlay2', 'vfs'] as const) {
    for (const consume of [false, true]) {
      const how = consume ? 'taken over' : 'copied';
      test(`${engine.name}, ${name}: a commit (${how}) is the layer that its own tar makes`, async (t) => {
        const { root, open } = prepare(t, engine);
        const driver = await open({ driver: name });
        await filled(driver, 'base', undefined, base);
        await driver.createReadWrite('rw', 'base', {});
        await change(driver, 'rw', (path) => applyChanges(path, changes));
        const before = await tree(driver, 'rw');
        const tar = await buffer(await driver.diff('rw', 'base'));
        const record = join(root, 'record.gz');
        const result = await driver.commitDiff('commit', 'base', 'rw', 'base', { consume, tarSplit: { path: record } });
        assert.equal(result.diffID, sha256(tar));
        assert.equal(result.tarSize, tar.length);
        await filled(driver, 'registered', 'base', tar);

        assertSameTree(before, await tree(driver, 'commit'), 'the committed tree');
        assertSameTree(before, await tree(driver, 'registered'), 'the tree of the registered tar');
        const files = async (id: string): Promise<string> => (await driver.diffGetter(id)).directory as string;
        if (name === 'overlay2') {
          const own = { root: true, mtime: false };
          assertSameTree(
            snapshotTree(await files('registered'), own),
            snapshotTree(await files('commit'), own),
            'the layer itself',
          );
        }
        const again = await engine.assemble({
          tarSplit: { path: record },
          tree: await driver.diffGetter('commit'),
          diffID: result.diffID,
        });
        assert.ok((await buffer(again)).equals(tar), 'the tar comes back from the layer');
        if (consume) {
          await driver.undoConsume('commit', 'rw');
          assert.equal(await driver.exists('commit'), false);
          assertSameTree(before, await tree(driver, 'rw'), 'the RW layer given back');
        }
        assert.deepEqual(mountsBelow(root), []);
      });
    }

    test(`${engine.name}, ${name}: what an init layer holds is no part of the commit`, async (t) => {
      const { root, open } = prepare(t, engine);
      const driver = await open({ driver: name });
      await filled(driver, 'base', undefined, base);
      await driver.createReadWrite('rw-init', 'base', {});
      await change(driver, 'rw-init', (path) =>
        applyChanges(path, [mkdir('dev'), createFile('dev/console'), createFile('etc/hosts', 'h')]),
      );
      await driver.createReadWrite('rw', 'rw-init', {});
      await change(driver, 'rw', (path) => applyChanges(path, [createFile('etc/mine', 'm'), remove('etc/shadow')]));
      const list = await driver.changes('rw', 'rw-init');
      assert.deepEqual(
        list.map(({ kind, path }) => `${kind} ${path}`),
        ['modify /etc', 'add /etc/mine', 'delete /etc/shadow'],
      );
      assert.equal(await driver.diffSize('rw', 'rw-init'), 1);
      const tar = await buffer(await driver.diff('rw', 'rw-init'));
      const tarSplit = { path: join(root, 'record.gz') };
      const result = await driver.commitDiff('commit', 'base', 'rw', 'rw-init', { consume: false, tarSplit });
      assert.equal(result.diffID, sha256(tar));
      assert.deepEqual(
        [...(await tree(driver, 'commit')).keys()],
        ['/etc', '/etc/mine', '/etc/passwd', '/usr', '/usr/lib', '/usr/lib/one', '/usr/lib/two', '/var', '/var/old'],
      );
    });
  }

  test(`${engine.name}, overlay2: a commit carries no whiteout of a file that only the init layer had`, async (t) => {
    for (const consume of [false, true]) {
      const { root, open } = prepare(t, engine);
      const driver = await open();
      await filled(driver, 'base', undefined, base);
      await driver.createReadWrite('rw-init', 'base', {});
      await change(driver, 'rw-init', (path) =>
        applyChanges(path, [mkdir('dev'), createFile('dev/console'), createFile('etc/hosts', 'h')]),
      );
      await driver.createReadWrite('rw', 'rw-init', {});
      await change(driver, 'rw', (path) =>
        applyChanges(path, [remove('etc/hosts'), remove('dev'), remove('etc/shadow'), createFile('etc/mine', 'm')]),
      );
      const tar = await buffer(await driver.diff('rw', 'rw-init'));
      const tarSplit = { path: join(root, 'record.gz') };
      const result = await driver.commitDiff('commit', 'base', 'rw', 'rw-init', { consume, tarSplit });
      assert.equal(result.diffID, sha256(tar));
      assert.ok(tar.includes('etc/.wh.shadow'), 'the parent has it: the whiteout is needed');
      assert.ok(!tar.includes('.wh.hosts') && !tar.includes('.wh.dev'), 'the parent has none of these');
      assert.deepEqual(readdirSync(join(root, 'overlay2/commit/diff')), ['etc']);
      assert.deepEqual(readdirSync(join(root, 'overlay2/commit/diff/etc')).sort(), ['mine', 'shadow']);
      if (!consume) continue;
      // Taken back, the RW layer hides again what its init layer holds; twice is no harm.
      for (let i = 0; i < 2; i++) await driver.undoConsume('commit', 'rw');
      const names = [...(await tree(driver, 'rw')).keys()];
      assert.deepEqual(
        names.filter((name) => /^\/(dev|etc)/.test(name)),
        ['/etc', '/etc/mine', '/etc/passwd'],
      );
      assert.deepEqual(readdirSync(join(root, 'overlay2/rw')).sort(), ['diff', 'link', 'lower', 'work']);
    }
  });

  test(`${engine.name}, overlay2: renamed directories and files of which only metadata was copied are committed whole, or not at all`, async (t) => {
    for (const consume of [false, true]) {
      const { root, open } = prepare(t, engine);
      const driver = await open({ driverOptions: { 'overlay2.mountopt': 'metacopy=on,redirect_dir=on' } });
      await filled(driver, 'base', undefined, base);
      await driver.createReadWrite('rw', 'base', {});
      await change(driver, 'rw', (path) => {
        renameSync(join(path, 'usr'), join(path, 'moved'));
        chmodSync(join(path, 'etc/shadow'), 0o640);
        chmodSync(join(path, 'moved/lib/one'), 0o700);
        mkdirSync(join(path, 'usr'));
        writeFileSync(join(path, 'usr/other'), 'o');
      });
      const before = await tree(driver, 'rw');
      assert.ok(before.has('/moved/lib/one') && before.has('/usr/other') && !before.has('/usr/lib'));
      const tarSplit = { path: join(root, 'record.gz') };
      const commit = driver.commitDiff('commit', 'base', 'rw', 'base', { consume, tarSplit });
      if (engine === js) {
        await assert.rejects(commit, { code: 'ERR_NOT_SUPPORTED' });
        assert.deepEqual((await driver.list()).sort(), ['base', 'rw']);
        assertSameTree(before, await tree(driver, 'rw'), 'the RW layer after a commit that was refused');
        continue;
      }
      const result = await commit;
      await driver.undoConsume('commit', 'rw');
      assertSameTree(before, await tree(driver, 'rw'), 'the RW layer given back');
      const tar = await buffer(await driver.diff('rw', 'base'));
      await driver.commitDiff('commit', 'base', 'rw', 'base', { consume, tarSplit: { path: join(root, 'again.gz') } });
      assert.equal(result.diffID, sha256(tar));
      await filled(driver, 'registered', 'base', tar);
      // Mounted plainly, as a layer of an image is anywhere.
      const plain = await open({ driverOptions: { 'overlay2.mountopt': 'metacopy=off,redirect_dir=nofollow' } });
      assertSameTree(before, await tree(plain, 'registered'), 'the tree of the registered tar');
      assertSameTree(before, await tree(plain, 'commit'), 'the committed tree');
    }
  });

  test(`${engine.name}, overlay2: a tar applied to an RW layer shows, mounted or not`, async (t) => {
    const { open } = prepare(t, engine);
    const driver = await open();
    await filled(driver, 'base', undefined, base);
    const update = buildTar([
      { name: 'etc/', type: '5' },
      { name: 'etc/.wh.shadow', content: '' },
      { name: 'etc/added', content: 'added' },
      { name: 'var/', type: '5' },
      { name: 'var/.wh..wh..opq', content: '' },
      { name: 'var/only', content: 'only' },
    ]);
    await driver.createReadWrite('closed', 'base', {});
    await driver.createReadWrite('open', 'base', {});
    const path = await driver.get('open');
    for (const id of ['closed', 'open']) await driver.applyDiff(id, 'base', Readable.from([update]), {});
    assert.deepEqual(readdirSync(join(path, 'etc')).sort(), ['added', 'passwd']);
    assert.deepEqual(readdirSync(join(path, 'var')), ['only']);
    await driver.put('open');
    assertSameTree(await tree(driver, 'closed'), await tree(driver, 'open'), 'mounted or not');
    const record = join(dirname(path), 'record.gz');
    assert.equal(existsSync(record), false);
  });

  test(`${engine.name}, overlay2: the root of a commit is that of a registered layer`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open();
    await filled(driver, 'base', undefined, base);
    for (const consume of [false, true]) {
      const id = `commit-${consume}`;
      await driver.createReadWrite('rw', 'base', {});
      await change(driver, 'rw', (path) => chmodSync(path, 0o700));
      await driver.commitDiff(id, 'base', 'rw', 'base', { consume, tarSplit: { path: join(root, `${id}.gz`) } });
      const found = statSync(join(root, 'overlay2', id, 'diff'));
      assert.equal((found.mode & 0o7777).toString(8), '755');
      await driver.remove('rw');
    }
  });

  test(`${engine.name}, overlay2: a repaired layer is seen by new mounts, the old ones keep what they had`, async (t) => {
    const { root, open } = prepare(t, engine);
    const driver = await open({ durability: 'strict' });
    await filled(driver, 'base', undefined, base);
    await driver.createReadWrite('before', 'base', {});
    await driver.createReadWrite('after', 'base', {});
    rmSync(join(root, 'overlay2/base/diff/etc/passwd'));
    const old = await driver.get('before');
    await filled(driver, 'fresh', undefined, base);
    await driver.exchange('base', 'fresh');
    assert.equal(existsSync(join(old, 'etc/passwd')), false);
    assert.ok(existsSync(join(await driver.get('after'), 'etc/passwd')));
    await driver.put('after');
    await driver.remove('fresh');
    assert.ok(existsSync(join(await driver.get('after'), 'etc/passwd')));
    for (const id of ['after', 'before']) await driver.put(id);
    await driver.sync(['base']);
    assert.deepEqual(mountsBelow(root), []);
  });
}
