/** Opening a store of many layers, as an operation of a worker. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { openStore, type ChainID, type Store } from '../src/index.js';
import { mapConcurrent } from '../src/util/concurrent.js';
import { measure } from './meter.js';
import type { Operation, Parameters } from './operation.js';

/** A store of `count` tiny layers in chains of 100: records and directories as a registration leaves them. */
export async function openMany(parameters: Parameters): Promise<Operation> {
  const { count = 5000 } = parameters;
  const root = join(parameters.scratch, 'store');
  // Contestants that share a place share the store, which the first one makes.
  if (!existsSync(root)) await makeMany(parameters, count);
  return {
    async run() {
      let opened: Store | undefined;
      const sample = await measure(async () => {
        opened = await openStore({ root, engine: parameters.engine, durability: parameters.durability });
      });
      if (opened?.map().size !== count) throw new Error(`opened a store of ${opened?.map().size} layers, not ${count}`);
      await opened.close();
      return sample;
    },
    teardown: async () => undefined,
  };
}

const CHAIN = 100;

async function makeMany(parameters: Parameters, count: number): Promise<void> {
  const { scratch, engine, prepare = engine } = parameters;
  const store = await openStore({
    root: join(scratch, 'store'),
    driver: 'overlay2',
    engine: prepare,
    durability: 'relaxed',
  });
  const chains = Array.from({ length: Math.ceil(count / CHAIN) }, (_, chain) => chain * CHAIN);
  await mapConcurrent(chains, 8, async (first) => {
    let parent: ChainID | undefined;
    for (let i = first; i < Math.min(count, first + CHAIN); i++) {
      const layer = await store.register(tinyTar(i), parent);
      parent = layer.chainID;
      await store.retain(layer.chainID, `bench-${i}`);
    }
  });
  await store.close();
  // An open looks whether overlays can be mounted, and the unmount of that one would write all of this first.
  execFileSync('sync');
}

/** A tar with one small file, by hand: 512 bytes of header, 512 of content, two blocks of zeros. */
async function* tinyTar(n: number): AsyncGenerator<Buffer> {
  const block = Buffer.alloc(2048);
  block.write(`file-${n}`, 0);
  block.write('0000644\0' + '0000000\0' + '0000000\0' + '00000000010\0' + '00000000000\0', 100, 'latin1');
  block.write('ustar\u000000', 257, 'latin1');
  block.write('        0', 148, 'latin1');
  let sum = 0;
  for (let i = 0; i < 512; i++) sum += block[i] ?? 0;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  block.write(String(n).padStart(8, '0'), 512, 'latin1');
  yield block;
}
