/**
 * The markers of `volatile` mounts. overlayfs leaves `work/work/incompat/volatile` and refuses the next writable mount
 * while it is there, since data may be lost. It is taken away after a clean unmount of ours, and after a crash of the
 * process alone: a file beside holds the id of the boot, and within one boot the page cache lost nothing.
 */
import { readFile, unlink } from 'node:fs/promises';
import { LayerStoreError, systemError } from '../../errors.js';
import type { DriverContext } from '../context.js';
import { hasErrno, kindOf, readRecord, requireDirectory } from '../files.js';
import type { Layout } from './layout.js';

const RECORD_BYTES = 64;

export class VolatileMarkers {
  readonly #layout: Layout;
  readonly #context: DriverContext;
  readonly #enabled: boolean;
  /** Ids whose directory is known to hold no marker. */
  readonly #clean = new Set<string>();
  #boot: Promise<string> | undefined;

  /** `enabled`: this store mounts `volatile`. Markers of others are looked for in any case. */
  constructor(layout: Layout, context: DriverContext, enabled: boolean) {
    this.#layout = layout;
    this.#context = context;
    this.#enabled = enabled;
  }

  /** A layer that was just made has no marker. */
  created(id: string): void {
    this.#clean.add(id);
  }

  /** Whether a writable mount of the layer needs no look at markers and leaves none. */
  concerns(id: string): boolean {
    return this.#enabled || !this.#clean.has(id);
  }

  forget(id: string): void {
    this.#clean.delete(id);
  }

  /** Before a writable mount: ERR_LAYER_CORRUPT where an earlier boot left the layer unclean and no option accepts that. */
  async prepare(id: string): Promise<void> {
    if (!this.#clean.has(id)) await this.#settle(id);
    if (!this.#enabled) return;
    this.#clean.delete(id);
    const { engine, durability } = this.#context;
    const path = this.#record(id);
    // Synced where promises count: after a power cut the kernel's own marker may be lost, and this one must not be.
    await engine.batch([
      { op: 'write', path, mode: 0o600, data: await this.#bootID(), sync: durability === 'strict' },
      ...(durability === 'strict' ? ([{ op: 'fsync', path: this.#layout.directory(id) }] as const) : []),
    ]);
  }

  /** After an unmount of ours that went well, or a mount that failed: the next mount finds nothing. */
  async finish(id: string): Promise<void> {
    if (this.#enabled) await this.#remove(id);
  }

  async #settle(id: string): Promise<void> {
    const record = await readRecord(this.#record(id), RECORD_BYTES);
    if (record === undefined && (await kindOf(this.#marker(id))) === undefined) {
      this.#clean.add(id);
      return;
    }
    if (record !== (await this.#bootID())) {
      if (!this.#context.acceptVolatile) {
        throw new LayerStoreError(
          'ERR_LAYER_CORRUPT',
          `the RW layer "${id}" was mounted "volatile" and not unmounted before the machine went down: its files may be ` +
            'damaged; remove it, or open the store with acceptVolatile to use it as it is',
          { path: this.#marker(id) },
        );
      }
      this.#context.logger.warn(
        { layer: id },
        'using a volatile layer that another boot left unclean, as acceptVolatile asks',
      );
    }
    await this.#remove(id);
  }

  async #remove(id: string): Promise<void> {
    const work = this.#layout.work(id);
    // The kernel's first: were the record gone before it, a crash here would look like one of another boot.
    if ((await kindOf(`${work}/work`)) !== undefined) {
      // A link on the way would lead the removal out of the store.
      await requireDirectory(work);
      await requireDirectory(`${work}/work`);
      await this.#context.engine.removeTree(this.#marker(id));
    }
    try {
      await unlink(this.#record(id));
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw systemError(error, 'remove the record of the volatile mount');
    }
    this.#clean.add(id);
  }

  #bootID(): Promise<string> {
    this.#boot ??= readFile('/proc/sys/kernel/random/boot_id', 'latin1').then((text) => text.trim());
    return this.#boot;
  }

  #record(id: string): string {
    return `${this.#layout.directory(id)}/volatile-boot`;
  }

  #marker(id: string): string {
    return `${this.#layout.work(id)}/work/incompat`;
  }
}
