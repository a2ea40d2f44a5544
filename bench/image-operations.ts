/** Loading and pulling images, as operations of a worker. */
import { join } from 'node:path';
import { openImages, openStore, type Descriptor } from '../src/index.js';
import { Download } from '../src/registry/download.js';
import { locationOf, parseName } from '../src/registry/reference.js';
import { Registry, type Caller } from '../src/registry/registry.js';
import { registrySettings } from '../src/registry/settings.js';
import { measure } from './meter.js';
import type { Operation, Parameters } from './operation.js';

/** `tars[0]` is an archive; each run has a fresh store, opened before the measured time. */
export async function loadImage({ engine, durability, scratch, tars }: Parameters): Promise<Operation> {
  const path = tars[0] ?? '';
  let n = 0;
  return {
    async run() {
      const root = join(scratch, `load-${n++}`);
      const store = await openStore({ root, driver: 'overlay2', engine, durability });
      try {
        const images = await openImages(store);
        return await measure(async () => ({
          bytes: (await images.load({ path })).reduce((sum, { size }) => sum + size, 0),
        }));
      } finally {
        await store.close();
      }
    },
    teardown: async () => undefined,
  };
}

/** `tars` are references, pulled at once; each run has a fresh store. */
export async function pullImages({ engine, durability, scratch, tars }: Parameters): Promise<Operation> {
  let n = 0;
  return {
    async run() {
      const root = join(scratch, `pull-${n++}`);
      const store = await openStore({ root, driver: 'overlay2', engine, durability });
      try {
        const images = await openImages(store, { registry: { credentials: async () => undefined, hosts: {} } });
        return await measure(async () => {
          const pulled = await Promise.all(tars.map((reference) => images.pull(reference)));
          return { bytes: pulled.reduce((sum, { size }) => sum + size, 0) };
        });
      } finally {
        await store.close();
      }
    },
    teardown: async () => undefined,
  };
}

/** The biggest blob of the image `tars[0]` into a file, by `count` connections at most. */
export async function fetchBiggest({ scratch, tars, count = 1 }: Parameters): Promise<Operation> {
  const settings = registrySettings({ credentials: async () => undefined, hosts: {} });
  const name = parseName(tars[0] ?? '');
  const caller: Caller = { signal: undefined, onRetry: () => undefined };
  let n = 0;
  return {
    async run() {
      await using registry = await Registry.open(locationOf(name), settings, 'pull');
      const { bytes } = await registry.manifest(name.tag ?? 'latest', 1024 * 1024, caller);
      const { layers } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { layers: Descriptor[] };
      const { digest, size } = layers.reduce((a, b) => (a.size > b.size ? a : b));
      const download = new Download({
        digest,
        size,
        path: join(scratch, `blob-${n++}`),
        sources: registry.blobSources(digest),
        retries: 0,
        ranges: { ...settings.ranges, connections: count },
        onProgress: () => undefined,
      });
      try {
        return await measure(async () => {
          await download.run();
          return { bytes: size };
        });
      } finally {
        await download.discard();
      }
    },
    teardown: async () => undefined,
  };
}
