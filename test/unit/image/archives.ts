/** Image archives for the tests: built from lists of files, so that a test can break any of them. */
import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { pack, type Header } from 'tar-stream';

type HeaderOptions = Partial<Header> & { name: string };
export type Entry = [name: string, content: Uint8Array | string] | [header: HeaderOptions];

export function sha256(bytes: Uint8Array | string): `sha256:${string}` {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function hex(bytes: Uint8Array | string): string {
  return sha256(bytes).slice(7);
}

export async function tar(entries: readonly Entry[]): Promise<Buffer> {
  const archive = pack();
  for (const [header, content] of entries) {
    if (typeof header === 'string') archive.entry({ name: header }, Buffer.from(content as Uint8Array));
    else archive.entry(header);
  }
  archive.finalize();
  return buffer(archive);
}

/** Three layers' tars; the same each time. */
export async function sampleLayers(): Promise<Buffer[]> {
  return Promise.all([
    tar([[{ name: 'etc/', type: 'directory' }], ['etc/os-release', 'ID=test\n']]),
    tar([['etc/hosts', `127.0.0.1 localhost\n${'#'.repeat(300_000)}`]]),
    tar([['etc/.wh.hosts', '']]),
  ]);
}

export function sampleConfig(layers: readonly Uint8Array[], extra: object = {}): string {
  const config = {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: layers.map(sha256) },
  };
  return JSON.stringify({ ...config, ...extra });
}

export interface OciParts {
  /** Name -> content, in the order in which an archive carries them. */
  files: Map<string, Uint8Array | string>;
  config: string;
  manifest: string;
  blobs: Uint8Array[];
}

export function descriptor(bytes: Uint8Array | string, mediaType: string, extra: object = {}): object {
  return { mediaType, digest: sha256(bytes), size: Buffer.byteLength(bytes), ...extra };
}

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const INDEX = 'application/vnd.oci.image.index.v1+json';
export const CONFIG = 'application/vnd.oci.image.config.v1+json';
export const LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** An OCI layout of the given layers, blobs first as most writers put them. */
export function oci(
  layers: readonly Uint8Array[],
  options: { gzip?: boolean; name?: string; config?: string } = {},
): OciParts {
  const { gzip = false, name = 'docker.io/library/sample:1' } = options;
  const config = options.config ?? sampleConfig(layers);
  const blobs = layers.map((layer) => (gzip ? gzipSync(layer) : Buffer.from(layer)));
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: descriptor(config, CONFIG),
    layers: blobs.map((blob) => descriptor(blob, gzip ? `${LAYER}+gzip` : LAYER)),
  });
  const annotations = name === '' ? {} : { annotations: { 'io.containerd.image.name': name } };
  const files = new Map<string, Uint8Array | string>();
  for (const blob of blobs) files.set(`blobs/sha256/${hex(blob)}`, blob);
  files.set(`blobs/sha256/${hex(config)}`, config);
  files.set(`blobs/sha256/${hex(manifest)}`, manifest);
  files.set(
    'index.json',
    JSON.stringify({ schemaVersion: 2, manifests: [descriptor(manifest, MANIFEST, annotations)] }),
  );
  files.set('oci-layout', '{"imageLayoutVersion":"1.0.0"}');
  return { files, config, manifest, blobs };
}

/** `docker save` as versions 1.10 to 24 wrote it: a folder a layer, manifest.json last. */
export function dockerFolders(
  layers: readonly Uint8Array[],
  tags: readonly string[] | null = ['sample:1'],
): Map<string, Uint8Array | string> {
  const config = sampleConfig(layers);
  const files = new Map<string, Uint8Array | string>();
  const names = layers.map((layer) => `${hex(`v1 ${hex(layer)}`)}/layer.tar`);
  layers.forEach((layer, index) => {
    files.set((names[index] as string).replace('layer.tar', 'VERSION'), '1.0');
    files.set((names[index] as string).replace('layer.tar', 'json'), '{}');
    files.set(names[index] as string, layer);
  });
  files.set(`${hex(config)}.json`, config);
  files.set('manifest.json', JSON.stringify([{ Config: `${hex(config)}.json`, RepoTags: tags, Layers: names }]));
  return files;
}

/**
 * `docker save` as version 25 and later write it: files in byte order, an OCI layout whose index has an entry for each
 * name, and `manifest.json` with an entry for each image. Without any name Go writes the empty list as null.
 */
export function docker25(
  images: readonly { layers: readonly Uint8Array[]; tags: readonly string[] }[],
): Map<string, Uint8Array | string> {
  const files = new Map<string, Uint8Array | string>();
  const manifests: object[] = [];
  const docker: object[] = [];
  for (const { layers, tags } of images) {
    const config = sampleConfig(layers);
    const descriptors = layers.map((layer) => descriptor(layer, LAYER));
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: descriptor(config, CONFIG),
      layers: descriptors,
    });
    for (const blob of [config, manifest, ...layers]) files.set(`blobs/sha256/${hex(blob)}`, blob);
    for (const tag of tags) {
      const annotations = {
        'io.containerd.image.name': `docker.io/library/${tag}`,
        'org.opencontainers.image.ref.name': tag.split(':')[1],
      };
      manifests.push(descriptor(manifest, MANIFEST, { annotations }));
    }
    docker.push({
      Config: `blobs/sha256/${hex(config)}`,
      RepoTags: tags.length === 0 ? null : tags,
      Layers: layers.map((layer) => `blobs/sha256/${hex(layer)}`),
      LayerSources: Object.fromEntries(layers.map((layer, index) => [sha256(layer), descriptors[index]])),
    });
  }
  const index = { schemaVersion: 2, mediaType: INDEX, manifests: manifests.length === 0 ? null : manifests };
  files.set('index.json', JSON.stringify(index));
  files.set('manifest.json', `${JSON.stringify(docker)}\n`);
  files.set('oci-layout', '{"imageLayoutVersion": "1.0.0"}');
  return new Map([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The tar of a small root file system, with what makes each of them look hostile. */
export async function rootFileSystem(): Promise<Buffer> {
  return tar([
    [{ name: 'bin', type: 'symlink', linkname: 'usr/bin' }],
    [{ name: 'dev/', type: 'directory' }],
    [{ name: 'dev/fd', type: 'symlink', linkname: '/proc/self/fd' }],
    [{ name: 'dev/null', type: 'character-device', devmajor: 1, devminor: 3 }],
    [{ name: 'usr/bin/', type: 'directory' }],
    ['usr/bin/sh', 'x'.repeat(400_000)],
    [{ name: 'usr/bin/awk', type: 'symlink', linkname: '/etc/alternatives/awk' }],
  ]);
}

export function entries(files: ReadonlyMap<string, Uint8Array | string>): Entry[] {
  return [...files].map(([name, content]): Entry => [name, content]);
}
