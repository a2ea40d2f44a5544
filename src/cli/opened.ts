/** What a command opened, at most once each, and closes when it ends. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { answerForSnapshots } from '../containerd/trees.js';
import { LayerStoreError, openImages, openStore, type Images, type Store } from '../index.js';
import type { Access, GlobalOptions } from './command.js';
import type { Terminal } from './terminal.js';

export class Opened {
  readonly #options: GlobalOptions;
  readonly #terminal: Terminal;
  #store: Promise<Store> | undefined;
  #images: Promise<Images> | undefined;

  constructor(options: GlobalOptions, terminal: Terminal) {
    this.#options = options;
    this.#terminal = terminal;
  }

  store(access: Access): Promise<Store> {
    this.#store ??= this.#open(access);
    return this.#store;
  }

  images(access: Access): Promise<Images> {
    this.#images ??= this.store(access).then((store) => openImages(store));
    return this.#images;
  }

  async #open(access: Access): Promise<Store> {
    const { json: _, ...options } = this.#options;
    if (access !== 'make') requireStore(options.root);
    // What is left at the end is told by whoever closes, in words of the command line.
    const say = (fields: object, message: string): void => {
      if (!('pendingRemovals' in fields)) this.#terminal.note(message);
    };
    const quiet = (): void => undefined;
    const store = await openStore({
      ...options,
      readOnly: access === 'read',
      logger: { debug: quiet, info: quiet, warn: say, error: say },
    });
    answerForSnapshots(store);
    return store;
  }

  /** Gives the number of removed or unfinished layers that still have files on disk; `hurry` ends the wait for them. */
  async close(hurry: AbortSignal): Promise<number> {
    let pending = 0;
    const store = await this.#store?.catch(() => undefined); // a failed open was reported by the command itself
    await store?.close({ signal: hurry, onPending: (removals) => (pending = removals) });
    return pending;
  }
}

/** Whether somebody made a store here: we, or a Docker. */
export function hasStore(root: string): boolean {
  return ['layerstore', 'image'].some((name) => existsSync(join(root, name)));
}

function requireStore(root: string): void {
  if (hasStore(root)) return;
  throw new LayerStoreError(
    'ERR_SYSTEM',
    `there is no store in "${root}": name its place with --root or LAYERSTORE_ROOT, or make one with \`layerstore load\`, \`pull\`, \`register\` or \`create\``,
    { errno: -2, errnoName: 'ENOENT', syscall: 'stat', path: root },
  );
}
