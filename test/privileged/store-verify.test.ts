/** verify within its budget and what it says; repair below layers, mounts and views. Real engines and drivers. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { DiffGetter, GraphDriver } from '../../src/driver/graph-driver.js';
import { Overlay2Driver } from '../../src/driver/overlay2/driver.js';
import { VfsDriver } from '../../src/driver/vfs/driver.js';
import { LayerStoreError } from '../../src/errors.js';
import type { Layer, Store } from '../../src/store/types.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { bytesOf, COMBINATIONS, prepare, remains, type Place } from './store-support.js';

const code = (expected: string) => (error: unknown) => LayerStoreError.is(error) && error.code === expected;
const MIB = 1024 * 1024;

const DRIVERS = { overlay2: Overlay2Driver, vfs: VfsDriver };

/** A tar of one file of `bytes` bytes. */
function bigTar(place: Place, name: string, bytes: number): string {
  const tree = join(dirname(place.root), name);
  mkdirSync(tree);
  writeFileSync(join(tree, name), Buffer.alloc(bytes, name));
  execFileSync('tar', ['-cf', `${tree}.tar`, '-C', tree, '.']);
  return `${tree}.tar`;
}

/** Where a layer's own files lie. */
function treeOf(place: Place, driver: string, known: ReadonlySet<string>): { tree: string; id: string } {
  const home = join(place.root, driver, ...(driver === 'vfs' ? ['dir'] : []));
  const [id, ...others] = readdirSync(home).filter((name) => /^[a-f0-9]{64}$/.test(name) && !known.has(name));
  assert.ok(id !== undefined && others.length === 0);
  return { tree: join(home, id, driver === 'vfs' ? '' : 'diff'), id };
}

async function registerBase(place: Place, store: Store, driver: string): Promise<{ layer: Layer; tree: string }> {
  const layer = await store.register({ path: place.tars[0]?.path ?? '' });
  return { layer, tree: treeOf(place, driver, new Set()).tree };
}

function damage(tree: string): void {
  writeFileSync(join(tree, 'data', 'big'), Buffer.alloc(300_000, 8));
}

/** A record without the zeros at the end of its tar: well-formed, but of another tar. */
function withoutLastSegment(lines: string): string {
  return `${lines.trimEnd().split('\n').slice(0, -1).join('\n')}\n`;
}

