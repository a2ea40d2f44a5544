/** Broken and hostile archives leave the store as it was. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { openImages } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';
import { dockerFolders, entries, sampleConfig, sampleLayers, tar } from './archives.js';
import { dockerWith } from './broken-builders.js';
import { CASES, sample } from './broken-cases.js';
import { FakeStore } from './fake-store.js';

let store: FakeStore & Store;
let layers: Buffer[];
beforeEach(async () => {
  store = await FakeStore.open();
  layers = await sampleLayers();
});
afterEach(async () => store.dispose());

describe('broken images leave the store as it was', () => {
  for (const [title, { code, message, limits, archive }] of Object.entries(CASES)) {
    for (const way of ['path', 'stream', 'compressed stream'] as const) {
      it(`${title}; ${way}`, async () => {
        const images = await openImages(store);
        const bytes = await archive();
        const path = join(store.root, 'archive');
        await writeFile(path, bytes);
        const source =
          way === 'path'
            ? { path }
            : Readable.from([way === 'stream' ? bytes : gzipSync(bytes)], { objectMode: false });
        await assert.rejects(
          images.load(source, limits === undefined ? {} : { limits }),
          (error: Error & { code: string }) => {
            assert.equal(error.code, code, error.stack);
            if (message !== undefined) assert.match(error.message, message);
            return true;
          },
        );
        assert.equal(store.nodes.size, 0);
        assert.deepEqual(images.list(), []);
        assert.deepEqual((await readdir(store.root)).sort(), ['archive', 'layerstore']);
        assert.deepEqual(await readdir(join(store.root, 'layerstore')), []);
      });
    }
  }

  it('a path that cannot be read says what was tried', async () => {
    const images = await openImages(store);
    // Opens as a regular file, but its first page cannot be read.
    await assert.rejects(images.load({ path: '/proc/self/mem' }), {
      code: 'ERR_SYSTEM',
      errnoName: 'EIO',
      message: /^cannot read the image archive/,
    });
    const socket = createServer().listen(join(store.root, 'socket'));
    await once(socket, 'listening');
    await assert.rejects(images.load({ path: join(store.root, 'socket') }), {
      code: 'ERR_SYSTEM',
      errnoName: 'ENXIO',
      message: /^cannot read the image archive/,
    });
    socket.close();
    await assert.rejects(images.load({ path: join(store.root, 'missing') }), {
      code: 'ERR_SYSTEM',
      errnoName: 'ENOENT',
    });
  });

  it('the first image of two goes with the second', async () => {
    const images = await openImages(store);
    const manifest = [
      { Config: 'config.json', RepoTags: ['good:1'], Layers: ['0.tar', '1.tar', '2.tar'] },
      { Config: 'other.json', RepoTags: ['bad:1'], Layers: ['missing.tar'] },
    ];
    const archive = await dockerWith(() => manifest, [['other.json', sampleConfig([Buffer.from('x')])]])();
    await writeFile(join(store.root, 'archive'), archive);
    await assert.rejects(images.load({ path: join(store.root, 'archive') }), { code: 'ERR_BAD_IMAGE' });
    assert.equal(store.nodes.size, 0);
    assert.deepEqual(images.list(), []);
  });

  it('a stream over the spool limit', async () => {
    const images = await openImages(store);
    const archive = await tar(entries(dockerFolders(layers)));
    await assert.rejects(
      images.load(Readable.from([archive], { objectMode: false }), { limits: { maxSpoolBytes: 1_000 } }),
      { code: 'ERR_LIMIT_EXCEEDED', message: /maxSpoolBytes/ },
    );
    await assert.rejects(
      images.load(Readable.from([archive], { objectMode: false }), { limits: { minFreeBytes: 1e18 } }),
      { code: 'ERR_LIMIT_EXCEEDED', message: /reserve/ },
    );
    assert.deepEqual(await readdir(join(store.root, 'layerstore')), []);
  });

  it('compressed garbage', async () => {
    const images = await openImages(store);
    const broken = gzipSync(await sample());
    broken.fill(0xff, 10);
    await assert.rejects(images.load(Readable.from([broken], { objectMode: false })), {
      code: 'ERR_BAD_IMAGE',
      message: /decompressed/,
    });
    await assert.rejects(images.load(Readable.from([Buffer.from('fd377a585a000000', 'hex')])), {
      code: 'ERR_NOT_SUPPORTED',
      message: /xz -dc/,
    });
  });
});
