/**
 * Files of blobs that pulls have begun to fetch, below `<root>/layerstore/partial`. A pull that ends well removes its own;
 * what a broken one leaves is where the next pull of the same blob goes on, until gc or the cap removes it.
 */
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../digest.js';
import { statePath } from '../registry/download.js';
import type { Leftover } from '../store/gc.js';
import { makeDirectory } from '../util/make-directory.js';
import { attempt } from './errors.js';
import { checkFreeSpace } from './limits.js';

const SUFFIX = '.partial';
/** Bytes of what broken pulls left that are kept when another pull begins. */
export const MAX_LEFT_BYTES = 16 * 1024 ** 3;

interface PartialFile {
  readonly name: string;
  readonly bytes: number;
  readonly modified: number;
}

/** One process writes a root, so what it does not use itself nobody uses. */
export class PartialBlobs {
  readonly #directory: string;
  readonly #maxLeftBytes: number;
  /** Names of files that a pull of this process uses. */
  readonly #used = new Set<string>();

  /** @param maxLeftBytes see {@link MAX_LEFT_BYTES} */
  constructor(storeDirectory: string, maxLeftBytes: number) {
    this.#maxLeftBytes = maxLeftBytes;
    this.#directory = join(storeDirectory, 'partial');
  }

  /** Removes what is over the cap, the oldest first, and looks whether there is room for `bytes` more. ERR_LIMIT_EXCEEDED where the disk would be left without its reserve. */
  async prepare(bytes: number, minFreeBytes: number | undefined): Promise<void> {
    await attempt('keep blobs on disk', () => makeDirectory(this.#directory, 0o700));
    let kept = 0;
    for (const { name, bytes: held } of (await this.#unused()).sort((a, b) => b.modified - a.modified)) {
      kept += held;
      if (kept > this.#maxLeftBytes) await this.#remove(name);
    }
    await checkFreeSpace(this.#directory, bytes, minFreeBytes, `fetching ${bytes} bytes`);
  }

  /** A path for a blob, the caller's own until `release`. `resumable`: it is where the next pull will look. */
  claim(digest: Digest): { path: string; resumable: boolean; release: () => void } {
    const base = digest.replace(':', '-');
    let name = `${base}${SUFFIX}`;
    // Another pull fetches the same bytes for another layer: each has a file of its own.
    for (let count = 2; this.#used.has(name); count++) name = `${base}.${count}${SUFFIX}`;
    this.#used.add(name);
    return {
      path: join(this.#directory, name),
      resumable: name === `${base}${SUFFIX}`,
      release: () => this.#used.delete(name),
    };
  }

  /** For `Store.addLeftoverSource`. */
  async leftovers(): Promise<Leftover[]> {
    return (await this.#unused()).map(({ name, bytes }) => ({
      item: {
        kind: 'partial',
        what: join('layerstore', 'partial', name),
        why: 'a pull that broke left it; the next pull of the same image would go on from it',
        bytes,
      },
      remove: () => this.#remove(name),
    }));
  }

  async #unused(): Promise<PartialFile[]> {
    const files: PartialFile[] = [];
    // Before the first pull there is no directory; a file may be gone since the listing.
    for (const name of await readdir(this.#directory).catch(() => [])) {
      if (!name.endsWith(SUFFIX) || this.#used.has(name)) continue;
      const found = await stat(join(this.#directory, name)).catch(() => undefined);
      if (found !== undefined) files.push({ name, bytes: found.blocks * 512, modified: found.mtimeMs });
    }
    return files;
  }

  async #remove(name: string): Promise<void> {
    if (this.#used.has(name)) return;
    const path = join(this.#directory, name);
    await attempt('remove a partial blob', async () => {
      await rm(path, { force: true });
      await rm(statePath(path), { force: true });
    });
  }
}
