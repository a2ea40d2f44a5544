/** A layer's entries without its files: the same out of the record as out of the tar, for every odd archive that registers. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { tarEntries, type LayerEntry } from '../../../src/driver/layer-entries.js';
import { emptyLayer, LayerStoreError, openStore, type Layer, type Store } from '../../../src/index.js';
import { tempDir } from '../../support/temp.js';

const ARCHIVES = join(import.meta.dirname, '../../data/tar');
const ENGINES = ['native', 'js'] as const;

async function listed(entries: AsyncIterable<LayerEntry>): Promise<LayerEntry[]> {
  const found: LayerEntry[] = [];
  for await (const entry of entries) found.push(entry);
  return found;
}

async function open(root: string, engine: 'native' | 'js'): Promise<Store> {
  return openStore({ root, driver: 'vfs', engine, durability: 'relaxed' });
}

for (const engine of ENGINES) {
  test(`the entries of odd archives, ${engine}`, async (t) => {
    await using store = await open(tempDir(t, 'entries'), engine);
    let compared = 0;
    let checksums = 0;
    for (const name of readdirSync(ARCHIVES).sort()) {
      let layer: Layer;
      try {
        layer = await store.register({ path: join(ARCHIVES, name) });
      } catch (error) {
        if (LayerStoreError.is(error)) continue; // which are refused, and why, is another test's business
        throw error;
      }
      const recorded = await listed(await layer.entries());
      assert.deepEqual(recorded, await listed(tarEntries(await layer.tarStream(), undefined)), name);
      compared++;
      checksums += recorded.filter(({ crc64 }) => crc64 !== undefined).length;
    }
    assert.ok(compared >= 20 && checksums >= 20, `${compared} archives, ${checksums} checksums`);
  });
}

test('what an entry tells', async (t) => {
  const tar = pack();
  const mtime = new Date(1_500_000_000_000);
  tar.entry({ name: './etc/', type: 'directory', mode: 0o755, mtime });
  tar.entry({ name: 'etc/motd', mode: 0o4750, uid: 3, gid: 70_000, mtime }, '123456789');
  tar.entry({ name: 'etc/empty', mtime }, '');
  tar.entry({ name: 'etc/again', type: 'link', linkname: 'etc/motd', mtime });
  tar.entry({ name: 'etc/é', type: 'symlink', linkname: '/über', mtime });
  tar.entry({ name: 'etc/.wh.gone', mtime }, '');
  tar.finalize();
  const store = await open(tempDir(t, 'entries'), 'native');
  t.after(() => store.close());
  const layer = await store.register(tar as unknown as Readable);
  const entries = await listed(await layer.entries());
  const rows = entries.map((entry) => [entry.type, entry.path, entry.size, entry.linkTarget, entry.crc64]);
  assert.deepEqual(rows, [
    ['directory', 'etc', 0, '', undefined],
    ['file', 'etc/motd', 9, '', 'b90956c775a41001'],
    ['file', 'etc/empty', 0, '', undefined],
    ['link', 'etc/again', 0, 'etc/motd', undefined],
    ['symlink', 'etc/é', 0, '/über', undefined],
    ['file', 'etc/.wh.gone', 0, '', undefined],
  ]);
  const motd = entries[1];
  assert.deepEqual([motd?.mode, motd?.uid, motd?.gid, motd?.modified], [0o4750, 3, 70_000, mtime]);
  assert.deepEqual(await listed(await emptyLayer.entries()), []);

  const reason = new Error('no more');
  await assert.rejects(layer.entries({ signal: AbortSignal.abort(reason) }), (error) => error === reason);
  const stop = new AbortController();
  const some = await layer.entries({ signal: stop.signal });
  await assert.rejects(
    async () => {
      for await (const entry of some) {
        assert.equal(entry.path, 'etc');
        stop.abort(reason);
      }
    },
    (error) => error === reason || (error as Error).message.includes('etc'),
  );
  const untouched = await layer.entries();
  await store.close();
  await assert.rejects(listed(untouched), { code: 'ERR_STORE_CLOSED' });
  await assert.rejects(layer.entries(), { code: 'ERR_STORE_CLOSED' });
});

test('a record that is damaged, of another shape, or missing', async (t) => {
  const root = tempDir(t, 'entries');
  await using store = await open(root, 'native');
  const tar = pack();
  tar.entry({ name: 'a' }, 'content of some length');
  tar.finalize();
  const layer = await store.register(tar as unknown as Readable);
  const record = join(root, 'image/vfs/layerdb/sha256', layer.chainID.slice(7), 'tar-split.json.gz');
  const cases: [string, Buffer, RegExp][] = [
    ['no gzip', Buffer.from('not compressed at all'), /tar-split record .* is damaged/],
    ['no JSON', gzipSync('{"type":2\n'), /it is no JSON/],
    // A file where the header of the next entry has to be.
    ['no header', gzipSync('{"type":1,"name":"a","size":600,"payload":null,"position":0}\n'), /record is damaged/],
  ];
  for (const [name, bytes, message] of cases) {
    await writeFile(record, bytes);
    await assert.rejects(async () => listed(await layer.entries()), { code: 'ERR_LAYER_CORRUPT', message }, name);
  }
  await rm(record);
  await assert.rejects(async () => listed(await layer.entries()), { code: 'ERR_LAYER_CORRUPT', message: /is missing/ });
});
