import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { openImages, type ImageAnalysis } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';
import { entries, oci, sampleConfig, tar, type Entry } from './archives.js';
import { FakeStore } from './fake-store.js';

let store: FakeStore & Store;
beforeEach(async () => {
  store = await FakeStore.open();
});
afterEach(async () => store.dispose());

async function analyze(layers: readonly Entry[][], history?: object[]): Promise<ImageAnalysis> {
  const tars = await Promise.all(layers.map((layer) => tar(layer)));
  const config = sampleConfig(tars, history === undefined ? {} : { history });
  const path = join(store.root, 'archive');
  await writeFile(path, await tar(entries(oci(tars, { config }).files)));
  const images = await openImages(store);
  await images.load({ path });
  const analysis = await images.analyze('sample:1');
  assert.equal(store.handles, Math.min(layers.length, 1), "the image's own");
  return analysis;
}

const file = (name: string, size: number, fill = name[0] ?? 'x'): Entry => [name, fill.repeat(size)];
const directory = (name: string): Entry => [{ name, type: 'directory' }];
const lines = ({ layers }: ImageAnalysis): string[][] =>
  layers.map(({ files }) => files.map(({ kind, type, path, size }) => `${kind} ${type} ${path} ${size}`));

describe('what an image is made of', () => {
  it('layer by layer, with what is wasted and where', async () => {
    const analysis = await analyze(
      [
        [
          directory('etc/'),
          file('etc/a', 1000),
          file('etc/b', 200),
          directory('var/'),
          file('var/cache/one', 3000),
          file('var/cache/two', 4000),
          [{ name: 'etc/link', type: 'symlink', linkname: 'a' }],
          [{ name: 'etc/again', type: 'link', linkname: 'etc/a' }],
        ],
        [directory('etc/'), file('etc/a', 1500), ['etc/.wh.b', ''], file('new/file', 10)],
        [['var/.wh.cache', ''], file('etc/a', 700), ['.wh.missing', '']],
      ],
      [{ created_by: 'ADD rootfs' }, { created_by: 'ENV', empty_layer: true }, { created_by: 'RUN one' }],
    );
    assert.deepEqual(lines(analysis), [
      [
        ...['add file etc/a 1000', 'add file etc/b 200', 'add file var/cache/one 3000', 'add file var/cache/two 4000'],
        ...['add symlink etc/link 0', 'add link etc/again 0'],
      ],
      ['modify file etc/a 1500', 'delete other etc/b 200', 'add file new/file 10'],
      ['delete other var/cache 7000', 'modify file etc/a 700', 'delete other missing 0'],
    ]);
    assert.deepEqual(
      analysis.layers.map(({ history, added, changed, removed }) => [history?.created_by, added, changed, removed]),
      [
        ['ADD rootfs', { files: 6, bytes: 8200 }, { files: 0, bytes: 0 }, { files: 0, bytes: 0 }],
        ['RUN one', { files: 1, bytes: 10 }, { files: 1, bytes: 1500 }, { files: 1, bytes: 200 }],
        [undefined, { files: 0, bytes: 0 }, { files: 1, bytes: 700 }, { files: 2, bytes: 7000 }],
      ],
    );
    assert.deepEqual([analysis.bytes, analysis.wastedBytes], [10_410, 9_700]);
    assert.equal(analysis.efficiency, 1 - 9_700 / 10_410);
    assert.deepEqual(analysis.wasted, [
      { path: 'var/cache/two', bytes: 4000, times: 1 },
      { path: 'var/cache/one', bytes: 3000, times: 1 },
      { path: 'etc/a', bytes: 2500, times: 2 },
      { path: 'etc/b', bytes: 200, times: 1 },
    ]);
    assert.deepEqual(analysis.biggest.slice(0, 2), [
      { path: 'var/cache/two', size: 4000, layer: 0 },
      { path: 'var/cache/one', size: 3000, layer: 0 },
    ]);
  });

  it('an opaque directory hides what lower layers have in it, and nothing of its own layer', async () => {
    const analysis = await analyze([
      [file('d/old', 600), file('d/sub/old', 700), file('e', 5)],
      [['d/.wh..wh..opq', ''], [{ name: 'd/sub', type: 'fifo' }], file('d/new', 50)],
      [file('d', 1, 'z'), directory('e/'), file('e/x', 2)],
    ]);
    assert.deepEqual(lines(analysis).slice(1), [
      ['delete other d/old 600', 'modify other d/sub 0', 'add file d/new 50'],
      ['modify file d 1', 'delete other e 5', 'add file e/x 2'],
    ]);
    assert.deepEqual(
      analysis.wasted.map(({ path, bytes }) => `${path} ${bytes}`),
      ['d/sub/old 700', 'd/old 600', 'd/new 50', 'e 5'],
    );
  });

  it('duplicates by content, in one layer and across layers; small ones do not count', async () => {
    const analysis = await analyze([
      [file('a', 1000, 'q'), file('b', 1000, 'q'), file('tiny', 10, 't'), file('other', 1000, 'o')],
      [file('c/d', 1000, 'q'), file('tiny2', 10, 't')],
    ]);
    const files = [
      { path: 'a', layer: 0 },
      { path: 'b', layer: 0 },
      { path: 'c/d', layer: 1 },
    ];
    assert.deepEqual(analysis.duplicates, [{ size: 1000, bytes: 2000, files }]);
    assert.equal(analysis.efficiency, 1);
  });

  it('an image without layers, one that is not there, an abort, a closed store', async () => {
    const bare = await analyze([]);
    assert.deepEqual([bare.layers, bare.bytes, bare.efficiency], [[], 0, 1]);
    const images = await openImages(store);
    await assert.rejects(images.analyze('none:1'), { code: 'ERR_IMAGE_DOES_NOT_EXIST', message: /"none:1"/ });
    const reason = new Error('no more');
    await assert.rejects(
      images.analyze('sample:1', { signal: AbortSignal.abort(reason) }),
      (error) => error === reason,
    );
    store.closed = true;
    await assert.rejects(images.analyze('sample:1'), { code: 'ERR_STORE_CLOSED' });
  });
});
