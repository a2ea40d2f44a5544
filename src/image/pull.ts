/**
 * Pulling: the manifest says which blobs; they are fetched side by side into files, and layers are unpacked from those
 * while they grow. Nothing is recorded before all of it is good; what breaks leaves partial files alone.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { ChainID, Digest } from '../digest.js';
import type { TarSource } from '../engine/engine.js';
import { GrowingFile, type GrowingBytes } from '../engine/growing-file.js';
import { LayerStoreError } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { Download } from '../registry/download.js';
import { locationOf, parseName, parseNameToGive, type ImageName } from '../registry/reference.js';
import { Registry, type Caller, type Manifest } from '../registry/registry.js';
import type { RegistrySettings } from '../registry/settings.js';
import { releaseAndLog } from '../store/log.js';
import type { Layer, Store } from '../store/types.js';
import type { Slots } from '../util/slots.js';
import { BlobReports } from './blob-progress.js';
import { chainIDs } from './config.js';
import { refuseForeign, Unpacker, type LoadedImage, type LoadPins } from './load.js';
import type { LayerBlobs } from './layer-blobs.js';
import { archiveLimits } from './limits.js';
import { planManifest, type Documents } from './oci-plan.js';
import type { PartialBlobs } from './partial-blobs.js';
import type { PlannedImage } from './plan.js';
import { parsePlatform } from './platform.js';
import type { PullOptions } from './types.js';

/** What all pulls and pushes of one `Images` share. */
export interface RegistryAccess {
  readonly settings: RegistrySettings;
  /** As many as blobs may be on their way at once. */
  readonly slots: Slots;
  readonly partial: PartialBlobs;
  readonly blobs: LayerBlobs;
}

/** @param record takes the handle over; where it throws it is released like that of a failed pull */
export async function pullImage<T>(
  store: Store,
  access: RegistryAccess,
  reference: string,
  options: PullOptions,
  pins: LoadPins,
  record: (image: LoadedImage) => Promise<T>,
): Promise<T> {
  const { signal } = options;
  signal?.throwIfAborted();
  const name = parseName(reference);
  const names = options.names?.map(parseNameToGive);
  const wanted = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const limits = archiveLimits(options.limits);
  const reports = new BlobReports(options.onProgress);
  await using registry = await Registry.open(locationOf(name), access.settings, 'pull');
  const caller: Caller = { signal, onRetry: (pause) => reports.pause(pause) };
  const manifest = await registry.manifest(name.digest ?? name.tag ?? 'latest', limits.maxJsonBytes, caller);
  const root: Descriptor = { mediaType: manifest.mediaType, digest: manifest.digest, size: manifest.bytes.length };
  const documents = new RegistryDocuments(registry, manifest, caller);
  const { image: planned, manifest: chosen } = await planManifest(documents, root, wanted, limits);
  refuseForeign(planned.config);
  refuseElsewhere(planned);
  const layer = await unpack(store, access, registry, planned, options, pins, reports);
  try {
    signal?.throwIfAborted();
    // Where it cannot be written, a push compresses again: no reason for a good pull to fail.
    await note(store, access, documents, planned, chosen).catch(() => undefined);
    return await record({
      config: planned.config,
      names: names ?? namesOf(name, manifest.digest),
      layer,
    });
  } catch (error) {
    if (layer !== undefined) await releaseAndLog(store, layer);
    throw error;
  }
}

/** As Docker records them: what was asked for, and the digest by which it can be asked for again. */
function namesOf({ repository, tag, digest }: ImageName, found: Digest): ImageName[] {
  const byDigest = { repository, digest: found };
  return tag === undefined || digest !== undefined ? [byDigest] : [{ repository, tag }, byDigest];
}

/** Manifests are asked for as such; a configuration is a blob, which only the manifest that names it tells. */
class RegistryDocuments implements Documents {
  readonly title: string;
  readonly #registry: Registry;
  readonly #caller: Caller;
  /** All that were read: an index, and one manifest or a few. */
  readonly #manifests: Map<Digest, Uint8Array>;

