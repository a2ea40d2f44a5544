/**
 * What is about to be made or removed, written down before it is begun: after a crash a driver directory that no record
 * names is ours to remove only if an intent names it. The file's name is the driver's id, so that an intent whose
 * content a power cut took still says the one thing that matters.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { BatchOp, Engine } from '../engine/engine.js';
import { makeDirectory } from '../util/make-directory.js';

export interface Intent {
  /**
   * `layer`: made, to be published as a layer's record. `rw`: the same for an RW layer. `remove`: its record goes, its
   * files after it. `consume`: an RW layer's files become the layer. `repair`: fresh contents, to be exchanged.
   */
  kind: 'layer' | 'rw' | 'remove' | 'consume' | 'repair';
  /** More ids that share its fate. */
  with?: readonly string[];
  /** The RW layer concerned. */
  name?: string;
  /** `consume`: the driver's id of the RW layer. */
  rwID?: string;
}

export interface StoredIntent extends Partial<Intent> {
  id: string;
}

/** See {@link Intents.steps}. */
export interface IntentSteps {
  readonly begin: readonly BatchOp[];
  readonly end: readonly BatchOp[];
  settle(): void;
}

const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** Whether a text can be a driver's id, and so part of a path. */
export function isDriverID(text: unknown): text is string {
  return typeof text === 'string' && ID.test(text);
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

  /**
   * The same as steps of one batch with the work itself; `end` comes after the work's last step. Whoever runs them
   * calls `settle` when the batch is over: one that failed took the intent back, or left it for recovery.
   */
  steps(id: string, intent: Intent, options: { sync?: boolean } = {}): IntentSteps {
    this.#live.add(id);
    return {
      begin: this.#begin(id, intent, options.sync === true),
      end: [this.#end(id)],
      settle: () => this.#live.delete(id),
    };
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

  #end(id: string): BatchOp {
    return { op: 'unlink', path: join(this.directory, id), missingOk: true };
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

  async end(id: string): Promise<void> {
    await this.#engine.batch([this.#end(id)]);
    this.#live.delete(id);
  }

  /** The work of this process is over without its end: recovery's now. */
  abandon(id: string): void {
    this.#live.delete(id);
  }

  /** What earlier processes left, and where: content that cannot be read is left out, the id counts. */
  async stored(): Promise<StoredIntent[]> {
    const found: StoredIntent[] = [];
    for (const name of await readdir(this.directory)) {
      if (isDriverID(name) && !this.#live.has(name)) found.push({ id: name, ...(await this.#read(name)) });
    }
    return found;
  }

  async bytesOf(id: string): Promise<number> {
    return (await stat(join(this.directory, id)).catch(() => undefined))?.size ?? 0; // gone meanwhile: nothing to free
  }

  async #read(name: string): Promise<Partial<Intent>> {
    let value: unknown;
    try {
      value = JSON.parse(await readFile(join(this.directory, name), 'utf8'));
    } catch {
      return {}; // empty or torn by a power cut; the name alone decides then
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
