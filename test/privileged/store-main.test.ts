/** The main job on real files and mounts, by each engine and driver. */
import assert from 'node:assert/strict';
import {
  closeSync,
  createReadStream,
  existsSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { LayerStoreError } from '../../src/errors.js';
import { formatChange } from '../../src/store/without-store.js';
import { bytesOf, COMBINATIONS, digestOf, NOTHING, prepare, remains } from './store-support.js';

const code = (expected: string) => (error: unknown) => LayerStoreError.is(error) && error.code === expected;

for (const { engine, driver, label } of COMBINATIONS) {
  test(`${label}: register, mount, change, commit, export, release; nothing is left`, async (t) => {
    const place = prepare(t, engine, driver);
    const [base, upper, deletions] = place.tars as [
      (typeof place.tars)[0],
      (typeof place.tars)[0],
      (typeof place.tars)[0],
    ];
    const store = await place.open();
    const a = await store.register({ path: base.path });
    const b = await store.register(createReadStream(upper.path), a.chainID, { diffID: upper.diffID });
    const gzipped = gzipSync(deletions.bytes);
    const descriptor = {
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: digestOf(gzipped),
      size: gzipped.length,
    };
    const c = await store.registerWithDescriptor(
      (async function* () {
        yield gzipped;
      })(),
      b.chainID,
      descriptor,
    );
    for (const [layer, tar] of [
      [a, base],
      [b, upper],
      [c, deletions],
    ] as const) {
      assert.equal(layer.diffID, tar.diffID);
      assert.deepEqual(await bytesOf(await layer.tarStream()), tar.bytes);
    }
    assert.equal(await a.diffSize(), 300_000 + 11 + '../etc/passwd'.length);
    assert.equal((await store.verify()).ok, true);

    const box = await store.createRWLayer('box', c.chainID, {
      initFunc: (root) => writeFileSync(join(root, 'init'), 'i'),
    });
    const path = await box.mount();
    assert.equal(readFileSync(join(path, 'etc', 'passwd'), 'utf8'), 'root:x:0:0\nuser:x:1:1\n');
    assert.equal(existsSync(join(path, 'data', 'link')), false, 'deleted by the third layer');
    assert.equal(readFileSync(join(path, 'init'), 'utf8'), 'i');
    writeFileSync(join(path, 'data', 'added'), 'hello');
    rmSync(join(path, 'new'));
    assert.deepEqual((await box.changes()).map(formatChange), ['C /data', 'A /data/added', 'D /new']);
    assert.equal(await box.size(), 5);
    const tar = await bytesOf(await box.tarStream());
    const copy = await store.commit(box);
    assert.equal(copy.diffID, digestOf(tar), 'the same as its tar registered');
    const same = await store.register(
      (async function* () {
        yield tar;
      })(),
      c.chainID,
    );
    assert.equal(same.chainID, copy.chainID);
    await box.unmount();
    assert.deepEqual(await bytesOf(await copy.tarStream()), tar);
    await store.release(same);
    await store.release(copy);
    const taken = await store.commit(box, { consume: true });
    assert.equal(taken.diffID, digestOf(tar));
    assert.deepEqual(await bytesOf(await taken.tarStream()), tar);
    assert.equal(store.mounts().size, 0);
    assert.equal((await store.verify(taken.chainID)).ok, true);

    const view = await taken.view();
    assert.equal(readFileSync(join(view.path, 'data', 'added'), 'utf8'), 'hello');
    assert.equal(existsSync(join(view.path, 'new')), false);
    assert.throws(() => writeFileSync(join(view.path, 'x'), ''), { code: 'EROFS' });
    await assert.rejects(store.release(taken), code('ERR_ACTIVE_MOUNT'));
    await view[Symbol.asyncDispose]();

    const usage = await store.usage();
    assert.equal(usage.layers.count, 4);
    assert.ok(usage.fileSystem.bytesFree > 0);
    await store.release(a);
    await store.release(b);
    await store.release(c);
    assert.equal((await store.release(taken)).length, 4);
    await store.close();
    const again = await place.open();
    await again.close();
    assert.deepEqual(remains(place, driver), NOTHING);
    assert.deepEqual(
      place.lines.filter(({ level }) => level === 'warn' || level === 'error'),
      [],
    );
  });

  test(`${label}: a chain, exported to descriptors and files that appear whole`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open({ durability: 'relaxed' });
    const top = await store.registerChain(place.tars.map(({ path, diffID }) => ({ tar: { path }, diffID })));
    const middle = top.parent;
    assert.ok(middle !== undefined);
    const out = join(dirname(place.root), 'out.tar');
    const result = await middle.exportTo({ path: out });
    assert.deepEqual(result, { bytes: place.tars[1]?.bytes.length, diffID: place.tars[1]?.diffID });
    assert.deepEqual(readFileSync(out), place.tars[1]?.bytes);
    const fd = openSync(`${out}.fd`, 'w');
    await top.exportTo({ fd });
    closeSync(fd);
    assert.deepEqual(readFileSync(`${out}.fd`), place.tars[2]?.bytes);
    const whole = await bytesOf(await top.tarStreamFrom());
    const flat = await store.register(
      (async function* () {
        yield whole;
      })(),
    );
    const view = await flat.view();
    assert.deepEqual(readdirSync(view.path).sort(), ['data', 'etc', 'new']);
    assert.deepEqual(readdirSync(join(view.path, 'data')).sort(), ['big', 'same']);
    assert.equal(statSync(join(view.path, 'etc', 'passwd')).mode & 0o7777, 0o600);
    await view[Symbol.asyncDispose]();
    const base = middle.parent;
    assert.ok(base !== undefined);
    const difference = await bytesOf(await top.tarStreamFrom(base.chainID));
    assert.ok(difference.includes('.wh.link') && difference.includes('user:x:1:1') && difference.length < 20_000);
    await assert.rejects(top.tarStreamFrom(flat.chainID), code('ERR_INVALID_ARGUMENT'));
  });

  test(`${label}: damage is found, told apart and repaired; children stay valid`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const [base, upper] = place.tars;
    const a = await store.register({ path: base?.path ?? '' });
    const b = await store.register({ path: upper?.path ?? '' }, a.chainID);
    const box = await store.createRWLayer('box', b.chainID);
    const { UpperDir, Dir } = (await a.metadata()) as { UpperDir?: string; Dir?: string };
    const tree = UpperDir ?? Dir ?? '';
    writeFileSync(join(tree, 'data', 'big'), Buffer.alloc(300_000, 8));
    await assert.rejects(bytesOf(await a.tarStream()), code('ERR_LAYER_CORRUPT'));
    const out = join(dirname(place.root), 'out.tar');
    await assert.rejects(a.exportTo({ path: out }), code('ERR_LAYER_CORRUPT'));
    assert.deepEqual(
      readdirSync(dirname(out)).filter((name) => name.includes('out.tar')),
      [],
      'no half file',
    );
    const report = await store.verify();
    assert.equal(report.ok, false);
    assert.deepEqual(
      report.layers.filter(({ ok }) => !ok).map(({ chainID }) => chainID),
      [a.chainID],
    );
    const [problem] = report.layers.find(({ ok }) => !ok)?.problems ?? [];
    assert.match(problem?.path ?? '', /data\/(big|same)$/);
    await assert.rejects(store.repair(a.chainID, { path: upper?.path ?? '' }), code('ERR_DIGEST_MISMATCH'));
    await store.repair(a.chainID, { path: base?.path ?? '' });
    assert.equal((await store.verify()).ok, true);
    assert.deepEqual(await bytesOf(await a.tarStream()), base?.bytes);
    if (driver === 'overlay2') {
      const path = await box.mount();
      assert.equal(readFileSync(join(path, 'data', 'big'))[0], 7);
      await box.unmount();
    }
  });

  test(`${label}: an abort in the middle leaves nothing`, async (t) => {
    const place = prepare(t, engine, driver);
    const store = await place.open();
    const controller = new AbortController();
    const reason = new Error('enough');
    const stalled = (async function* () {
      yield place.tars[0]?.bytes.subarray(0, 100_000) ?? Buffer.alloc(0);
      controller.abort(reason);
      await new Promise(() => undefined);
    })();
    await assert.rejects(
      store.register(stalled, undefined, { signal: controller.signal }),
      (error) => error === reason,
    );
    const truncated = (async function* () {
      yield place.tars[0]?.bytes.subarray(0, 100_000) ?? Buffer.alloc(0);
    })();
    await assert.rejects(store.register(truncated), code('ERR_BAD_TAR'));
    await assert.rejects(store.register({ path: dirname(place.root) }), code('ERR_SYSTEM'));
    const garbage = (async function* () {
      yield Buffer.alloc(4096, 'garbage ');
    })();
    await assert.rejects(store.register(garbage), code('ERR_BAD_TAR'));
    await store.close();
    assert.deepEqual(remains(place, driver), NOTHING);
  });
}
