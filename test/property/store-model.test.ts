/** Random operations on a store and on a plain Map: after each, both hold the same. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import test from 'node:test';
import fc from 'fast-check';
import type { ChainID } from '../../src/digest.js';
import { openStore } from '../../src/store/open.js';
import type { Layer, RWLayer, Store } from '../../src/store/types.js';
import { digestOf } from '../../src/testing/engine-suite-tars.js';
import { buildTar } from '../../src/testing/tar-builder.js';
import { makeTempDir, removeTempDir } from '../support/temp.js';
import { holds } from './budget.js';
import { StoreModel } from './store-model.js';

/** Few layers and few names, so that operations meet. The last one is the empty layer's tar. */
const TARS = [
  buildTar([{ name: 'a', content: 'aa' }]),
  buildTar([{ name: 'b', content: 'bbb' }]),
  buildTar([
    { name: '.wh.a', content: '' },
    { name: 'c', content: 'c' },
  ]),
  buildTar([]),
].map((tar, i) => ({ tar, diffID: digestOf(tar), size: [2, 3, 1, 0][i] ?? 0 }));
const NAMES = ['one', 'two'];

const KINDS = [
  'register',
  'register',
  'get',
  'release',
  'release',
  'releaseTwice',
  'retain',
  'drop',
  'create',
  'open',
  'mount',
  'mount',
  'unmount',
  'commit',
  'releaseRW',
  'gc',
  'reopen',
] as const;
const operation = fc.record({ kind: fc.constantFrom(...KINDS), a: fc.nat(1000), b: fc.nat(1000) });
type Operation = { kind: (typeof KINDS)[number]; a: number; b: number };

/** One store with its model and the handles that a program would hold. */
class Run {
  readonly model = new StoreModel();
  layers: Layer[] = [];
  /** `own`: mounts made through this handle. */
  rwLayers: { rw: RWLayer; own: number }[] = [];
  #written = 0;

  constructor(
    readonly root: string,
    readonly driver: 'overlay2' | 'vfs',
    public store: Store,
  ) {}

  static open(root: string, driver: 'overlay2' | 'vfs'): Promise<Store> {
    return openStore({ root, driver, durability: 'relaxed' });
  }

