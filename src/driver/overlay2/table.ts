/** What the mount table says of the mount points of layers. */
import { LayerStoreError } from '../../errors.js';
import type { MountEntry } from '../../engine/engine.js';
import type { DriverContext } from '../context.js';
import type { Layout } from './layout.js';

export class LayerMounts {
  readonly #layout: Layout;
  readonly #context: DriverContext;

  constructor(layout: Layout, context: DriverContext) {
    this.#layout = layout;
    this.#context = context;
  }

  /** The overlay mount on the layer's mount point; ERR_ACTIVE_MOUNT where it is a foreign one, or several are stacked. */
  async entry(id: string): Promise<MountEntry | undefined> {
    const entries = await this.entries(id);
    const [entry] = entries;
    if (entry === undefined) return undefined;
    if (entries.length > 1)
      throw active(id, `${entries.length} mounts are stacked on "${entry.target}"; unmount them by hand`);
    if (entry.fsType !== 'overlay') {
      throw active(
        id,
        `a foreign mount of type ${entry.fsType} ("${entry.source}") is on "${entry.target}"; unmount it by hand`,
      );
    }
    const upper = upperOf(entry);
    if (upper !== undefined && !this.#isOurs(id, upper)) {
      throw active(
        id,
        `a foreign overlay with the upper directory "${upper}" is on "${entry.target}"; unmount it by hand`,
      );
    }
    return entry;
  }

  async entries(id: string): Promise<MountEntry[]> {
    const target = this.#layout.merged(id);
    return (await this.#context.engine.mounts(target)).filter((entry) => entry.target === target);
  }

  /** The kernel shows the upper directory as it was named: by an absolute path, a relative one, or a descriptor in /proc. */
  #isOurs(id: string, upper: string): boolean {
    return (
      upper === this.#layout.diff(id) || upper.startsWith('/proc/') || upper === 'diff' || upper.endsWith(`${id}/diff`)
    );
  }
}

function upperOf({ options }: MountEntry): string | undefined {
  return /(?:^|,)upperdir=((?:\\.|[^,\\])*)/.exec(options)?.[1];
}

/** The SELinux context a mount was made with; empty for none. */
export function labelOf({ options }: MountEntry): string {
  return /(?:^|,)context="?([^",]*(?:,c[0-9][^",]*)*)"?(?:,|$)/.exec(options)?.[1] ?? '';
}

export function isWritable(entry: MountEntry): boolean {
  return upperOf(entry) !== undefined;
}

/** The error for an operation that a mount prevents. */
export function active(id: string, why: string): LayerStoreError {
  return new LayerStoreError('ERR_ACTIVE_MOUNT', `the layer "${id}" is in use: ${why}`);
}
