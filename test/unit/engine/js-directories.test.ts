/** Descriptors of the JavaScript engine: a directory is open as long as somebody uses it, and nothing stays open. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  lstatSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { chmodEntry, OpenDirectory } from '../../../src/engine/js/directory.js';
import { mkdir } from '../../../src/engine/js/fs.js';
import { TreeRoot } from '../../../src/engine/js/tree-root.js';
import { assertLeavesNothing, heldNow } from '../../support/leaks.js';
import { tempDir } from '../../support/temp.js';
import { engine } from './js-support.js';

/** Takes every number that is free below `count`, so that a closed one means another directory at once. */
function occupy(directory: string, count: number): () => void {
  const open = Array.from({ length: count }, () => openSync(directory, 'r'));
  return () => open.forEach((fd) => closeSync(fd));
}

test('an open directory is closed by its last user, and gives no path after that', async (t) => {
  const base = tempDir(t);
  const before = heldNow(base).descriptors;
  const directory = await OpenDirectory.open(base, base);
  directory.use();
  await directory.release();
  await mkdir(directory.at('made'), 0o755);
  assert.deepEqual(readdirSync(base), ['made']);
  await directory.release();
  assert.deepEqual(heldNow(base).descriptors, before);
  assert.throws(() => directory.at('late'), /last user/);
  assert.throws(() => directory.fd, /last user/);
  assert.throws(() => directory.use(), /last user/);
  await assert.rejects(directory.release(), /last user/);
});

test('a place stays good while the cache forgets its directory, or drops it for others', async (t) => {
  const base = tempDir(t);
  const elsewhere = tempDir(t, 'elsewhere');
  const names = Array.from({ length: 150 }, (_, i) => `d${String(i)}`);
  for (const name of names) mkdirSync(join(base, 'tree', name, 'sub'), { recursive: true });
  const before = heldNow(base).descriptors;
  const root = await TreeRoot.open(join(base, 'tree'));
  for (const disturb of ['forget', 'fill'] as const) {
    await root.at(`d0/sub/${disturb}`, async (place) => {
      if (disturb === 'forget') await root.forget('');
      else for (const name of names.slice(1)) await root.in(`${name}/sub`, () => Promise.resolve());
      const leave = occupy(elsewhere, 200);
      await mkdir(place.path, 0o755);
      leave();
    });
    assert.ok(existsSync(join(base, 'tree/d0/sub', disturb)), disturb);
  }
  assert.deepEqual(readdirSync(elsewhere), []);
  await root.close();
  await root.close();
  assert.deepEqual(heldNow(base).descriptors, before);
});

test('callers that open one directory at the same time leave nothing open', async (t) => {
  const base = tempDir(t);
  mkdirSync(join(base, 'a/b'), { recursive: true });
  symlinkSync('/a/../a/b', join(base, 'link'));
  writeFileSync(join(base, 'a/b/file'), 'x');
  const before = heldNow(base).descriptors;
  const root = await TreeRoot.open(base);
  const sizes = await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      root.at(i % 2 === 0 ? 'a/b/file' : 'link/file', (place) => Promise.resolve(lstatSync(place.path).size)),
    ),
  );
  assert.deepEqual(new Set(sizes), new Set([1]));
  await assert.rejects(
    root.at('a/b/file/under', () => Promise.resolve()),
    { errnoName: 'ENOTDIR' },
  );
  await root.close();
  assert.deepEqual(heldNow(base).descriptors, before);
});

test('a source and a tar that nobody reads leave nothing open', async (t) => {
  const base = tempDir(t);
  writeFileSync(join(base, 'layer.tar'), Buffer.alloc(1024));
  mkdirSync(join(base, 'tree'));
  await assertLeavesNothing(base, async () => {
    await assert.rejects(
      engine.ingest({ path: join(base, 'layer.tar') }, { directory: join(base, 'missing'), whiteouts: 'overlay' }),
      { code: 'ERR_SYSTEM', errnoName: 'ENOENT' },
    );
    const stream = await engine.treeTar({ upper: { directories: [join(base, 'tree')], whiteouts: 'overlay' } });
    stream.destroy();
  });
});

test('a root that is closed twice closes its descriptor once', async (t) => {
  const base = tempDir(t);
  const root = await TreeRoot.open(base);
  await root.close();
  const fd = openSync(base, 'r'); // takes the number that is free now
  await root.close();
  closeSync(fd); // EBADF, had the second close taken it
});

test('the mode of what was just made is never set through a link that took its place', async (t) => {
  const base = tempDir(t);
  const [victim, made] = [join(base, 'victim'), join(base, 'made')];
  mkdirSync(victim);
  chmodSync(victim, 0o700);
  symlinkSync(victim, made);
  const before = heldNow(base).descriptors;
  await assert.rejects(chmodEntry(made, 0o4777), { code: 'ENOTSUP' });
  assert.equal(lstatSync(victim).mode & 0o7777, 0o700);
  await chmodEntry(victim, 0o1750);
  assert.equal(lstatSync(victim).mode & 0o7777, 0o1750);
  assert.deepEqual(heldNow(base).descriptors, before);
});
