/** Loading an image, as an operation of a worker. */
import { join } from 'node:path';
import { openImages, openStore } from '../src/index.js';
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
