/**
 * Pushing: layers are compressed once and remembered by their digests; what the registry has is not sent, what it has in
 * another repository is taken over, everything else goes up in one streaming request. The manifest comes last: the one that the
 * image was pulled by where the registry has all of its blobs, else one of our own.
 */
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Digest } from '../digest.js';
import { invalidArgument } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { locationOf, type ImageName } from '../registry/reference.js';
import { Registry, type Caller } from '../registry/registry.js';
import { releaseAndLog } from '../store/log.js';
import type { Layer, Store } from '../store/types.js';
import { mapConcurrent } from '../util/concurrent.js';
import { defined } from '../util/defined.js';
import { openNamelessFile } from '../util/nameless-file.js';
import { quote } from '../util/quote.js';
import { BlobReports } from './blob-progress.js';
import { topChain, type ConfigBlob } from './config.js';
import { attempt } from './errors.js';
import type { LayerBlob, PulledManifest } from './layer-blobs.js';
import { blobOf, imageManifest, LAYER_TYPES, MANIFEST_TYPE } from './save-plan.js';
import type { RegistryAccess } from './pull.js';
import { layersOf } from './save.js';
import type { BlobProgress, PushOptions } from './types.js';

type PushedBlob = Omit<LayerBlob, 'repositories'>;

/** The manifest's descriptor. @param target with a tag */
export async function pushImage(
  store: Store,
  access: RegistryAccess,
  config: ConfigBlob,
  target: ImageName,
  options: PushOptions,
): Promise<Descriptor> {
  const { compression, signal } = options;
  if (compression !== undefined && compression !== 'gzip' && compression !== 'zstd')
    throw invalidArgument(`${quote(String(compression))} is not a compression for a registry: "gzip" or "zstd"`);
  signal?.throwIfAborted();
  const chain = topChain(config);
  // A handle of our own: the image may be removed while it is sent.
  const top = chain === undefined ? undefined : await store.get(chain);
  try {
    await using registry = await Registry.open(locationOf(target), access.settings, 'push');
    const pulled = compression === undefined ? await access.blobs.manifestOf(config.id) : undefined;
    const push = new Push(store, access, registry, pulled, options);
    const layers = await push.layers(layersOf(top));
    await push.config(config);
    const unchanged = pulled !== undefined && pulled.layers.every((digest, index) => digest === layers[index]?.digest);
    const manifest = Buffer.from(unchanged ? pulled.text : imageManifest(config, layers));
    const mediaType = unchanged ? pulled.mediaType : MANIFEST_TYPE;
    await registry.putManifest(target.tag ?? 'latest', mediaType, manifest, push.caller);
    return { mediaType, ...blobOf(manifest) };
  } finally {
    if (top !== undefined) await releaseAndLog(store, top);
  }
}

class Push {
  readonly caller: Caller;
  readonly #store: Store;
  readonly #access: RegistryAccess;
  readonly #registry: Registry;
  /** Digests of the layers that the image was pulled with. */
  readonly #pulled: ReadonlySet<Digest>;
  readonly #options: PushOptions;
  readonly #reports: BlobReports;
  readonly #repository: string;