  constructor(registry: Registry, root: Manifest, caller: Caller) {
    this.title = `${registry.host}/${registry.path}`;
    this.#registry = registry;
    this.#caller = caller;
    this.#manifests = new Map([[root.digest, root.bytes]]);
  }

  async read({ digest, mediaType }: Descriptor, maxBytes: number): Promise<Uint8Array> {
    const known = this.#manifests.get(digest);
    if (known !== undefined) return known;
    if (!/\.(?:index|manifest|manifest\.list)\.v[0-9]/.test(mediaType))
      return this.#registry.blob(digest, maxBytes, this.#caller);
    const { bytes } = await this.#registry.manifest(digest, maxBytes, this.#caller);
    this.#manifests.set(digest, bytes);
    return bytes;
  }

  /** One that was read. */
  manifest(digest: Digest): Uint8Array {
    return this.#manifests.get(digest) as Uint8Array;
  }
}

/** Layers that the manifest says to fetch from a URL of its choice are not fetched: what a registry serves is all we ask for. */
function refuseElsewhere({ config, layers }: PlannedImage): void {
  for (const { descriptor } of layers) {
    if (descriptor === undefined) continue;
    const { urls = [], mediaType, digest } = descriptor;
    if (urls.length === 0 && !/\.(?:foreign|nondistributable)\./.test(mediaType)) continue;
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `image ${config.id} has the layer ${digest} at other places than its registry; such layers are not fetched`,
    );
  }
}

/** Unpacks what the store does not have. Bytes that turn out wrong and were put together from several answers get one more try. */
async function unpack(
  store: Store,
  access: RegistryAccess,
  registry: Registry,
  planned: PlannedImage,
  options: PullOptions,
  pins: LoadPins,
  reports: BlobReports,
): Promise<Layer | undefined> {
  const digests = planned.layers.map(({ descriptor }) => (descriptor as Descriptor).digest);
  for (const { descriptor } of planned.layers)
    reports.begin((descriptor as Descriptor).digest, (descriptor as Descriptor).size);
  for (let tries = 1; ; tries++) {
    const fetches = new LayerFetches(store, access, registry, planned, options, reports);
    const unpacker = new Unpacker(
      store,
      fetches,
      {
        ...options,
        onProgress: ({ layer, status, bytesRead }) => reports.unpacked(digests[layer] as Digest, status, bytesRead),
      },
      pins,
    );
    try {
      const layer = await unpacker.image(planned);
      await fetches.finish();
      return layer;
    } catch (error) {
      const doubtful = await fetches.fail(error);
      options.signal?.throwIfAborted();
      if (!doubtful || tries > 1) throw error;
    }
  }
}

const WRONG_BYTES = new Set(['ERR_DIGEST_MISMATCH', 'ERR_BAD_IMAGE', 'ERR_LIMIT_EXCEEDED']);

/** The downloads of one image, begun when the first byte of one of them is wanted: until then another pull may make its layers. */
class LayerFetches {
  readonly #store: Store;
  readonly #access: RegistryAccess;
  readonly #registry: Registry;
  readonly #planned: PlannedImage;
  readonly #options: PullOptions;
  readonly #reports: BlobReports;
  readonly #downloads = new Map<Digest, { download: Download; resumable: boolean; release: () => void }>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>[] = [];
  #started: Promise<void> | undefined;

  constructor(
    store: Store,
    access: RegistryAccess,
    registry: Registry,
    planned: PlannedImage,
    options: PullOptions,
    reports: BlobReports,
  ) {
    this.#store = store;
    this.#access = access;
    this.#registry = registry;
    this.#planned = planned;
    this.#options = options;
    this.#reports = reports;
  }

