/**
 * A graph driver as a program outside of this package would bring one: whole copies of trees, only the methods that
 * GraphDriver requires, and nothing but what the package exports.
 */
import { access, mkdir, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import {
  LayerStoreError,
  type ApplyOptions,
  type ApplyResult,
  type Change,
  type CreateReadWriteOptions,
  type DiffGetter,
  type Engine,
  type GraphDriver,
  type TarSource,
} from 'layerstore';

export class CopiesDriver implements GraphDriver {
  readonly name = 'copies';
  readonly capabilities = {
    independentDiffs: false,
    reproducesExactDiffs: false,
    hardSizeLimit: false,
    mounts: false,
  };
  readonly #home: string;
  readonly #engine: Engine;

  constructor(home: string, engine: Engine) {
    this.#home = home;
    this.#engine = engine;
  }

  async create(id: string, parent?: string): Promise<void> {
    const directory = this.#path(id);
    const below = parent === undefined ? undefined : await this.#existing(parent);
    if (await this.exists(id)) throw new LayerStoreError('ERR_INVALID_ARGUMENT', `there is a layer "${id}" already`);
    await mkdir(directory, { mode: 0o755 });
    if (below !== undefined) await this.#engine.copyTree(below, directory);
  }

  async createReadWrite(id: string, parent: string | undefined, options: CreateReadWriteOptions): Promise<void> {
    for (const key of Object.keys(options.storageOpt ?? {})) {
      throw key === 'size'
        ? new LayerStoreError('ERR_NOT_SUPPORTED', 'copies have no size limit; leave "size" out')
        : new LayerStoreError('ERR_INVALID_ARGUMENT', `the storage option "${key}" is not known`);
    }
    await this.create(id, parent);
  }

  async applyDiff(
    id: string,
    _parent: string | undefined,
    source: TarSource,
    options: ApplyOptions,
  ): Promise<ApplyResult> {
    return this.#engine.ingest(source, { ...options, directory: await this.#existing(id), whiteouts: 'plain' });
  }

  async get(id: string): Promise<string> {
    return this.#existing(id);
  }

  async put(_id: string): Promise<void> {
    // Nothing is mounted.
  }

  async diff(id: string, parent?: string): Promise<Readable> {
    return this.#engine.treeTar(await this.#difference(id, parent));
  }

  async changes(id: string, parent?: string): Promise<Change[]> {
    return this.#engine.changes(await this.#difference(id, parent));
  }

  async diffSize(id: string, parent?: string): Promise<number> {
    return this.#engine.diffSize(await this.#difference(id, parent));
  }

  async diffGetter(id: string): Promise<DiffGetter> {
    const directory = await this.#existing(id);
    return {
      directory,
      open: async (name) => {
        try {
          return (await open(Buffer.concat([Buffer.from(`${directory}/`), name]))).createReadStream();
        } catch (cause) {
          throw new LayerStoreError('ERR_LAYER_CORRUPT', `"${Buffer.from(name).toString()}" is gone`, { cause });
        }
      },
      close: async () => undefined,
    };
  }

  async exists(id: string): Promise<boolean> {
    try {
      await access(this.#path(id));
      return true;
    } catch {
      return false; // not there, or no id at all
    }
  }

  async list(): Promise<string[]> {
    return readdir(this.#home);
  }

  async remove(id: string): Promise<void> {
    const path = this.#path(id);
    if (await this.exists(id)) await this.#engine.removeTree(path);
  }

  async metadata(id: string): Promise<Record<string, string>> {
    return { Directory: await this.#existing(id) };
  }

  status(): readonly (readonly [string, string])[] {
    return [['Home', this.#home]];
  }

  async cleanup(): Promise<void> {
    // Nothing is left half-way that the store does not remove by its id.
  }

  async close(): Promise<void> {
    // Nothing is held.
  }

  #path(id: string): string {
    if (!/^[0-9a-f]{64}(-init)?$/.test(id)) {
      throw new LayerStoreError('ERR_INVALID_ARGUMENT', `"${id}" is no layer id: give 64 hex digits`);
    }
    return join(this.#home, id);
  }

  async #existing(id: string): Promise<string> {
    const path = this.#path(id);
    if (await this.exists(id)) return path;
    throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `there is no layer "${id}" in ${this.#home}`);
  }

  async #difference(id: string, parent: string | undefined): Promise<Parameters<Engine['changes']>[0]> {
    const stack = async (each: string): Promise<{ directories: string[]; whiteouts: 'plain' }> => ({
      directories: [await this.#existing(each)],
      whiteouts: 'plain',
    });
    const upper = await stack(id);
    return parent === undefined ? { upper } : { upper, lower: await stack(parent) };
  }
}
