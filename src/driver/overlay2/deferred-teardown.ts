/**
 * Overlays that are unmounted but still kept alive. Their end syncs the whole file system below them, which takes most of
 * an unmount's time and which a relaxed store does not promise. So it is done for many together, a little later, but
 * before the same directories are mounted again: two overlays must not share an upper directory.
 */
import type { DeferredTeardown } from '../../engine/engine.js';
import { errorFields } from '../../util/logger.js';
import type { DriverContext } from '../context.js';

/** Milliseconds from the first unmount until those that came meanwhile end too. */
const PATIENCE = 30;
/** At most so many overlays wait, each with a descriptor; the next unmount waits for their end. */
const MOST = 128;
/** Threads at it, which share the journal's commits; one after the other they would each wait for one of their own. */
const AT_ONCE = 16;

export class DeferredTeardowns {
  readonly #context: DriverContext;
  /** For {@link Engine.unmountAndRemove}; `undefined` where every unmount waits for the end of its own. */
  readonly keeper: DeferredTeardown | undefined;
  #waiting = new Set<string>();
  #ending = new Set<string>();
  #now: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** A `volatile` overlay syncs nothing at its end, and its marker may be removed only after that. */
  constructor(context: DriverContext, { volatile }: { volatile: boolean }) {
    this.#context = context;
    this.keeper = context.durability === 'relaxed' && !volatile ? context.engine.deferredTeardown() : undefined;
  }

  /** The layer's overlay was left to the keeper. */
  async add(id: string): Promise<void> {
    this.#waiting.add(id);
    if (this.#waiting.size >= MOST) return this.end();
    // A process that exits takes the descriptors with it, and with them the overlays: nothing to stay alive for.
    this.#timer ??= setTimeout(() => void this.end(), PATIENCE).unref();
  }

  /** Nothing waits or is ending. */
  get none(): boolean {
    return this.#waiting.size + this.#ending.size === 0;
  }

  /** Resolves when no overlay of the layer is left that is not mounted. */
  async ended(id: string): Promise<void> {
    if (this.#waiting.has(id)) await this.end();
    else if (this.#ending.has(id)) await this.#now;
  }

  /** Ends all that wait. One call at a time works, and those that come meanwhile share the next one. */
  end(): Promise<void> {
    return (this.#next ??= this.#endAfter(this.#now));
  }

  async #endAfter(before: Promise<void> | undefined): Promise<void> {
    await before;
    this.#now = this.#next;
    this.#next = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#ending = this.#waiting;
    this.#waiting = new Set();
    const threads = Math.min(AT_ONCE, this.#ending.size);
    try {
      await Promise.all(Array.from({ length: threads }, async () => this.keeper?.end()));
    } catch (error) {
      // Those that it still keeps end with the next call, or with the process.
      this.#context.logger.warn(errorFields(error), 'cannot end the overlays of mounts that are gone');
    }
    this.#ending = new Set();
  }
}
