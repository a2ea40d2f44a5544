/** What the store's tests share: a store on drivers and records in memory, tars, faults. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import type { DiffID } from '../../../src/digest.js';
import { LayerStoreError } from '../../../src/errors.js';
import { createMemoryMetadataStore } from '../../../src/metadata/memory-store.js';
import type { MetadataStore } from '../../../src/metadata/metadata-store.js';
import { openStore } from '../../../src/store/open.js';
import type { Store, StoreOptions } from '../../../src/store/types.js';
import { buildTar } from '../../../src/testing/tar-builder.js';
import { FullMemoryDriver, MemoryDriver, newDisk } from './memory-driver.js';

/** A tar of one empty file named after `seed`: enough to be its own layer. */
export function tarOf(seed: string): Buffer {
  return buildTar([{ name: seed }]);
}

export function diffIDOf(tar: Buffer): DiffID {
  return `sha256:${createHash('sha256').update(tar).digest('hex')}` as DiffID;
}

export function streamOf(tar: Buffer): Readable {
  return Readable.from([tar], { objectMode: false });
}

export async function bytesOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export interface Line {
  level: string;
  message: string;
  fields: Record<string, unknown>;
}

/** A place that stores are opened on, one after the other, as after restarts. */
export class Bench {
  readonly root: string;
  readonly disk = newDisk();
  readonly lines: Line[] = [];
  metadata: MetadataStore = createMemoryMetadataStore();
  #opened: Store[] = [];

  private constructor(root: string) {
    this.root = root;
  }

  static async make(t: TestContext): Promise<Bench> {
    const parent = await mkdtemp(join(tmpdir(), 'layerstore-store-'));
    const bench = new Bench(join(parent, 'root'));
    t.after(async () => {
      for (const store of bench.#opened) await store.close();
      await rm(parent, { recursive: true, force: true });
    });
    return bench;
  }

  driver(kind: 'required' | 'full' = 'full'): MemoryDriver {
    return kind === 'full' ? new FullMemoryDriver(this.disk) : new MemoryDriver(this.disk);
  }

  /** Drivers and records in memory. */
  async open(options: Partial<StoreOptions> = {}): Promise<Store> {
    return this.openOnDisk({ driver: this.driver(), metadataStore: this.metadata, ...options });
  }

  /** Records in files, and whatever driver is asked for. */
  async openOnDisk(options: Partial<StoreOptions> = {}): Promise<Store> {
    const store = await openStore({ root: this.root, engine: 'js', logger: this.logger, ...options });
    this.#opened.push(store);
    return store;
  }

  readonly logger = {
    debug: (fields: object, message: string) => this.#log('debug', fields, message),
    info: (fields: object, message: string) => this.#log('info', fields, message),
    warn: (fields: object, message: string) => this.#log('warn', fields, message),
    error: (fields: object, message: string) => this.#log('error', fields, message),
  };

  #log(level: string, fields: object, message: string): void {
    this.lines.push({ level, message, fields: fields as Record<string, unknown> });
  }
}

/** Only the required methods, so that a store is seen to need no others. */
export function requiredOnly(store: MetadataStore): MetadataStore {
  const pick = <K extends keyof MetadataStore>(name: K): MetadataStore[K] =>
    (store[name] as CallableFunction).bind(store) as MetadataStore[K];
  return {
    startTransaction: async () => {
      const tx = await store.startTransaction();
      return {
        setSize: (bytes) => tx.setSize(bytes),
        setParent: (parent) => tx.setParent(parent),
        setDiffID: (id) => tx.setDiffID(id),
        setCacheID: (id) => tx.setCacheID(id),
        setDescriptor: (descriptor) => tx.setDescriptor(descriptor),
        tarSplitWriter: (compress) => tx.tarSplitWriter(compress),
        commit: (id) => tx.commit(id),
        cancel: () => tx.cancel(),
        toString: () => tx.toString(),
      };
    },
    getSize: pick('getSize'),
    getParent: pick('getParent'),
    getDiffID: pick('getDiffID'),
    getCacheID: pick('getCacheID'),
    getDescriptor: pick('getDescriptor'),
    tarSplitReader: pick('tarSplitReader'),
    setMountID: pick('setMountID'),
    setInitID: pick('setInitID'),
    setMountParent: pick('setMountParent'),
    getMountID: pick('getMountID'),
    getInitID: pick('getInitID'),
    getMountParent: pick('getMountParent'),
    list: pick('list'),
    remove: pick('remove'),
    removeMount: pick('removeMount'),
  };
}

/** `target` whose method `name` fails with `error`: before it does anything, or after it has done it. */
export function failing<T extends object>(target: T, name: string, when: 'before' | 'after', error: Error): T {
  let armed = true;
  return new Proxy(target, {
    get(object, key) {
      const value: unknown = Reflect.get(object, key, object);
      if (typeof value !== 'function') return value;
      if (key !== name) return value.bind(object) as unknown;
      return async (...args: unknown[]) => {
        if (!armed) return (value as (...args: unknown[]) => unknown).apply(object, args);
        armed = false;
        if (when === 'after') await (value as (...args: unknown[]) => Promise<unknown>).apply(object, args);
        throw error;
      };
    },
  });
}

/** For `assert.rejects`: a LayerStoreError of this code whose message holds `words`. */
export function code(expected: string, words?: string | RegExp): (error: unknown) => boolean {
  return (error) => {
    if (!LayerStoreError.is(error) || error.code !== expected) throw error;
    if (words === undefined) return true;
    const found = typeof words === 'string' ? error.message.includes(words) : words.test(error.message);
    if (!found) throw new Error(`"${error.message}" does not say ${String(words)}`);
    return true;
  };
}
