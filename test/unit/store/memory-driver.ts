/** A driver that keeps tars in memory: the required methods alone, and the optional ones where a test asks for them. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import type { DiffID } from '../../../src/digest.js';
import type { ApplyOptions, ApplyResult, GraphDriver, LiveMount } from '../../../src/driver/graph-driver.js';
import type { Change, DiffGetter, TarSource } from '../../../src/engine/engine.js';
import { LayerStoreError } from '../../../src/errors.js';

export interface Entry {
  parent: string | undefined;
  writable: boolean;
  tar: Buffer;
  mounts: number;
}

export const EMPTY = Buffer.alloc(1024);

export class MemoryDriver implements GraphDriver {
  readonly name = 'memory';
  readonly capabilities = { independentDiffs: true, reproducesExactDiffs: true, hardSizeLimit: false, mounts: true };
  /** Shared by drivers of one "disk", so that a reopen finds what was there. */
  readonly entries: Map<string, Entry>;
  readonly kernelMounts: Map<string, string>;
  readonly calls: string[] = [];
  applying = 0;
  mostAtOnce = 0;

  constructor(disk: { entries: Map<string, Entry>; mounts: Map<string, string> } = newDisk()) {
    this.entries = disk.entries;
    this.kernelMounts = disk.mounts;
  }

  #entry(id: string): Entry {
    const entry = this.entries.get(id);
    if (entry === undefined) throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `no directory "${id}"`);
    return entry;
  }

  async create(id: string, parent?: string): Promise<void> {
    this.calls.push(`create`);
    if (parent !== undefined) this.#entry(parent);
    this.entries.set(id, { parent, writable: false, tar: EMPTY, mounts: 0 });
  }

  async createReadWrite(id: string, parent: string | undefined): Promise<void> {
    this.calls.push('createReadWrite');
    if (parent !== undefined) this.#entry(parent);
    this.entries.set(id, { parent, writable: true, tar: EMPTY, mounts: 0 });
  }

  async applyDiff(
    id: string,
    _parent: string | undefined,
    source: TarSource,
    options: ApplyOptions,
  ): Promise<ApplyResult> {
    this.calls.push('applyDiff');
    this.applying += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.applying);
    try {
      const entry = this.#entry(id);
      const chunks: Uint8Array[] = [];
      const stream = 'path' in source && !(Symbol.asyncIterator in source) ? createReadStream(source.path) : source;
      for await (const chunk of stream as AsyncIterable<Uint8Array>) {
        options.signal?.throwIfAborted();
        chunks.push(chunk);
      }
      await new Promise((resolve) => setImmediate(resolve));
      options.signal?.throwIfAborted();
      const tar = Buffer.concat(chunks);
      if (tar.length % 512 !== 0) throw new LayerStoreError('ERR_BAD_TAR', 'the tar ends inside a block');
      entry.tar = tar;
      const digest = `sha256:${createHash('sha256').update(tar).digest('hex')}` as DiffID;
      return {
        diffID: digest,
        tarSize: tar.length,
        size: tar.length,
        entries: 1,
        compression: 'none',
        blobSize: tar.length,
        blobDigest: digest,
        ignoredXattrs: 0,
        ignoredOwners: 0,
      };
    } finally {
      this.applying -= 1;
    }
  }

  async get(id: string): Promise<string> {
    const entry = this.#entry(id);
    entry.mounts += 1;
    if (entry.mounts === 1) {
      this.calls.push('mount');
      this.kernelMounts.set(id, `/memory/${id}`);
    }
    return `/memory/${id}`;
  }

  async put(id: string): Promise<void> {
    const entry = this.#entry(id);
    if (entry.mounts === 0) throw new LayerStoreError('ERR_NOT_MOUNTED', `"${id}" is not mounted`);
    entry.mounts -= 1;
    if (entry.mounts > 0) return;
    this.calls.push('unmount');
    if (!this.kernelMounts.delete(id)) throw new LayerStoreError('ERR_SYSTEM', 'EINVAL', { errnoName: 'EINVAL' });
  }

  async diff(id: string): Promise<Readable> {
    return Readable.from([this.#entry(id).tar], { objectMode: false });
  }

  async changes(id: string): Promise<Change[]> {
    return this.#entry(id).tar.length > 1024 ? [{ path: '/x', kind: 'add' }] : [];
  }

  async diffSize(id: string): Promise<number> {
    return this.#entry(id).tar.length - 1024;
  }

  async diffGetter(id: string): Promise<DiffGetter> {
    this.#entry(id);
    return { open: async () => this.diff(id), close: async () => undefined };
  }

  async exists(id: string): Promise<boolean> {
    return this.entries.has(id);
  }

  async list(): Promise<string[]> {
    return [...this.entries.keys()];
  }

  async remove(id: string): Promise<void> {
    this.calls.push('remove');
    this.entries.delete(id);
  }

  async metadata(id: string): Promise<Record<string, string>> {
    return { ID: id };
  }

  status(): readonly (readonly [string, string])[] {
    return [['Driver', this.name]];
  }

  async cleanup(): Promise<void> {
    this.calls.push('cleanup');
  }

  async close(): Promise<void> {
    this.calls.push('close');
  }
}

/** The same with mounts that a restart finds, removal by rename, and contents that can be exchanged. */
export class FullMemoryDriver extends MemoryDriver {
  readonly trash: Entry[] = [];

  async sync(ids: readonly string[]): Promise<void> {
    this.calls.push(`sync ${ids.length}`);
  }

  async detach(id: string): Promise<() => Promise<void>> {
    this.calls.push('detach');
    const entry = this.entries.get(id);
    this.entries.delete(id);
    if (entry !== undefined) this.trash.push(entry);
    return async () => {
      if (entry !== undefined) this.trash.splice(this.trash.indexOf(entry), 1);
    };
  }

  async exchange(id: string, otherID: string): Promise<void> {
    const [one, other] = [this.entries.get(id), this.entries.get(otherID)];
    if (one === undefined || other === undefined)
      throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', 'nothing to exchange');
    [one.tar, other.tar] = [other.tar, one.tar];
  }

  async liveMounts(): Promise<LiveMount[]> {
    return [...this.kernelMounts].map(([id, path]) => ({ id, path }));
  }

  async adopt(id: string): Promise<string> {
    const entry = this.entries.get(id);
    if (entry === undefined) throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `no directory "${id}"`);
    entry.mounts += 1;
    return `/memory/${id}`;
  }

  async commitDiff(
    id: string,
    parent: string | undefined,
    rwID: string,
    _rwParent: string | undefined,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult> {
    this.calls.push(options.consume ? 'consume' : 'commitDiff');
    await this.create(id, parent);
    const result = await this.applyDiff(id, parent, await this.diff(rwID), options);
    const rw = this.entries.get(rwID);
    if (options.consume && rw !== undefined) rw.tar = Buffer.alloc(0);
    return result;
  }

  async undoConsume(id: string, rwID: string): Promise<void> {
    this.calls.push('undoConsume');
    const layer = this.entries.get(id);
    const rw = this.entries.get(rwID);
    if (layer !== undefined && rw !== undefined && rw.tar.length === 0) rw.tar = layer.tar;
    this.entries.delete(id);
  }
}

export function newDisk(): { entries: Map<string, Entry>; mounts: Map<string, string> } {
  return { entries: new Map(), mounts: new Map() };
}