  /** A source that can be read again: it begins anew each time. */
  blob(file: string): Promise<TarSource> {
    const digest: Digest = `sha256:${file.slice(file.lastIndexOf('/') + 1)}`;
    return Promise.resolve(new GrowingFile(() => this.#open(digest)));
  }

  /** All layers are in the store: their files go. */
  async finish(): Promise<void> {
    await this.#end(async ({ download }) => download.discard());
  }

  /** Files stay for the next pull, but those that hold wrong bytes. Whether a try from the beginning may end otherwise. */
  async fail(reason: unknown): Promise<boolean> {
    const wrong = reason instanceof LayerStoreError && WRONG_BYTES.has(reason.code);
    let again = false;
    await this.#end(async ({ download, resumable }) => {
      const { complete, mixed } = download;
      await download.close(reason);
      const keep = resumable && !(wrong && (complete ? await hasOtherDigest(download) : mixed));
      if (keep) return;
      await download.discard();
      again ||= wrong && mixed;
    });
    return again;
  }

  async #open(digest: Digest): Promise<GrowingBytes> {
    this.#started ??= this.#start();
    await this.#started;
    const entry = this.#downloads.get(digest);
    if (entry === undefined) throw new Error(`the blob ${digest} was not expected to be read`);
    return entry.download;
  }

  async #start(): Promise<void> {
    const missing = this.#missing();
    const bytes = missing.reduce((sum, { size }) => sum + size, 0);
    await this.#access.partial.prepare(bytes, this.#options.limits?.minFreeBytes);
    for (const { digest, size } of missing) {
      const { path, resumable, release } = this.#access.partial.claim(digest);
      const download = new Download({
        digest,
        size,
        path,
        sources: this.#registry.blobSources(digest),
        retries: this.#access.settings.retries,
        ranges: this.#access.settings.ranges,
        onProgress: (progress) => this.#reports.fetched(digest, progress),
      });
      this.#downloads.set(digest, { download, resumable, release });
      const running = this.#access.slots.run(this.#stop.signal, () => download.run());
      // Whoever reads its bytes hears of it; one that never got a slot is closed with the others.
      this.#running.push(running.catch(() => undefined));
    }
  }

  /** What nobody has made yet. From here on nobody else will: the chain's registration has begun. */
  #missing(): Descriptor[] {
    const there = this.#store.map();
    const chains = chainIDs(this.#planned.config.diffIDs);
    const missing = new Map<Digest, Descriptor>();
    for (const [index, { descriptor }] of this.#planned.layers.entries()) {
      if (descriptor !== undefined && !there.has(chains[index] as ChainID)) missing.set(descriptor.digest, descriptor);
    }
    return [...missing.values()];
  }

  async #end(each: (entry: { download: Download; resumable: boolean }) => Promise<void>): Promise<void> {
    await this.#started?.catch(() => undefined); // its failure was the registration's
    this.#stop.abort(new Error('the pull has ended'));
    for (const entry of this.#downloads.values()) {
      try {
        await each(entry);
      } finally {
        entry.release();
      }
    }
    await Promise.all(this.#running);
  }
}

async function hasOtherDigest({ path, digest }: Download): Promise<boolean> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer);
  return `sha256:${hash.digest('hex')}` !== digest;
}

/** For the next push: these blobs are there already, and so is the manifest. */
async function note(
  store: Store,
  access: RegistryAccess,
  documents: RegistryDocuments,
  { config, layers }: PlannedImage,
  { digest: manifest, mediaType }: Descriptor,
): Promise<void> {
  const blobs = layers.map(({ diffID, descriptor }) => {
    const { digest, size, mediaType: type } = descriptor as Descriptor;
    return { diffID, blob: { digest, size, mediaType: type }, repository: documents.title };
  });
  const pulled = { image: config.id, mediaType, bytes: documents.manifest(manifest) };
  await access.blobs.add({ blobs, manifest: pulled }, new Set([...store.map().values()].map(({ diffID }) => diffID)));
}