  constructor(
    store: Store,
    access: RegistryAccess,
    registry: Registry,
    pulled: PulledManifest | undefined,
    options: PushOptions,
  ) {
    this.#store = store;
    this.#access = access;
    this.#registry = registry;
    this.#pulled = new Set(pulled?.layers);
    this.#options = options;
    this.#reports = new BlobReports(options.onProgress);
    this.#repository = `${registry.host}/${registry.path}`;
    this.caller = { signal: options.signal, onRetry: (pause) => this.#reports.pause(pause) };
  }

  /** Descriptors of all layers, base first, each of which the registry has. A layer that comes twice is sent once. */
  async layers(layers: readonly Layer[]): Promise<Descriptor[]> {
    const distinct = [...new Map(layers.map((layer) => [layer.diffID, layer])).values()];
    const never = new AbortController().signal;
    const { slots, settings, blobs } = this.#access;
    const sent = await mapConcurrent(distinct, settings.concurrency, (layer) =>
      slots.run(this.#options.signal ?? never, () => this.#layer(layer)),
    );
    const byDiffID = new Map(distinct.map(({ diffID }, index) => [diffID, sent[index] as PushedBlob]));
    if (!this.#store.readOnly) {
      const found = [...byDiffID].map(([diffID, blob]) => ({ diffID, blob, repository: this.#repository }));
      const known = new Set([...this.#store.map().values()].map(({ diffID }) => diffID));
      await blobs.add({ blobs: found, manifest: undefined }, known).catch(() => undefined); // without the note the next push compresses again
    }
    return layers.map(({ diffID }) => byDiffID.get(diffID) as PushedBlob);
  }

  async config({ id, raw }: ConfigBlob): Promise<void> {
    if ((await this.#registry.blobSize(id, this.caller)) === undefined)
      await this.#registry.uploadSmall(id, raw, this.caller);
  }

  async #layer(layer: Layer): Promise<PushedBlob> {
    const known = await this.#known(layer);
    const [likeliest] = known;
    if (likeliest !== undefined) this.#reports.begin(likeliest.digest, likeliest.size);
    for (const blob of known) {
      if ((await this.#registry.blobSize(blob.digest, this.caller)) === blob.size) return this.#done(blob, 'exists');
    }
    for (const blob of known) {
      for (const path of this.#siblings(blob)) {
        if (await this.#registry.mount(blob.digest, path, this.caller)) return this.#done(blob, 'mounted');
      }
    }
    return this.#compressAndSend(layer);
  }

  async #compressAndSend(layer: Layer): Promise<PushedBlob> {
    const { compression = 'gzip', signal } = this.#options;
    const directory = this.#store.readOnly ? tmpdir() : join(this.#store.root, 'layerstore');
    const file = await attempt('compress a layer', () => openNamelessFile(directory, 'push'));
    try {
      const target = { compression, ...defined({ signal }) };
      const exported = await layer.exportTo({ fd: file.fd }, target);
      const { digest, size } = exported.blob ?? { digest: exported.diffID, size: exported.bytes };
      const blob = { digest, size, mediaType: LAYER_TYPES[compression] };
      this.#reports.begin(digest, size);
      if ((await this.#registry.blobSize(digest, this.caller)) === size) return this.#done(blob, 'exists');
      const open = (offset: number): AsyncIterable<Uint8Array> => this.#read(file, digest, offset);
      await this.#registry.upload({ digest, size, open }, this.caller);
      return this.#done(blob, 'done');
    } finally {
      await file.close();
    }
  }

  async *#read(file: FileHandle, digest: Digest, offset: number): AsyncGenerator<Uint8Array> {
    const stream = file.createReadStream({ start: offset, highWaterMark: 256 * 1024, autoClose: false });
    let sent = offset;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      yield chunk;
      sent += chunk.length;
      this.#reports.sent(digest, 'uploading', sent);
    }
  }

  /** What goes into the manifest: nothing else of what is known. */
  #done({ mediaType, digest, size }: PushedBlob, state: BlobProgress['state']): PushedBlob {
    this.#reports.sent(digest, state, state === 'done' ? size : 0);
    return { mediaType, digest, size };
  }

  /** What is known of the layer's compressed forms, in OCI's media types, the pulled one first; only of the compression that was asked for. */
  async #known({ diffID, descriptor }: Layer): Promise<LayerBlob[]> {
    const noted = await this.#access.blobs.of(diffID);
    const own = descriptor === undefined ? [] : [{ ...descriptor, repositories: [] }];
    const blobs = [...noted, ...own.filter(({ digest }) => noted.every((blob) => blob.digest !== digest))];
    const { compression } = this.#options;
    blobs.sort((a, b) => Number(this.#pulled.has(b.digest)) - Number(this.#pulled.has(a.digest)));
    return blobs.flatMap(({ digest, size, mediaType, repositories }) => {
      const type = ociType(mediaType);
      if (type === undefined || (compression !== undefined && type !== LAYER_TYPES[compression])) return [];
      return [{ digest, size, mediaType: type, repositories }];
    });
  }

  /** Other repositories of this registry that have the blob. */
  #siblings({ repositories }: LayerBlob): string[] {
    const host = `${this.#registry.host}/`;
    return repositories
      .filter((name) => name.startsWith(host) && name !== this.#repository)
      .map((name) => name.slice(host.length));
  }
}

function ociType(mediaType: string): string | undefined {
  if (/[.+]zstd$/.test(mediaType)) return LAYER_TYPES.zstd;
  if (/[.+]gzip$/.test(mediaType)) return LAYER_TYPES.gzip;
  return /\.tar$/.test(mediaType) ? LAYER_TYPES.none : undefined;
}
