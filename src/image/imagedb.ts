/**
 * Docker's image records on disk: `<root>/image/<driver>/imagedb`. `content/sha256/<id>` is the configuration byte for
 * byte; `metadata/sha256/<id>/` may hold `parent` and `lastUpdated`. Directories 0700, files 0600, each written whole.
 * Source: moby, daemon/internal/image/fs.go.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isSHA256Hex, sha256, type Digest } from '../digest.js';
import { systemError } from '../errors.js';
import { syncDirectory, writeFileAtomic } from '../util/atomic-file.js';
import { makeDirectory } from '../util/make-directory.js';
import { NotRegularError, readRegularFile, TooLongError } from '../util/regular-file.js';
import { attempt, badImage, hasErrno, overLimit } from './errors.js';

/** A digest, and blanks around it. */
const PARENT_BYTES = 512;

/**
 * One file of Docker's image records; `undefined` where there is none. ERR_BAD_IMAGE for what is no regular file,
 * ERR_LIMIT_EXCEEDED for one of more than `maxBytes`.
 */
export async function readStateFile(path: string, action: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    return await readRegularFile(path, maxBytes);
  } catch (error) {
    if (error instanceof TooLongError) throw overLimit(`"${path}"`, 'maxJsonBytes', maxBytes);
    if (error instanceof NotRegularError) throw badImage(`cannot ${action}: "${path}" ${error.message}`);
    throw systemError(error, action);
  }
}

export interface ImageDbOptions {
  /** `<root>/image/<driver>` */
  readonly directory: string;
  readonly sync: boolean;
  readonly maxJsonBytes: number;
}

export class ImageDb {
  readonly #content: string;
  readonly #metadata: string;
  readonly #directory: string;
  readonly #sync: boolean;
  readonly #maxBytes: number;

  constructor({ directory, sync, maxJsonBytes }: ImageDbOptions) {
    this.#directory = directory;
    this.#content = join(directory, 'imagedb', 'content', 'sha256');
    this.#metadata = join(directory, 'imagedb', 'metadata', 'sha256');
    this.#sync = sync;
    this.#maxBytes = maxJsonBytes;
  }

  /** Ids of all configurations, in byte order. Other names in the directory (temporary files) are passed over, as Docker does. */
  async list(): Promise<Digest[]> {
    try {
      const names = await readdir(this.#content);
      return names
        .filter((name) => isSHA256Hex(name))
        .sort()
        .map((name): Digest => `sha256:${name}`);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw systemError(error, 'list the images');
    }
  }

  /** The configuration of an image; ERR_BAD_IMAGE where its bytes are not those of its id. */
  async read(id: Digest): Promise<Uint8Array> {
    const path = this.#contentPath(id);
    const bytes = await readStateFile(path, 'read the image configuration', this.#maxBytes);
    if (bytes === undefined) throw badImage(`the image configuration "${path}" is missing; load the image again`);
    if (sha256(bytes) !== id)
      throw badImage(
        `the image configuration "${path}" is damaged: its digest is ${sha256(bytes)}; load the image again`,
      );
    return bytes;
  }

  async write(id: Digest, config: Uint8Array): Promise<void> {
    await attempt('record the image', async () => {
      await this.#makeDirectory(this.#content);
      await writeFileAtomic(this.#contentPath(id), config, { mode: 0o600, sync: this.#sync });
    });
  }

  async writeParent(id: Digest, parent: Digest): Promise<void> {
    await this.#writeMetadata(id, 'parent', parent);
  }

  /** When the image last got a name, as Docker's `Metadata.LastTagTime` shows it. */
  async writeLastUpdated(id: Digest, time: Date): Promise<void> {
    await this.#writeMetadata(id, 'lastUpdated', time.toISOString());
  }

  /** Which image each was built on, for those that say so. */
  async parents(ids: readonly Digest[]): Promise<Map<Digest, string>> {
    const parents = new Map<Digest, string>();
    for (const id of ids) {
      // Most images say nothing.
      const path = join(this.#metadataPath(id), 'parent');
      const parent = await readStateFile(path, 'read the image metadata', PARENT_BYTES);
      if (parent !== undefined) parents.set(id, parent.toString('utf8').trim());
    }
    return parents;
  }

  async removeParent(id: Digest): Promise<void> {
    await attempt('forget what the image was built on', () =>
      rm(join(this.#metadataPath(id), 'parent'), { force: true }),
    );
  }

  /** Metadata first, as Docker does: an image without is whole, metadata without an image is litter. */
  async remove(id: Digest): Promise<void> {
    await attempt('remove the image record', async () => {
      await rm(this.#metadataPath(id), { recursive: true, force: true });
      await rm(this.#contentPath(id), { force: true });
      if (this.#sync) await syncDirectory(this.#content);
    });
  }

  async #writeMetadata(id: Digest, key: string, value: string): Promise<void> {
    await attempt('record the image metadata', async () => {
      await this.#makeDirectory(this.#metadataPath(id));
      await writeFileAtomic(join(this.#metadataPath(id), key), value, { mode: 0o600, sync: this.#sync });
    });
  }

  /** Makes what is missing, and with `sync` each new name durable. */
  async #makeDirectory(path: string): Promise<void> {
    const first = await makeDirectory(path, 0o700);
    if (first === undefined || !this.#sync) return;
    for (let parent = join(path, '..'); parent.length >= this.#directory.length; parent = join(parent, '..'))
      await syncDirectory(parent);
    await syncDirectory(join(this.#directory, '..'));
  }

  #contentPath(id: Digest): string {
    return join(this.#content, id.slice('sha256:'.length));
  }

  #metadataPath(id: Digest): string {
    return join(this.#metadata, id.slice('sha256:'.length));
  }
}