  #chain(pick: number): ChainID | undefined {
    const ids: (ChainID | undefined)[] = [undefined, ...[...this.model.layers.keys()].sort()];
    return ids[pick % ids.length];
  }

  async step({ kind, a, b }: Operation): Promise<void> {
    const { model, store } = this;
    const name = NAMES[a % NAMES.length] ?? '';
    switch (kind) {
      case 'register': {
        const { tar, diffID, size } = TARS[a % TARS.length] ?? assert.fail();
        const parent = this.#chain(b);
        if (model.depthOf(parent) >= 6) return;
        const layer = await store.register(Readable.from([tar]), parent);
        assert.equal(layer.chainID, model.register(diffID, size, parent));
        assert.equal(await layer.size(), model.sizeOf(layer.chainID));
        this.layers.push(layer);
        return;
      }
      case 'get': {
        const id = this.#chain(a);
        const known = id === undefined ? undefined : model.layers.get(id);
        if (id === undefined || known === undefined) {
          await assert.rejects(store.get(`sha256:${'0'.repeat(64)}` as ChainID), { code: 'ERR_LAYER_DOES_NOT_EXIST' });
          return;
        }
        known.handles++;
        this.layers.push(await store.get(id));
        return;
      }
      case 'release': {
        const [layer] = this.layers.splice(a % Math.max(1, this.layers.length), 1);
        if (layer === undefined) return;
        assert.deepEqual(await store.release(layer), model.release(layer.chainID));
        return;
      }
      case 'releaseTwice': {
        const [layer] = this.layers.splice(a % Math.max(1, this.layers.length), 1);
        if (layer === undefined) return;
        model.release(layer.chainID);
        await store.release(layer);
        await assert.rejects(store.release(layer), { code: 'ERR_LAYER_NOT_RETAINED' });
        const [other] = store.map().values();
        if (other !== undefined) await assert.rejects(store.release(other), { code: 'ERR_LAYER_NOT_RETAINED' });
        return;
      }
      case 'retain': {
        const id = this.#chain(b);
        if (id === undefined || model.references.has(name)) return;
        await store.retain(id, name);
        model.references.set(name, id);
        return;
      }
      case 'drop': {
        const id = model.references.get(name);
        if (id === undefined) return;
        model.references.delete(name);
        assert.deepEqual(await store.dropReference(name), model.removeUnused(id));
        return;
      }
      case 'gc': {
        const { removed } = await store.gc();
        assert.deepEqual(new Set(removed.map(({ chainID }) => chainID)), model.collect());
        return;
      }
      case 'reopen': {
        // Only a kernel mount outlives its process; overlay2 needs none without a parent.
        model.reopen(({ parent }) => this.driver === 'overlay2' && parent !== undefined);
        await store.close();
        await assert.rejects(store.gc(), { code: 'ERR_STORE_CLOSED' });
        this.store = await Run.open(this.root, this.driver);
        this.layers = [];
        this.rwLayers = [];
        return;
      }
      default:
        await this.#rwStep(kind, name, a, b);
    }
  }

  async #rwStep(kind: Operation['kind'], name: string, a: number, b: number): Promise<void> {
    const { model, store } = this;
    const at = a % Math.max(1, this.rwLayers.length);
    const held = this.rwLayers[at];
    const known = held === undefined ? undefined : model.rwLayers.get(held.rw.name);
    if (kind === 'create') {
      const parent = this.#chain(b);
      if (model.rwLayers.has(name)) {
        await assert.rejects(store.createRWLayer(name, parent), { code: 'ERR_MOUNT_NAME_CONFLICT' });
        return;
      }
      this.rwLayers.push({ rw: await store.createRWLayer(name, parent), own: 0 });
      model.rwLayers.set(name, { parent, handles: 1, mounts: 0 });
    } else if (kind === 'open') {
      const existing = model.rwLayers.get(name);
      if (existing === undefined) {
        await assert.rejects(store.getRWLayer(name), { code: 'ERR_MOUNT_DOES_NOT_EXIST' });
        return;
      }
      this.rwLayers.push({ rw: await store.getRWLayer(name), own: 0 });
      existing.handles++;
    } else if (held === undefined || known === undefined) {
      return;
    } else if (kind === 'mount') {
      writeFileSync(join(await held.rw.mount(), `file-${this.#written++}`), 'x'.repeat(this.#written));
      held.own++;
      known.mounts++;
    } else if (kind === 'unmount') {
      if (known.mounts === 0) {
        await assert.rejects(held.rw.unmount(), { code: 'ERR_NOT_MOUNTED' });
      } else if (held.own > 0) {
        await held.rw.unmount();
        held.own--;
        known.mounts--;
      }
    } else if (kind === 'commit') {
      if (model.depthOf(known.parent) >= 6) return;
      const layer = await store.commit(held.rw);
      assert.equal(layer.chainID, model.register(layer.diffID, await layer.diffSize(), known.parent));
      this.layers.push(layer);
    } else if (kind === 'releaseRW') {
      if (held.own > 0 || (known.handles === 1 && known.mounts > 0)) {
        await assert.rejects(store.releaseRWLayer(held.rw), { code: 'ERR_ACTIVE_MOUNT' });
        return;
      }
      this.rwLayers.splice(at, 1);
      known.handles--;
      let expected: unknown = [];
      if (known.handles === 0) {
        model.rwLayers.delete(held.rw.name);
        expected = model.removeUnused(known.parent);
      }
      assert.deepEqual(await store.releaseRWLayer(held.rw), expected);
    }
  }

  /** Both hold the same. */
  check(): void {
    const { model, store } = this;
    assert.deepEqual([...store.map().keys()].sort(), [...model.layers.keys()].sort(), 'layers');
    const references = store.references().map(({ name, chainID }) => [name, chainID] as const);
    assert.deepEqual(new Map(references), model.references, 'references');
    const mounts = [...store.mounts()].map(
      ([name, { parent, mountCount }]) => [name, { parent, mounts: mountCount }] as const,
    );
    const expected = [...model.rwLayers].map(
      ([name, { parent, mounts: count }]) => [name, { parent, mounts: count }] as const,
    );
    assert.deepEqual(new Map(mounts), new Map(expected), 'RW layers');
  }
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`a store on ${driver} holds what a plain Map says`, async (t) => {
    const property = fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength: 40 }), async (operations) => {
      const directory = makeTempDir('model');
      try {
        const root = join(directory, 'root');
        const run = new Run(root, driver, await Run.open(root, driver));
        for (const each of operations) {
          await run.step(each);
          run.check();
        }
        const report = await run.store.verify();
        assert.ok(report.ok, JSON.stringify(report.layers.filter(({ ok }) => !ok)));
        await run.store.close();
      } finally {
        removeTempDir(directory);
      }
    });
    await holds(t, property);
  });
}
