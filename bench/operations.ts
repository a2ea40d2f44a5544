/**
 * What is measured inside a worker process: each operation is set up once, run many times, and torn down. Only what
 * `run` passes to `measure` counts.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { mkdir, open, readdir, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { isLeftover } from '../src/driver/tree-removal.js';
import { hashFile, openStore, type ChainID, type DiffID, type Layer, type RWLayer, type Store } from '../src/index.js';
import { fetchBiggest, loadImage, pullImages } from './image-operations.js';
import { openMany } from './many-layers.js';
import { measure } from './meter.js';
import type { Parameters, Setup } from './operation.js';
import type { Sample } from './sample.js';

function openFresh({ scratch, engine, durability }: Parameters, name: string): Promise<Store> {
  return openStore({ root: join(scratch, name), driver: 'overlay2', engine, durability });
}

/** Registers the last tar on top of nothing; each run on a fresh store, as `tar -xf` gets a fresh directory. */
const register: Setup = async (parameters) => {
  let n = 0;
  const tar = parameters.tars[0] ?? '';
  return {
    async run() {
      const name = `register-${n++}`;
      const store = await openFresh(parameters, name);
      try {
        return await measure(async () => {
          const layer = await store.register({ path: tar });
          return { bytes: await layer.diffSize() };
        });
      } finally {
        await store.close();
      }
    },
    teardown: async () => undefined,
  };
};

const registerChain: Setup = async (parameters) => {
  let n = 0;
  const diffIDs = await Promise.all(parameters.tars.map(async (path) => (await hashFile(path)).diffID));
  return {
    async run() {
      const name = `chain-${n++}`;
      const store = await openFresh(parameters, name);
      try {
        return await measure(async () => {
          const layers = parameters.tars.map((path, i) => ({ tar: { path }, diffID: diffIDs[i] as DiffID }));
          const layer = await store.registerChain(layers);
          return { bytes: await layer.size() };
        });
      } finally {
        await store.close();
      }
    },
    teardown: async () => undefined,
  };
};

async function withLayer(parameters: Parameters): Promise<{ store: Store; layer: Layer }> {
  // The same bytes on disk whatever engine makes them: the faster one prepares.
  const maker = parameters.prepare ?? parameters.engine;
  const store = await openFresh({ ...parameters, engine: maker, durability: 'relaxed' }, 'store');
  let parent: ChainID | undefined;
  for (const path of parameters.tars) {
    const layer = await store.register({ path }, parent);
    parent = layer.chainID;
  }
  if (parent === undefined) throw new Error('this operation needs a tar');
  await store.retain(parent, 'bench');
  await store.close();
  const opened = await openFresh(parameters, 'store');
  return { store: opened, layer: await opened.get(parent) };
}

const exportToDescriptor: Setup = async (parameters) => {
  const { store, layer } = await withLayer(parameters);
  return {
    async run() {
      const file = await open('/dev/null', 'w');
      try {
        return await measure(async () => ({ bytes: (await layer.exportTo({ fd: file.fd })).bytes }));
      } finally {
        await file.close();
      }
    },
    teardown: () => store.close(),
  };
};

/** Each run writes a new file, as `tar -cf` does beside it. */
const exportToFile: Setup = async (parameters) => {
  const { store, layer } = await withLayer(parameters);
  let n = 0;
  return {
    async run() {
      const file = await open(join(parameters.scratch, `export-${n++}.tar`), 'wx');
      try {
        return await measure(async () => ({ bytes: (await layer.exportTo({ fd: file.fd })).bytes }));
      } finally {
        await file.close();
      }
    },
    teardown: () => store.close(),
  };
};

const exportStream: Setup = async (parameters) => {
  const { store, layer } = await withLayer(parameters);
  return {
    run: () =>
      measure(async () => {
        let bytes = 0;
        const sink = new Writable({
          write(chunk: Buffer, _encoding, done) {
            bytes += chunk.length;
            done();
          },
        });
        await pipeline(await layer.tarStream(), sink);
        return { bytes };
      }),
    teardown: () => store.close(),
  };
};

const hash: Setup = async ({ tars }) => ({
  run: () => measure(async () => ({ bytes: (await hashFile(tars[0] ?? '')).tarSize })),
  teardown: async () => undefined,
});

/** create + mount + unmount + release, `inFlight` at a time. */
const rwCycle: Setup = async (parameters) => {
  const { store, layer } = await withLayer(parameters);
  const { count = 100, inFlight = 1 } = parameters;
  let n = 0;
  const cycle = async (): Promise<void> => {
    const rw = await store.createRWLayer(`box-${n++}`, layer.chainID);
    await rw.mount();
    await rw.unmount();
    await store.releaseRWLayer(rw);
  };
  return {
    async run() {
      const sample = await measure(async () => {
        let left = count;
        await Promise.all(
          Array.from({ length: inFlight }, async () => {
            while (left-- > 0) await cycle();
          }),
        );
      });
      return { ...sample, rate: (count / sample.wall) * 1000 };
    },
    teardown: () => store.close(),
  };
};

