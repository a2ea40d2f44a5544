/**
 * A pool that keeps root file systems ready: writable layers on one image, created and mounted ahead of time, handed
 * out at once and thrown away after use.
 *
 *   node --import tsx examples/sandbox-pool.ts ROOT LAYER.tar [SIZE]
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openStore, type Layer, type RWLayer, type Store } from 'layerstore';

interface Sandbox extends AsyncDisposable {
  readonly path: string;
}

class SandboxPool implements AsyncDisposable {
  readonly #store: Store;
  readonly #image: Layer;
  readonly #ready: Promise<{ rw: RWLayer; path: string }>[] = [];
  #serial = 0;

  constructor(store: Store, image: Layer, size: number) {
    this.#store = store;
    this.#image = image;
    for (let i = 0; i < size; i++) this.#ready.push(this.#make());
  }

  async #make(): Promise<{ rw: RWLayer; path: string }> {
    const rw = await this.#store.createRWLayer(`sandbox-${process.pid}-${this.#serial++}`, this.#image.chainID);
    return { rw, path: await rw.mount() };
  }

  /** A fresh root file system, at once as long as the pool is not empty; the next one is made meanwhile. */
  async take(): Promise<Sandbox> {
    const next = this.#ready.shift() ?? this.#make();
    this.#ready.push(this.#make());
    const { rw, path } = await next;
    return { path, [Symbol.asyncDispose]: () => this.#throwAway(rw) };
  }

  async #throwAway(rw: RWLayer): Promise<void> {
    await rw.unmount();
    await this.#store.releaseRWLayer(rw); // its files are unlinked in the background
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const left = await Promise.all(this.#ready.splice(0));
    await Promise.all(left.map(({ rw }) => this.#throwAway(rw)));
  }
}

async function main(root: string, tar: string, size: number): Promise<void> {
  // Sandboxes are thrown away with the process: what they hold need not survive a power cut.
  await using store = await openStore({ root, durability: 'relaxed' });
  const image = await store.register({ path: tar });
  {
    await using pool = new SandboxPool(store, image, size);
    const started = performance.now();
    for (let i = 0; i < size; i++) {
      await using sandbox = await pool.take();
      await writeFile(join(sandbox.path, 'job.txt'), `job ${i}\n`);
    }
    console.log(`${size} jobs, ${((performance.now() - started) / size).toFixed(1)} ms each`);
  }
  const removed = await store.release(image);
  console.log(`removed ${removed.length} layer, ${store.mounts().size} sandboxes left`);
}

const [root, tar, size = '50'] = process.argv.slice(2);
if (root === undefined || tar === undefined) throw new Error('usage: sandbox-pool.ts ROOT LAYER.tar [SIZE]');
await main(root, tar, Number(size));
