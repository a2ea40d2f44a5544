/** Readers beside a writer: they see complete layers only, follow the writer, and never change a byte. */
import assert from 'node:assert/strict';
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { openStore } from '../../src/store/open.js';
import { runSeed, seededRandom } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { makeBase, Workload } from './support/workload.js';
import { sampleTar } from './support/tars.js';

/** Every name below `root` with what a write would change; `atime` is the reader's by right. */
function fingerprint(root: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string): void => {
    const { ino, mode, size, mtimeNs, ctimeNs } = lstatSync(path, { bigint: true });
    found.set(path, [ino, mode, size, mtimeNs, ctimeNs].join(' '));
    if (!lstatSync(path).isDirectory()) return;
    for (const name of readdirSync(path)) walk(join(path, name));
  };
  walk(root);
  return found;
}

test('a reader beside a busy writer sees whole layers only, and follows', async (t) => {
  const root = join(tempDir(t, 'readers'), 'root');
  const seed = runSeed();
  const random = seededRandom(seed);
  const writer = await openStore({ root, engine: 'native', driver: 'overlay2', durability: 'relaxed' });
  t.after(() => writer.close());
  let ops = 0;
  await makeBase(writer, () => undefined, (ops += 1));
  const reader = await openStore({ root, engine: 'native', driver: 'overlay2', readOnly: true });
  t.after(() => reader.close());
  const lane = await Workload.start({ store: writer, log: () => undefined, random, lane: 1, nextOp: () => (ops += 1) });
  let over = false;
  let exported = 0;
  let vanished = 0;
  const work = (async () => {
    for (let n = 0; n < 120; n += 1) await lane.step();
    over = true;
  })();
  while (!over) {
    await reader.refresh();
    for (const chainID of reader.map().keys()) {
      try {
        const layer = await reader.get(chainID);
        for await (const chunk of await layer.tarStream()) void chunk;
        exported += 1;
        await reader.release(layer);
      } catch (error) {
        // The writer took it away meanwhile; then it is gone from its map, or was between.
        vanished += 1;
        assert.match(String(error), /ERR_|LayerStoreError/, `LAYERSTORE_SEED=${seed}`);
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await work;
  await reader.refresh();
  assert.deepEqual([...reader.map().keys()].sort(), [...writer.map().keys()].sort());
  assert.deepEqual([...reader.mounts().keys()].sort(), [...writer.mounts().keys()].sort());
  assert.ok(exported > 0);
  t.diagnostic(
    `${exported} exports beside ${ops} operations, ${vanished} of layers just removed (LAYERSTORE_SEED=${seed})`,
  );
});

test('a reader changes nothing, whatever a crash left', async (t) => {
  const root = join(tempDir(t, 'readers'), 'root');
  const writer = await openStore({ root, engine: 'native', driver: 'overlay2' });
  const layer = await writer.register(Readable.from([sampleTar(8, 1).bytes]));
  await writer.createRWLayer('box', layer.chainID);
  await writer.close();
  const before = fingerprint(root);
  const reader = await openStore({ root, engine: 'native', driver: 'overlay2', readOnly: true });
  const own = await reader.get(layer.chainID);
  for await (const chunk of await own.tarStream()) void chunk;
  await reader.verify();
  await reader.usage();
  await reader.refresh();
  await (await reader.getRWLayer('box')).changes();
  const refused = [
    reader.register(Readable.from([sampleTar(8, 2).bytes])),
    reader.createRWLayer('other', layer.chainID),
    reader.retain(layer.chainID, 'name'),
    reader.cleanup(),
    reader.gc(),
    reader.repair(layer.chainID, Readable.from([sampleTar(8, 1).bytes])),
  ];
  for (const call of refused) await assert.rejects(call, { code: 'ERR_READ_ONLY' });
  await reader.close();
  assert.deepEqual(fingerprint(root), before);
});
