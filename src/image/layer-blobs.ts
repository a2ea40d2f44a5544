/**
 * Under which digests registries know the layers of this store: compressed once, known ever after, so that a second push
 * sends nothing; and the manifests that images were pulled by, so that an unchanged one keeps its digest. One file,
 * `<root>/layerstore/blobs.json`: `{"layers":{DIFFID:[{digest,size,mediaType,repositories}]},"manifests":{IMAGE:{mediaType,text}}}`.
 * It is a note: without it a push compresses again, and makes a manifest of its own.
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

/** The manifest that an image was pulled by. */
export interface PulledManifest {
  readonly mediaType: string;
  /** Byte for byte. */
  readonly text: string;
  /** Digests of its layers, base first. */
  readonly layers: readonly Digest[];
}

/** What a pull or push found out. */
export interface Findings {
  readonly blobs: readonly { diffID: DiffID; blob: Omit<LayerBlob, 'repositories'>; repository: string }[];
  /** By the image that it names. */
  readonly manifest: { readonly image: Digest; readonly mediaType: string; readonly bytes: Uint8Array } | undefined;
}

interface Notes {
  readonly layers: ReadonlyMap<DiffID, readonly LayerBlob[]>;
  readonly manifests: ReadonlyMap<Digest, PulledManifest>;
}

const MAX_BYTES = 64 * 1024 * 1024;
/** Of one blob; the ones added last. */
const MAX_REPOSITORIES = 20;
/** A longer one is not kept. */
const MAX_MANIFEST_BYTES = 256 * 1024;

export class LayerBlobs {
  readonly #path: string;
  readonly #writes = new KeyedMutex();
  #notes: Notes | undefined;

  constructor(storeDirectory: string) {
    this.#path = join(storeDirectory, 'blobs.json');
  }

  async of(diffID: DiffID): Promise<readonly LayerBlob[]> {
    return (await this.#load()).layers.get(diffID) ?? [];
  }

  async manifestOf(image: Digest): Promise<PulledManifest | undefined> {
    return (await this.#load()).manifests.get(image);
  }

  /** Adds what was found out. @param known diff ids of the store: notes on others go, and manifests with such layers */
  async add({ blobs, manifest }: Findings, known: ReadonlySet<DiffID>): Promise<void> {
    await this.#writes.run('blobs', async () => {
      const before = await this.#load();
      const layers = new Map([...before.layers].filter(([diffID]) => known.has(diffID)));
      for (const { diffID, blob, repository } of blobs) {
        const others = (layers.get(diffID) ?? []).filter(({ digest }) => digest !== blob.digest);
        const places = layers.get(diffID)?.find(({ digest }) => digest === blob.digest)?.repositories ?? [];
        const repositories = [repository, ...places.filter((name) => name !== repository)].slice(0, MAX_REPOSITORIES);
        layers.set(diffID, [{ ...blob, repositories }, ...others]);
      }
      const manifests = new Map(before.manifests);
      if (manifest !== undefined) {
        const { image, mediaType, bytes } = manifest;
        const pulled = readManifest({ mediaType, text: Buffer.from(bytes).toString('utf8') }, image);
        // What is no UTF-8 would not come back byte for byte.
        if (pulled !== undefined && Buffer.from(pulled.text).equals(bytes)) manifests.set(image, pulled);
      }
      const there = new Set([...layers.values()].flatMap((each) => each.map(({ digest }) => digest)));
      for (const [image, pulled] of manifests)
        if (!pulled.layers.every((digest) => there.has(digest))) manifests.delete(image);
      this.#notes = { layers, manifests };
      const kept = [...manifests].map(([image, { mediaType, text }]) => [image, { mediaType, text }] as const);
      const text = JSON.stringify({ layers: Object.fromEntries(layers), manifests: Object.fromEntries(kept) });
      await writeFileAtomic(this.#path, text, { mode: 0o600, sync: false });
    });
  }

  async #load(): Promise<Notes> {
    if (this.#notes !== undefined) return this.#notes;
    let value: unknown;
    try {
      const bytes = await readRegularFile(this.#path, MAX_BYTES);
      value = bytes === undefined ? {} : JSON.parse(bytes.toString('utf8'));
    } catch {
      value = {}; // damaged, or something else lies there: what it said is found out again
    }
    return (this.#notes = { layers: readLayers(value), manifests: readManifests(value) });
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

function readManifests(value: unknown): Map<Digest, PulledManifest> {
  const manifests = new Map<Digest, PulledManifest>();
  const entries = Object.entries((value as { manifests?: unknown } | null)?.manifests ?? {}) as [string, unknown][];
  for (const [image, entry] of entries) {
    const pulled = isDigest(image) ? readManifest(entry, image) : undefined;
    if (pulled !== undefined) manifests.set(image as Digest, pulled);
  }
  return manifests;
}

/** Undefined for what is no manifest of the image, or of one without layers. */
function readManifest(entry: unknown, image: Digest): PulledManifest | undefined {
  const { mediaType, text } = (entry ?? {}) as { mediaType?: unknown; text?: unknown };
  if (typeof mediaType !== 'string' || typeof text !== 'string' || text.length > MAX_MANIFEST_BYTES) return undefined;
  try {
    const manifest = JSON.parse(text) as { config?: { digest?: unknown }; layers?: readonly { digest?: unknown }[] };
    const layers = (manifest.layers ?? []).map(({ digest }) => digest as Digest);
    const whole = layers.length > 0 && layers.every(isDigest);
    return whole && manifest.config?.digest === image ? { mediaType, text, layers } : undefined;
  } catch {
    return undefined;
  }
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
