/**
 * The JSON of an image that is being written. Sizes and digests of layers are known only when those are written, but
 * readers want the JSON first: {@link fitted} makes it as long as it can get, so that its place can be kept free.
 */
import type { Digest } from '../digest.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { sha256, type ConfigBlob } from './config.js';
import { blobName } from './oci-index.js';
import { fullName, type ImageName } from '../registry/reference.js';
import type { SavePlan } from './save-plan.js';

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

export interface NamedFile {
  readonly name: string;
  readonly content: Uint8Array;
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

export function indexJson(manifest: Blob, config: ConfigBlob, name: ImageName | undefined): string {
  const annotations =
    name === undefined
      ? {}
      : {
          annotations: {
            'io.containerd.image.name': fullName(name),
            'org.opencontainers.image.ref.name': name.tag ?? name.digest ?? 'latest',
          },
        };
  const platform = config.platform === undefined ? {} : { platform: config.platform };
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: INDEX_TYPE,
    manifests: [
      { mediaType: MANIFEST_TYPE, digest: manifest.digest, size: manifest.size, ...platform, ...annotations },
    ],
  });
}

/** Docker's own `manifest.json`. */
export function dockerJson(config: ConfigBlob, layers: readonly Blob[], name: ImageName | undefined): string {
  const tags = name?.tag === undefined ? null : [`${name.repository}:${name.tag}`];
  return JSON.stringify([
    { Config: blobName(config.id), RepoTags: tags, Layers: layers.map(({ digest }) => blobName(digest)) },
  ]);
}

/** The files beside the layers, in their order: at the top of the archive, and below `blobs`. */
export function archiveJson(
  { config, name, format, compression }: Pick<SavePlan, 'config' | 'name' | 'format' | 'compression'>,
  layers: readonly Blob[],
): { front: NamedFile[]; blobs: NamedFile[] } {
  const manifest = Buffer.from(manifestJson(config, layers, compression));
  const front = [
    { name: 'oci-layout', content: OCI_LAYOUT },
    { name: 'index.json', content: Buffer.from(indexJson(blobOf(manifest), config, name)) },
  ];
  if (format === 'docker')
    front.push({ name: 'manifest.json', content: Buffer.from(dockerJson(config, layers, name)) });
  return {
    front,
    blobs: [
      { name: blobName(blobOf(manifest).digest), content: manifest },
      { name: blobName(config.id), content: config.raw },
    ],
  };
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