for (const { engine, driver, label } of COMBINATIONS) {
  test(`${label}: verify reads no faster than its budget, and no more layers at once than asked for`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open({ durability: 'relaxed' });
    for (const name of ['one', 'two', 'three', 'four']) await store.register({ path: bigTar(place, name, 2 * MIB) });
    // A layer is read between the getting of its files and their giving back.
    let [now, most] = [0, 0];
    const { prototype } = DRIVERS[driver];
    // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the driver as `this` below
    const original = prototype.diffGetter;
    t.mock.method(prototype, 'diffGetter', async function (this: GraphDriver, id: string): Promise<DiffGetter> {
      const getter = await original.call(this as never, id);
      most = Math.max(most, (now += 1));
      await new Promise((resolve) => setTimeout(resolve, 20)); // long enough for all that may to be here
      t.mock.method(getter, 'close', async () => void (now -= 1));
      return getter;
    });
    for (const concurrency of [1, 2, 3]) {
      most = 0;
      assert.equal((await store.verify(undefined, { concurrency })).ok, true);
      assert.equal(most, concurrency);
    }
    most = 0;
    await store.verify();
    assert.equal(most, 2, 'the default');

    const began = performance.now();
    assert.equal((await store.verify(undefined, { concurrency: 2, bytesPerSecond: 16 * MIB })).ok, true);
    const seconds = (performance.now() - began) / 1000;
    // 8 MiB in all; the last piece of each layer, a quarter of a MiB, may be read before its time is up.
    assert.ok(seconds >= 7 / 16, `8 MiB in ${seconds} s is more than 16 MiB a second`);
    t.diagnostic(`8 MiB at 16 MiB a second: ${seconds.toFixed(2)} s`);
  });

  test(`${label}: a problem says layer, path, expected and found, and whether it is cosmetic`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const { layer, tree } = await registerBase(place, store, driver);
    const passwd = join(tree, 'etc', 'passwd');
    utimesSync(passwd, 1_600_000_000, 1_600_000_000);
    lutimesSync(join(tree, 'data', 'link'), 1_600_000_000, 1_600_000_000);
    const touched = await store.verify();
    assert.deepEqual([touched.ok, touched.layers[0]?.ok], [true, true], 'an mtime alone is cosmetic');
    const cosmetic = touched.layers[0]?.problems ?? [];
    assert.deepEqual(
      cosmetic.map(({ path, what, cosmetic: harmless }) => [path, what, harmless]),
      [
        ['/data/link', 'mtime', true],
        ['/etc/passwd', 'mtime', true],
      ],
    );
    chmodSync(passwd, 0o600);
    damage(tree);
    const { ok, layers } = await store.verify(layer.chainID);
    assert.deepEqual([ok, layers[0]?.ok], [false, false]);
    const problems = layers[0]?.problems ?? [];
    for (const { chainID, path, expected, found } of problems) {
      assert.equal(chainID, layer.chainID);
      assert.ok(path.startsWith('/') && expected !== '' && found !== '' && expected !== found, path);
    }
    const real = problems.filter((problem) => !problem.cosmetic).map(({ path, what }) => `${path} ${what}`);
    assert.ok(real.includes('/etc/passwd mode'), real.join());
    assert.ok(
      real.some((text) => /^\/data\/(big|same) content$/.test(text)),
      real.join(),
    );
  });

  test(`${label}: a recorded size that differs from a walk is no damage`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const { layer } = await registerBase(place, store, driver);
    await store.close();
    const record = join(place.root, 'image', driver, 'layerdb', layer.chainID.replace(':', '/'), 'size');
    writeFileSync(record, '12345');
    const again = await place.open();
    assert.equal((await again.usage()).layers.bytes, 12345);
    const report = await again.verify();
    assert.equal(report.ok, true);
    assert.deepEqual(report.layers[0]?.problems, []);
  });

  test(`${label}: a record that is missing, damaged or another layer's is the layer's problem, and repaired`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const { layer } = await registerBase(place, store, driver);
    const other = await store.register({ path: place.tars[1]?.path ?? '' });
    const recordOf = ({ chainID }: Layer): string =>
      join(place.root, 'image', driver, 'layerdb', chainID.replace(':', '/'), 'tar-split.json.gz');
    const record = recordOf(layer);
    const lines = gunzipSync(readFileSync(record)).toString();
    const damages: [found: RegExp, () => void][] = [
      [/missing.*;/, () => rmSync(record)],
      [/^damaged \(.+\);/, () => writeFileSync(record, 'no gzip')],
      [/^damaged \(.+\);/, () => writeFileSync(record, gzipSync(lines.slice(0, lines.length >> 1)))],
      [/^damaged \(.+\);/, () => writeFileSync(record, gzipSync('[]\n'))],
      [/^one of sha256:[0-9a-f]{64};/, () => writeFileSync(record, gzipSync(withoutLastSegment(lines)))],
    ];
    for (const [found, damageRecord] of damages) {
      damageRecord();
      const { ok, layers } = await store.verify();
      assert.equal(ok, false);
      assert.deepEqual(layers.find(({ chainID }) => chainID === other.chainID)?.problems, []);
      const problems = layers.find(({ chainID }) => chainID === layer.chainID)?.problems ?? [];
      assert.deepEqual(
        problems.map(({ path, what, cosmetic }) => ({ path, what, cosmetic })),
        [{ path: '/', what: 'record', cosmetic: false }],
      );
      assert.match(problems[0]?.found ?? '', found);
      assert.match(problems[0]?.found ?? '', /; repair the layer from its tar$/);
      const wanted = found.source.startsWith('^one of') ? `one of the tar ${layer.diffID}` : 'one that can be read';
      assert.equal(problems[0]?.expected, wanted);
      assert.ok(!JSON.stringify(problems).includes(place.root), `a path of the store: ${JSON.stringify(problems)}`);
      await store.repair(layer.chainID, { path: place.tars[0]?.path ?? '' });
      assert.equal((await store.verify()).ok, true);
      assert.deepEqual(await bytesOf(await layer.tarStream()), place.tars[0]?.bytes);
    }
  });

  for (const how of ['repair', 'verifyExisting'] as const) {
    test(`${label}: ${how} below a mount and a view: they keep the old tree, children stay valid`, async (t) => {
      const place = prepare(t, engine, driver);
      const store = await place.open();
      const [base, upper] = place.tars;
      const { layer, tree } = await registerBase(place, store, driver);
      const child = await store.register({ path: upper?.path ?? '' }, layer.chainID);
      const box = await store.createRWLayer('box', child.chainID);
      const path = await box.mount();
      const view = await child.view();
      damage(tree);
      const first = (directory: string): number | undefined => readFileSync(join(directory, 'data', 'big'))[0];
      const before = [first(path), first(view.path)];
      if (driver === 'overlay2') assert.deepEqual(before, [8, 8]);
      const source = { path: base?.path ?? '' };
      if (how === 'repair') await store.repair(layer.chainID, source);
      else await store.release(await store.register(source, undefined, { verifyExisting: true }));
      assert.equal((await store.verify()).ok, true);
      assert.deepEqual([first(path), first(view.path)], before, 'what was mounted before keeps what it had');
      assert.deepEqual(await bytesOf(await child.tarStream()), upper?.bytes);
      assert.deepEqual(await bytesOf(await layer.tarStream()), base?.bytes);
      writeFileSync(join(path, 'written'), 'x');
      await view[Symbol.asyncDispose]();
      await box.unmount();
      // The old tree has gone with the last of them.
      const again = await box.mount();
      assert.equal(first(again), 7);
      assert.equal(readFileSync(join(again, 'written'), 'utf8'), 'x');
      await box.unmount();
      await store.close();
      assert.equal(remains(place, driver).directories?.length, 3, 'two layers and the RW layer; no old tree');
      assert.deepEqual(mountsBelow(place.root), []);
    });
  }

  test(`${label}: usage walks RW layers only`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const { layer } = await registerBase(place, store, driver);
    const read = treeOf(place, driver, new Set()).id;
    await store.createRWLayer('box', layer.chainID);
    const { prototype } = DRIVERS[driver];
    const walks = (['usage', 'diffSize', 'changes'] as const).map((method) => t.mock.method(prototype, method));
    const { layers, rwLayers } = await store.usage();
    const walked = walks.flatMap(({ mock }) => mock.calls.map((call) => call.arguments[0]));
    assert.deepEqual([layers.count, rwLayers.count, walked.length], [1, 1, 1]);
    assert.equal(layers.bytes, await layer.size());
    assert.notEqual(walked[0], read, 'not the read-only layer');
  });

  test(`${label}: cleanup and a dry run account for trees that were renamed away and not unlinked`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const home = join(place.root, driver, ...(driver === 'vfs' ? ['dir'] : []));
    const name = `.removing-${'d'.repeat(64)}-${'0'.repeat(16)}`;
    mkdirSync(join(home, name, 'diff'), { recursive: true });
    writeFileSync(join(home, name, 'diff', 'file'), Buffer.alloc(100_000, 1));
    const dry = await store.gc({ dryRun: true });
    const report = await store.cleanup();
    for (const { items, bytes } of [dry, report]) {
      assert.deepEqual(
        items.map(({ kind, what }) => [kind, what]),
        [['leftover', name]],
      );
      assert.match(items[0]?.why ?? '', /removal of "d{64}" was begun and not ended/);
      assert.ok((items[0]?.bytes ?? 0) >= 100_000);
      assert.equal(bytes, items[0]?.bytes);
    }
    assert.ok(!readdirSync(home).includes(name));
    assert.deepEqual((await store.cleanup()).items, []);
  });

  test(`${label}: an index of records that an earlier version left is ignored, and goes with a cleanup`, async (t) => {
    const place = prepare(t, engine, driver);
    const first = await place.open();
    const { layer } = await registerBase(place, first, driver);
    await first.close();
    const index = join(place.root, 'layerstore', `records-${driver}.index`);
    writeFileSync(index, Buffer.alloc(5000, 'not what it was'));
    const store = await place.open();
    assert.deepEqual([...store.map().keys()], [layer.chainID]);
    const { items } = await store.cleanup();
    assert.deepEqual(
      items.map(({ kind, what, bytes }) => [kind, what, bytes >= 5000]),
      [['leftover', `layerstore/records-${driver}.index`, true]],
    );
    assert.equal(existsSync(index), false);
  });
}

for (const engine of ['native', 'js'] as const) {
  test(`${engine}: below an RW layer with index=on a layer is not repaired`, async (t) => {
    const place = prepare(t, engine, 'overlay2');
    const store = await place.open({ driverOptions: { 'overlay2.mountopt': 'index=on' } });
    const { layer, tree } = await registerBase(place, store, 'overlay2');
    const source = { path: place.tars[0]?.path ?? '' };
    const box = await store.createRWLayer('box', layer.chainID);
    await box.mount();
    damage(tree);
    for (const mounted of [true, false]) {
      if (!mounted) await box.unmount();
      await assert.rejects(store.repair(layer.chainID, source), code('ERR_ACTIVE_MOUNT'));
      const verified = store.register(source, undefined, { verifyExisting: true });
      await assert.rejects(verified, code('ERR_ACTIVE_MOUNT'));
      assert.equal((await store.verify()).ok, false, 'nothing was put back');
    }
    await store.releaseRWLayer(box);
    await store.repair(layer.chainID, source);
    assert.equal((await store.verify()).ok, true);
    await store.close();
    assert.equal(remains(place, 'overlay2').directories?.length, 1);
  });
}
