/** A store of many layers keeps what it read of their records for the next open; what it says is never more than they do. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { pack } from 'tar-stream';
import type { ChainID } from '../../src/digest.js';
import type { Store } from '../../src/store/types.js';
import { mapConcurrent } from '../../src/util/concurrent.js';
import { prepare } from './store-support.js';

const LAYERS = 600;
/** What was changed a moment ago may change once more without a new time, so it is not kept. */
const SETTLED = 2200;

async function fill(store: Store, first: number, count: number): Promise<ChainID[]> {
  return mapConcurrent(
    Array.from({ length: count }, (_, n) => first + n),
    16,
    async (n) => {
      const tar = pack();
      tar.entry({ name: `file-${n}` }, String(n));
      tar.finalize();
      const layer = await store.register(Readable.from(tar));
      await store.retain(layer.chainID, `layer-${n}`);
      return layer.chainID;
    },
  );
}

async function mapOf(store: Store): Promise<string[]> {
  const lines = [...store.map().values()].map(
    async (layer) => `${layer.chainID} ${layer.diffID} ${await layer.size()} ${layer.parent?.chainID ?? ''}`,
  );
  return (await Promise.all(lines)).sort();
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`${driver}: an open by the index finds what an open without finds`, async (t) => {
    const place = prepare(t, 'native', driver);
    const index = join(place.root, 'layerstore', `records-${driver}.index`);
    const layerdb = join(place.root, 'image', driver, 'layerdb/sha256');
    let store = await place.open({ durability: 'relaxed' });
    const chains = await fill(store, 0, LAYERS);
    await store.close();
    await setTimeout(SETTLED);

    // A reader uses it and never writes it.
    const reader = await place.open({ readOnly: true });
    const expected = await mapOf(reader);
    await reader.close();
    assert.equal(expected.length, LAYERS);
    assert.equal(existsSync(index), false);

    store = await place.open({ durability: 'relaxed' });
    assert.deepEqual(await mapOf(store), expected);
    await store.close();
    assert.equal(existsSync(index), true);
    const kept = readFileSync(index);

    // Taken away and added since.
    store = await place.open({ durability: 'relaxed' });
    assert.deepEqual(await mapOf(store), expected);
    for (let n = 0; n < 20; n++) await store.dropReference(`layer-${n}`);
    const added = await fill(store, LAYERS, 10);
    const changed = await mapOf(store);
    await store.close();
    assert.equal(changed.length, LAYERS - 10);
    assert.deepEqual(readFileSync(index), kept, 'for a few it is not written anew');
    store = await place.open({ durability: 'relaxed' });
    assert.deepEqual(await mapOf(store), changed);
    assert.deepEqual((await store.verify(added[0])).layers[0]?.problems, []);

    // One record that lost a file, and one that lost its tree.
    const broken = (chains[30] as ChainID).slice('sha256:'.length);
    const treeless = chains[31] as ChainID;
    const tree = readFileSync(join(layerdb, treeless.slice('sha256:'.length), 'cache-id'), 'utf8');
    await store.close();
    rmSync(join(layerdb, broken, 'size'));
    rmSync(join(place.root, driver, ...(driver === 'vfs' ? ['dir'] : []), tree), { recursive: true });
    store = await place.open({ durability: 'relaxed' });
    assert.equal(store.map().size, LAYERS - 12);
    assert.equal(place.lines.filter(({ level }) => level === 'warn').length >= 2, true);
    await store.close();

    // Damaged, or gone, it is read without.
    for (const bytes of [kept.subarray(0, 1000), Buffer.from(kept).fill(1, 5000, 5010), Buffer.alloc(0)]) {
      writeFileSync(index, bytes);
      store = await place.open({ durability: 'relaxed' });
      assert.equal(store.map().size, LAYERS - 12);
      await store.close();
    }
    // What a crash left of one that was being written goes.
    writeFileSync(`${index}.tmp`, 'x');
    store = await place.open({ durability: 'relaxed' });
    await store.close();
    assert.deepEqual(
      readdirSync(join(place.root, 'layerstore')).filter((name) => name.endsWith('.tmp')),
      [],
    );
  });
}

test('verify sees a record that was written over in place', async (t) => {
  for (const { file, text, expected } of [
    { file: 'diff', text: `sha256:${'1'.repeat(64)}`, expected: /^a record that can be read$/ },
    { file: 'cache-id', text: 'another', expected: /^the cache id [0-9a-f]{64}$/ },
    { file: 'parent', text: 'nonsense', expected: /^a record that can be read$/ },
  ]) {
    const place = prepare(t, 'native', 'overlay2');
    const store = await place.open({ durability: 'relaxed' });
    const base = await store.register({ path: place.tars[0]?.path ?? '' });
    const layer = await store.register({ path: place.tars[1]?.path ?? '' }, base.chainID);
    assert.equal((await store.verify()).ok, true);
    const record = join(place.root, 'image/overlay2/layerdb/sha256', layer.chainID.slice('sha256:'.length));
    writeFileSync(join(record, file), text);
    const report = await store.verify();
    assert.equal(report.ok, false);
    const problems = report.layers.flatMap((one) => one.problems);
    assert.equal(problems.length >= 1, true);
    const problem = problems.find(({ what }) => what === 'record');
    assert.equal(problem?.chainID, layer.chainID);
    assert.match(problem?.expected ?? '', expected);
    assert.match(problem?.found ?? '', /release the layer and register it again$/);
    assert.equal(problem?.found.includes(place.root), false, 'no path of the host');
    await store.close();
  }
});
