/**
 * What is saved, apart from where to: the plan, the JSON of the image, and how a layer is written. Sizes and digests of
 * layers are known only when those are written, but readers want the JSON first: {@link fitted} makes it as long as it
 * can get, so that its place can be kept free.
 */
import { sha256, type DiffID, type Digest } from '../digest.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { fullName, type ImageName } from '../registry/reference.js';
import type { Layer } from '../store/types.js';
import type { ConfigBlob } from './config.js';
import { blobName } from './oci-plan.js';
import type { SaveProgressListener } from './types.js';
import { defined } from '../util/defined.js';

/** One image of what is written. */
export interface SavedImage {
  readonly config: ConfigBlob;
  /** Names that it is saved under; none for one that was asked for by its id. */
  readonly names: readonly ImageName[];
  /** Base first. */
  readonly layers: readonly Layer[];
}

/** What is written, wherever it goes. */
export interface SavePlan {
  /** Each image once, whatever the number of its names. */
  readonly images: readonly SavedImage[];
  readonly format: 'docker' | 'oci';
  readonly compression: Compression;
  /** On disk when it is done. */
  readonly sync: boolean;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: SaveProgressListener | undefined;
}

/** The layers of all images by diff id: one that comes twice is written once. */
export function distinctLayers(images: readonly SavedImage[]): Map<DiffID, Layer> {
  return new Map(images.flatMap(({ layers }) => layers.map((layer) => [layer.diffID, layer])));
}

/** The listener's part for one layer, told as one of the first image that has it; and the signal. */
export async function layerProgress(plan: SavePlan, layer: Layer): Promise<LayerProgress> {
  const { images, signal, onProgress } = plan;
  signal?.throwIfAborted();
  const position = ({ layers }: SavedImage): number => layers.findIndex(({ diffID }) => diffID === layer.diffID);
  const image = images.find((each) => position(each) !== -1);
  if (onProgress === undefined || image === undefined) return { signal, onBytes: undefined };
  const about = {
    image: image.config.id,
    diffID: layer.diffID,
    layer: position(image),
    layers: image.layers.length,
    totalBytes: await layer.tarSize(),
  };
  onProgress({ ...about, bytesWritten: 0 });
  return { signal, onBytes: (bytesWritten) => onProgress({ ...about, bytesWritten }) };
}

export type Compression = 'none' | 'gzip' | 'zstd';

export const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};
export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';

export const OCI_LAYOUT = Buffer.from('{"imageLayoutVersion":"1.0.0"}');

/** Stands for a blob that is not written yet: no digest is longer, no size has more digits. */
export const UNKNOWN_BLOB: Blob = { digest: `sha256:${'0'.repeat(64)}`, size: Number.MAX_SAFE_INTEGER };

export interface Blob {
  readonly digest: Digest;
  readonly size: number;
}

/** @param layers base first */
export function manifestJson(config: ConfigBlob, layers: readonly Blob[], compression: Compression): string {
  const descriptors = layers.map(({ digest, size }): Descriptor => ({
    mediaType: LAYER_TYPES[compression],
    digest,
    size,
  }));
  return imageManifest(config, descriptors);
}

/** @param layers base first */
export function imageManifest(config: ConfigBlob, layers: readonly Descriptor[]): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config.id, size: config.raw.length },
    layers,
  });
}

/** The index of a layout: an entry a name of each image, one for an image without names. */
export function indexJson(
  images: readonly { manifest: Blob; config: ConfigBlob; names: readonly ImageName[] }[],
): string {
  const manifests = images.flatMap(({ manifest, config, names }) => {
    const platform = defined({ platform: config.platform });
    const entry = { mediaType: MANIFEST_TYPE, digest: manifest.digest, size: manifest.size, ...platform };
    return names.length === 0 ? [entry] : names.map((name) => ({ ...entry, annotations: nameAnnotations(name) }));
  });
  return JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests });
}

function nameAnnotations(name: ImageName): Record<string, string> {
  return {
    'io.containerd.image.name': fullName(name),
    'org.opencontainers.image.ref.name': name.tag ?? name.digest ?? 'latest',
  };
}

/** Docker's own `manifest.json`: an entry an image. */
export function dockerJson(
  images: readonly { config: ConfigBlob; names: readonly ImageName[]; layers: readonly Blob[] }[],
): string {
  return JSON.stringify(
    images.map(({ config, names, layers }) => {
      const tags = names.flatMap(({ repository, tag }) => (tag === undefined ? [] : [`${repository}:${tag}`]));
      return {
        Config: blobName(config.id),
        RepoTags: tags.length === 0 ? null : tags,
        Layers: layers.map(({ digest }) => blobName(digest)),
      };
    }),
  );
}

/** Blanks behind JSON mean nothing. */
export function fitted(json: string, length: number): Uint8Array {
  const bytes = Buffer.alloc(length, ' ');
  bytes.write(json);
  return bytes;
}

export function blobOf(bytes: Uint8Array): Blob {
  return { digest: sha256(bytes), size: bytes.length };
}

export interface LayerProgress {
  readonly signal: AbortSignal | undefined;
  /** Told the bytes of the layer's tar so far. */
  readonly onBytes: ((bytes: number) => void) | undefined;
}

/** Appends a layer, byte for byte or compressed, to the file behind `fd`, where that stands. */
export async function writeLayer(
  layer: Layer,
  fd: number,
  compression: Compression,
  { signal, onBytes }: LayerProgress,
): Promise<Blob> {
  const { bytes, diffID, blob } = await layer.exportTo(
    { fd },
    {
      ...defined({ compression: compression === 'none' ? undefined : compression, signal }),
      ...defined({ onProgress: onBytes && (({ bytesRead }: { bytesRead: number }) => onBytes(bytesRead)) }),
    },
  );
  onBytes?.(bytes);
  return blob ?? { digest: diffID, size: bytes };
}
