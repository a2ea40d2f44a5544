/**
 * Under which digests registries know the layers of this store: compressed once, known ever after, so that a second push
 * sends nothing. One file, `<root>/layerstore/blobs.json`: `{"layers":{DIFFID:[{digest,size,mediaType,repositories}]}}`.
 * It is a note: without it a push compresses again.
 */
import { join } from 'node:path';
import type { DiffID, Digest } from '../digest.js';
import { isDigest } from '../digest.js';
import { writeFileAtomic } from '../util/atomic-file.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import { readRegularFile } from '../util/regular-file.js';

/** One compressed form of a layer. */
export interface LayerBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly mediaType: string;
  /** Where it is, as `host/path`. */
  readonly repositories: readonly string[];
}

const MAX_BYTES = 64 * 1024 * 1024;
/** Of one blob; the ones added last. */
const MAX_REPOSITORIES = 20;

export class LayerBlobs {
  readonly #path: string;
  readonly #writes = new KeyedMutex();
  #layers: Map<DiffID, LayerBlob[]> | undefined;

  constructor(storeDirectory: string) {
    this.#path = join(storeDirectory, 'blobs.json');
  }

  async of(diffID: DiffID): Promise<readonly LayerBlob[]> {
    return (await this.#load()).get(diffID) ?? [];
  }

  /** Adds what a pull or push found out. @param known diff ids of the store: notes on others go */
  async add(
    found: readonly { diffID: DiffID; blob: Omit<LayerBlob, 'repositories'>; repository: string }[],
    known: ReadonlySet<DiffID>,
  ): Promise<void> {
    await this.#writes.run('blobs', async () => {
      const layers = new Map([...(await this.#load())].filter(([diffID]) => known.has(diffID)));
      for (const { diffID, blob, repository } of found) {
        const others = (layers.get(diffID) ?? []).filter(({ digest }) => digest !== blob.digest);
        const before = layers.get(diffID)?.find(({ digest }) => digest === blob.digest)?.repositories ?? [];
        const repositories = [repository, ...before.filter((name) => name !== repository)].slice(0, MAX_REPOSITORIES);
        layers.set(diffID, [{ ...blob, repositories }, ...others]);
      }
      this.#layers = layers;
      const text = JSON.stringify({ layers: Object.fromEntries(layers) });
      await writeFileAtomic(this.#path, text, { mode: 0o600, sync: false });
    });
  }

  async #load(): Promise<Map<DiffID, LayerBlob[]>> {
    if (this.#layers !== undefined) return this.#layers;
    let value: unknown;
    try {
      const bytes = await readRegularFile(this.#path, MAX_BYTES);
      value = bytes === undefined ? {} : JSON.parse(bytes.toString('utf8'));
    } catch {
      value = {}; // damaged, or something else lies there: what it said is found out again
    }
    return (this.#layers = readLayers(value));
  }
}

function readLayers(value: unknown): Map<DiffID, LayerBlob[]> {
  const layers = new Map<DiffID, LayerBlob[]>();
  const entries = Object.entries((value as { layers?: unknown } | null)?.layers ?? {}) as [string, unknown][];
  for (const [diffID, blobs] of entries) {
    if (!isDigest(diffID) || !Array.isArray(blobs)) continue;
    layers.set(diffID as DiffID, blobs.filter(isLayerBlob));
  }
  return layers;
}

function isLayerBlob(value: unknown): value is LayerBlob {
  const blob = value as Partial<Record<keyof LayerBlob, unknown>> | null;
  return (
    typeof blob?.digest === 'string' &&
    isDigest(blob.digest) &&
    Number.isSafeInteger(blob.size) &&
    typeof blob.mediaType === 'string' &&
    Array.isArray(blob.repositories) &&
    blob.repositories.every((name) => typeof name === 'string')
  );
}
