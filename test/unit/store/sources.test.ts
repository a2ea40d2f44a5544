/** Whatever a call that takes a source rejects with, and however early: the source is let go. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { createReadStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import type { ChainID } from '../../../src/digest.js';
import type { TarSource } from '../../../src/engine/engine.js';
import { openImages, type Images } from '../../../src/image/index.js';
import type { RWLayer, Store } from '../../../src/store/types.js';
import { Bench, diffIDOf, streamOf, tarOf } from './support.js';

const A = tarOf('a');
const bad = 'no digest' as ChainID;
const absent = `sha256:${'0'.repeat(64)}` as ChainID;
const descriptor = { mediaType: 'x', digest: diffIDOf(A), size: A.length };
const unknown = { unknown: true } as never;

/** Each source with what tells whether it was let go. */
const SOURCES: Record<string, (path: string) => { tar: TarSource; ended: () => boolean }> = {
  'a stream': () => {
    const tar = streamOf(A);
    return { tar, ended: () => tar.destroyed };
  },
  'a file': (path) => {
    const tar = createReadStream(path);
    return { tar, ended: () => tar.destroyed };
  },
  'a stream of another class': () => {
    const state = { ended: false };
    const tar = Object.assign(new EventEmitter(), {
      destroy: () => (state.ended = true),
      [Symbol.asyncIterator]: () => streamOf(A)[Symbol.asyncIterator](),
    });
    return { tar: tar, ended: () => state.ended };
  },
  'a web stream': () => {
    const state = { ended: false };
    return {
      tar: new ReadableStream<Uint8Array>({ cancel: () => void (state.ended = true) }),
      ended: () => state.ended,
    };
  },
  'a generator': () => {
    const state = { ended: false };
    const tar = (async function* (): AsyncGenerator<Uint8Array> {
      yield A;
    })();
    const end = tar.return.bind(tar);
    tar.return = async (value: unknown) => {
      state.ended = true;
      return end(value);
    };
    return { tar, ended: () => state.ended };
  },
};

interface Opened {
  store: Store;
  rw: RWLayer;
  images: Images;
}

const CALLS: Record<string, (on: Opened, tar: TarSource) => Promise<unknown>> = {
  'register, bad parent': ({ store }, tar) => store.register(tar, bad),
  'register, absent parent': ({ store }, tar) => store.register(tar, absent),
  'register, bad options': ({ store }, tar) => store.register(tar, undefined, unknown),
  'registerWithDescriptor, bad parent': ({ store }, tar) => store.registerWithDescriptor(tar, bad, descriptor),
  'registerWithDescriptor, bad descriptor': ({ store }, tar) => store.registerWithDescriptor(tar, undefined, unknown),
  'registerChain, bad parent': ({ store }, tar) => store.registerChain([{ tar, diffID: diffIDOf(A) }], bad),
  'registerChain, bad link': ({ store }, tar) => store.registerChain([{ tar, diffID: bad as never }]),
  'registerChain, another link is bad': ({ store }, tar) =>
    store.registerChain([{ tar, diffID: diffIDOf(A) }, null as never]),
  'repair, bad chain id': ({ store }, tar) => store.repair(bad, tar),
  'repair, absent layer': ({ store }, tar) => store.repair(absent, tar),
  'applyDiff, bad options': ({ rw }, tar) => rw.applyDiff(tar, unknown),
  'images.load, bad options': ({ images }, tar) =>
    images.load(tar as Readable, { platform: 'no/such/platform/at/all' }),
};

for (const [name, make] of Object.entries(SOURCES)) {
  test(`${name} is let go by every call that rejects`, async (t) => {
    const bench = await Bench.make(t);
    const opened = async (options: { readOnly?: boolean }): Promise<Opened> => {
      const store = await bench.open(options);
      return { store, rw: await store.getRWLayer('box'), images: await openImages(store) };
    };
    const seed = await bench.open();
    await seed.createRWLayer('box');
    await seed.close();
    const path = `${bench.root}.tar`;
    await writeFile(path, A);
    const check = async (what: string, on: Opened): Promise<void> => {
      for (const [call, run] of Object.entries(CALLS)) {
        const { tar, ended } = make(path);
        await assert.rejects(async () => run(on, tar));
        assert.equal(ended(), true, `${call}, ${what}`);
      }
    };
    const writer = await opened({});
    await check('an open store', writer);
    await writer.store.close();
    await check('a closed store', writer);
    await check('a store that is open read-only', await opened({ readOnly: true }));
  });
}

test('a source is let go also where an equal layer is there already', async (t) => {
  const store = await (await Bench.make(t)).open();
  await store.register(streamOf(A));
  for (const options of [{ diffID: diffIDOf(A) }, { diffID: diffIDOf(A), verifyExisting: true }, {}]) {
    const again = streamOf(A);
    await store.register(again, undefined, options);
    assert.equal(again.destroyed, true);
  }
});