/** An RW layer with 1,000 files written and 500 removed on the whole image. */
async function busyLayer(parameters: Parameters): Promise<{ store: Store; rw: RWLayer }> {
  const { store, layer } = await withLayer(parameters);
  const rw = await store.createRWLayer('busy', layer.chainID);
  const root = await rw.mount();
  for (let i = 0; i < 1000; i++) {
    const folder = join(root, 'srv', `d${i % 40}`);
    if (i < 40) await mkdir(folder, { recursive: true });
    await writeFile(join(folder, `f${i}`), randomBytes(1024 + (i % 7) * 900));
  }
  let removed = 0;
  const walk = async (folder: string): Promise<void> => {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (removed >= 500) return;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) await walk(path);
      else if (entry.isFile()) {
        await unlink(path);
        removed++;
      }
    }
  };
  for (const folder of ['usr', 'app'])
    await walk(join(root, folder)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error; // this image has no such folder
    });
  await rw.unmount();
  return { store, rw };
}

function onBusyLayer(work: (rw: RWLayer, store: Store) => Promise<Partial<Sample> | void>): Setup {
  return async (parameters) => {
    const { store, rw } = await busyLayer(parameters);
    return { run: () => measure(() => work(rw, store)), teardown: () => store.close() };
  };
}

const changes = onBusyLayer(async (rw) => {
  await rw.changes();
});
const rwSize = onBusyLayer(async (rw) => {
  await rw.size();
});
const rwTar = onBusyLayer(async (rw) => {
  let bytes = 0;
  for await (const chunk of await rw.tarStream()) bytes += (chunk as Buffer).length;
  return { bytes };
});
const commit: Setup = async (parameters) => {
  const { store, rw } = await busyLayer(parameters);
  return {
    async run() {
      let layer: Layer | undefined;
      const sample = await measure(async () => void (layer = await store.commit(rw)));
      if (layer !== undefined) await store.release(layer);
      return sample;
    },
    teardown: () => store.close(),
  };
};

/** Resolves when no tree below the driver's home waits for its removal any more. */
async function untilUnlinked(root: string): Promise<void> {
  while ((await readdir(join(root, 'overlay2'))).some(isLeftover)) await sleep(1);
}

/** What `release` does, and all that is unlinked behind it; `rate`: milliseconds until it resolved. */
async function measureRemoval(root: string, release: () => Promise<unknown>): Promise<Sample> {
  let caller = 0;
  const sample = await measure(async () => {
    const started = performance.now();
    await release();
    caller = performance.now() - started;
    await untilUnlinked(root);
  });
  return { ...sample, rate: caller };
}

/** Release of a layer's last handle. */
const remove: Setup = async (parameters) => {
  let n = 0;
  return {
    async run() {
      const name = `remove-${n++}`;
      const store = await openFresh({ ...parameters, durability: 'relaxed' }, name);
      try {
        const layer = await store.register({ path: parameters.tars[0] ?? '' });
        return await measureRemoval(join(parameters.scratch, name), () => store.release(layer));
      } finally {
        await store.close();
      }
    },
    teardown: async () => undefined,
  };
};

/** Release of an RW layer with `count` files of its own, a thousand a directory. */
const releaseMany: Setup = async (parameters) => {
  let n = 0;
  return {
    async run() {
      const name = `many-${n++}`;
      const store = await openFresh(parameters, name);
      try {
        const rw = await store.createRWLayer('many');
        const root = await rw.mount();
        for (let i = 0; i < (parameters.count ?? 100_000); i++) {
          const folder = join(root, `d${Math.floor(i / 1000)}`);
          if (i % 1000 === 0) mkdirSync(folder);
          closeSync(openSync(join(folder, `f${i}`), 'wx'));
        }
        await rw.unmount();
        return await measureRemoval(join(parameters.scratch, name), () => store.releaseRWLayer(rw));
      } finally {
        await store.close();
      }
    },
    teardown: async () => undefined,
  };
};

export const operations: Readonly<Record<string, Setup>> = {
  register,
  registerChain,
  exportToDescriptor,
  exportToFile,
  exportStream,
  hash,
  rwCycle,
  changes,
  rwSize,
  rwTar,
  commit,
  openMany,
  remove,
  releaseMany,
  loadImage,
  pullImages,
  fetchBiggest,
};
