/**
 * An intent names a driver directory before it is made or removed. After a crash a driver directory without a record may
 * be removed only if an intent names it. The intent's file name is the driver id, so that it is known even if a power cut
 * took the file's content. A directory of such a name is the record of an RW layer that is being made or removed.
 */
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { BatchOp, Engine } from '../engine/engine.js';
import { makeDirectory } from '../util/make-directory.js';
import { isPlainName } from '../util/plain-name.js';
import { readRegularFile } from '../util/regular-file.js';

export interface Intent {
  /**
   * `layer`: made, to be published as a layer's record. `rw`: the same for an RW layer. `remove`: its record goes, its
   * files after it. `consume`: an RW layer's files become the layer. `repair`: fresh contents, to be exchanged.
   */
  kind: 'layer' | 'rw' | 'remove' | 'consume' | 'repair';
  /** More driver ids that are made or removed with it. */
  with?: readonly string[];
  /** Name of the RW layer. */
  name?: string;
  /** `consume`: the driver's id of the RW layer. */
  rwID?: string;
}

export interface StoredIntent extends Partial<Intent> {
  id: string;
}

/** An intent names a few ids. */
const MAX_BYTES = 64 * 1024;

/** Whether a text can be a driver's id, and so part of a path. */
export function isDriverID(text: unknown): text is string {
  return isPlainName(text);
}

export class Intents {
  readonly directory: string;
  readonly #engine: Engine;
  readonly #live = new Set<string>();

  constructor(directory: string, engine: Engine) {
    this.directory = directory;
    this.#engine = engine;
  }

  async prepare(): Promise<void> {
    await makeDirectory(this.directory, 0o700);
  }

  /** Whether work of this process holds the intent of `id`. */
  isLive(id: string): boolean {
    return this.#live.has(id);
  }

  /** This process works on `id`: its intent is no leftover until {@link letGo}. */
  hold(id: string): void {
    this.#live.add(id);
  }

  /** This process has ended its work on `id`: an intent that is still here is for recovery. */
  letGo(id: string): void {
    this.#live.delete(id);
  }

  #begin(id: string, intent: Intent, sync: boolean): BatchOp[] {
    const write: BatchOp = {
      op: 'write',
      path: join(this.directory, id),
      mode: 0o600,
      data: JSON.stringify(intent),
      sync,
    };
    return sync ? [write, { op: 'fsync', path: this.directory }] : [write];
  }

  /**
   * `sync` makes it durable before anything that it speaks of is made. A journal's order alone is not enough: btrfs logs
   * the names of a directory that is fsynced for another layer's sake, and not those of the intents' directory.
   */
  async begin(id: string, intent: Intent, options: { sync?: boolean } = {}): Promise<void> {
    this.#live.add(id);
    try {
      await this.#engine.batch(this.#begin(id, intent, options.sync === true));
    } catch (error) {
      this.#live.delete(id);
      throw error;
    }
  }

  /** The steps that remove an intent that is a file. */
  endSteps(id: string): BatchOp[] {
    return [{ op: 'unlink', path: join(this.directory, id), missingOk: true }];
  }

  async end(id: string): Promise<void> {
    try {
      await this.#engine.batch(this.endSteps(id));
    } catch (error) {
      if (!(await this.#isRecord(id))) throw error;
      await this.#engine.removeTree(join(this.directory, id));
    }
    this.#live.delete(id);
  }

  /** Intents of earlier processes and their paths. Content that cannot be read is left out; the id is enough. */
  async stored(): Promise<StoredIntent[]> {
    const found: StoredIntent[] = [];
    for (const name of await readdir(this.directory)) {
      if (isDriverID(name) && !this.#live.has(name)) found.push({ id: name, ...(await this.#read(name)) });
    }
    return found;
  }

  /** Number of intents, of this process and of earlier ones. */
  async count(): Promise<number> {
    return (await readdir(this.directory)).filter(isDriverID).length;
  }

  async bytesOf(id: string): Promise<number> {
    return (await lstat(join(this.directory, id)).catch(() => undefined))?.size ?? 0; // gone meanwhile: nothing to free
  }

  async #isRecord(id: string): Promise<boolean> {
    return (await lstat(join(this.directory, id)).catch(() => undefined))?.isDirectory() === true; // gone: neither
  }

  async #read(name: string): Promise<Partial<Intent>> {
    let value: unknown;
    try {
      // A record, whole or in parts, stands for its RW layer and the init layer that this may have.
      if (await this.#isRecord(name)) return { kind: 'rw', with: [`${name}-init`] };
      value = JSON.parse((await readRegularFile(join(this.directory, name), MAX_BYTES))?.toString('utf8') ?? '');
    } catch {
      return {}; // empty or torn by a power cut, or no file at all; the name alone decides then
    }
    if (typeof value !== 'object' || value === null) return {};
    const { kind, with: more, name: rwName, rwID } = value as Record<string, unknown>;
    return {
      ...(typeof kind === 'string' ? { kind: kind as Intent['kind'] } : {}),
      ...(Array.isArray(more) ? { with: more.filter(isDriverID) } : {}),
      ...(typeof rwName === 'string' ? { name: rwName } : {}),
      ...(isDriverID(rwID) ? { rwID } : {}),
    };
  }
}
