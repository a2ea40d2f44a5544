/**
 * The JSON of an image that is being written. Sizes and digests of layers are known only when those are written, but
 * readers want the JSON first: {@link fitted} makes it as long as it can get, so that its place can be kept free.
 */
import type { Digest } from '../digest.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { sha256, type ConfigBlob } from './config.js';
import { blobName } from './oci-index.js';
import { fullName, type ImageName } from '../registry/reference.js';

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
    const platform = config.platform === undefined ? {} : { platform: config.platform };
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
