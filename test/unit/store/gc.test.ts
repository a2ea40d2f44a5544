/** What gc keeps because Docker's records name it, and that its reports add up. */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openImages } from '../../../src/image/index.js';
import { removingName } from '../../../src/driver/tree-removal.js';
import { openStore } from '../../../src/store/open.js';
import type { CleanupReport, Store } from '../../../src/store/types.js';
import { tempDir } from '../../support/temp.js';
import { FullMemoryDriver } from './memory-driver.js';
import { Bench, diffIDOf, failing, streamOf, tarOf } from './support.js';

const [A, B, C] = [tarOf('a'), tarOf('b'), tarOf('c')];
const ID = 'd'.repeat(64);

function adds(report: CleanupReport): void {
  assert.equal(
    report.bytes,
    report.items.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  for (const { kind, what, why } of report.items) assert.ok(kind !== '' && what !== '' && why !== '');
}

async function vfs(t: TestContext): Promise<{ store: Store; root: string }> {
  const root = join(tempDir(t, 'gc'), 'root');
  const store = await openStore({ root, driver: 'vfs', engine: 'js', durability: 'relaxed' });
  t.after(() => store.close());
  return { store, root };
}

/** What dockerd's builder writes, as far as it is read: one page of a bolt database, and chain ids as text. */
function builderDatabase(text: string): Buffer {
  const file = Buffer.alloc(16_384);
  file.writeUInt32LE(0xed0cdaed, 16);
  file.writeUInt32LE(2, 20);
  file.writeUInt32LE(4_096, 24);
  file.writeBigUInt64LE(4n, 56);
  file.write(text, 8_192);
  return file;
}

test("gc on a root with the state of Docker's builder: what it names stays; damaged, everything does", async (t) => {
  const { store, root } = await vfs(t);
  const a = await store.register(streamOf(A));
  const b = await store.register(streamOf(B), a.chainID);
  const c = await store.register(streamOf(C));
  const path = join(root, 'buildkit', 'snapshots.db');
  await mkdir(join(root, 'buildkit'));
  await writeFile(path, builderDatabase(`chainid${b.chainID}committed`));
  for (const layer of [a, b, c]) assert.deepEqual(await store.release(layer), [], 'nobody has read the records');
  const unread = await store.gc();
  assert.match(unread.refused ?? '', /buildkit" holds Docker's records/);
  assert.deepEqual([unread.items, unread.removed, unread.bytes], [[], [], 0]);
  await openImages(store);
  await writeFile(path, 'no database');
  for (const dryRun of [true, false]) {
    const damaged = await store.gc({ dryRun });
    assert.match(damaged.refused ?? '', /cannot be read completely.*bolt/);
    assert.deepEqual([damaged.items, damaged.removed, damaged.dryRun], [[], [], dryRun]);
  }
  assert.equal(store.map().size, 3);
  await writeFile(path, builderDatabase(`chainid${b.chainID}committed`));
  const removed = async (dryRun: boolean): Promise<string[]> =>
    (await store.gc({ dryRun })).removed.map(({ chainID }) => chainID);
  assert.deepEqual(await removed(true), [c.chainID]);
  assert.deepEqual(await removed(false), [c.chainID]);
  assert.deepEqual([...store.map().keys()].sort(), [a.chainID, b.chainID].sort(), 'and what the named one stands on');
});

test("gc on a root with Docker's images: one that cannot be read stops it", async (t) => {
  const { store, root } = await vfs(t);
  const a = await store.register(streamOf(A));
  const c = await store.register(streamOf(C));
  const content = join(root, 'image', 'vfs', 'imagedb', 'content', 'sha256');
  await mkdir(content, { recursive: true });
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: [diffIDOf(A)] },
  });
  const id = diffIDOf(Buffer.from(config)).slice(7);
  await writeFile(join(content, id), config);
  await store.release(a);
  await store.release(c);
  assert.match((await store.gc()).refused ?? '', /imagedb" holds Docker's records/);
  await openImages(store);
  await writeFile(join(content, 'e'.repeat(64)), config);
  assert.match((await store.gc()).refused ?? '', /cannot be read completely/);
  assert.equal(store.map().size, 2);
  await rm(join(content, 'e'.repeat(64)));
  assert.deepEqual(
    (await store.gc()).removed.map(({ chainID }) => chainID),
    [c.chainID],
  );
});

test('a dry run and the run after it explain the same bytes, of layers and leftovers of every kind', async (t) => {
  const bench = await Bench.make(t);
  const aside = [{ what: removingName(ID), why: 'its removal was begun', bytes: 4_096 }];
  class Driver extends FullMemoryDriver {
    async leftovers(): Promise<typeof aside> {
      return [...aside];
    }
    async usage(id: string): Promise<{ size: number; allocated: number; inodes: number }> {
      const size = this.entries.get(id)?.tar.length ?? 0;
      return { size, allocated: size, inodes: 1 };
    }
    override async cleanup(): Promise<void> {
      if (opened) aside.length = 0;
    }
  }
  let opened = false;
  const driver = failing(new Driver(bench.disk), 'detach', 'before', new Error('stuck'));
  const store = await bench.openOnDisk({ driver });
  opened = true;
  const stuck = await store.register(streamOf(C));
  await store.release(stuck);
  const a = await store.register(streamOf(A));
  await store.register(streamOf(B), a.chainID);
  await store.close();
  const again = await bench.openOnDisk({ driver: new Driver(bench.disk) });
  aside.push({ what: removingName(ID), why: 'its removal was begun', bytes: 8_192 });
  await driver.create(ID);
  await writeFile(join(bench.root, 'layerstore', 'intents', ID), '{"kind":"layer"}');
  const dry = await again.gc({ dryRun: true });
  adds(dry);
  assert.equal(dry.items.filter(({ kind }) => kind === 'layer').length, 2);
  assert.equal(dry.items.filter(({ kind }) => kind === 'leftover').length, 1 + aside.length);
  assert.ok(dry.bytes >= 8_192 + 1_024);
  const run = await again.gc();
  adds(run);
  const key = ({ items }: CleanupReport): string[] =>
    items.map(({ kind, what, bytes }) => `${kind} ${what} ${bytes}`).sort();
  assert.deepEqual(key(run), key(dry));
  assert.equal(run.bytes, dry.bytes);
  const nothing = await again.gc();
  assert.deepEqual([nothing.items, nothing.bytes], [[], 0]);
});

test('what the driver could not remove is not reported as freed', async (t) => {
  const bench = await Bench.make(t);
  class Stuck extends FullMemoryDriver {
    async leftovers(): Promise<{ what: string; why: string; bytes: number }[]> {
      return [{ what: '.removing-x', why: 'its removal was begun', bytes: 4_096 }];
    }
  }
  const store = await bench.openOnDisk({ driver: new Stuck(bench.disk) });
  assert.equal((await store.gc({ dryRun: true })).bytes, 4_096);
  assert.deepEqual([(await store.cleanup()).items, (await store.gc()).bytes], [[], 0]);
});
