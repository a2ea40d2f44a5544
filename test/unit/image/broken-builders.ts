/** Archives with one thing changed. */
import { descriptor, entries, hex, MANIFEST, oci, sampleConfig, sampleLayers, tar, type Entry } from './archives.js';

export const sampleLayerTars = await sampleLayers();

type Files = Map<string, Uint8Array | string>;

/** A sample layout with a change made to its files. */
export function changed(
  edit: (files: Files) => void,
  build: () => Files = () => oci(sampleLayerTars).files,
): () => Promise<Buffer> {
  return async () => {
    const files = build();
    edit(files);
    return tar(entries(files));
  };
}

/** A layout whose manifest was changed; every digest above it is right again. */
export function withManifest(edit: (manifest: Record<string, unknown>) => void): () => Promise<Buffer> {
  return async () => {
    const { files, manifest } = oci(sampleLayerTars);
    const document = JSON.parse(manifest) as Record<string, unknown>;
    edit(document);
    const text = JSON.stringify(document);
    files.set(`blobs/sha256/${hex(text)}`, text);
    files.set('index.json', JSON.stringify({ schemaVersion: 2, manifests: [descriptor(text, MANIFEST)] }));
    return tar(entries(files));
  };
}

export function dockerWith(manifest: (layerNames: string[]) => unknown, extra: Entry[] = []): () => Promise<Buffer> {
  return async () => {
    const names = sampleLayerTars.map((_, index) => `${index}.tar`);
    return tar([
      ...sampleLayerTars.map((layer, index): Entry => [`${index}.tar`, layer]),
      ['config.json', sampleConfig(sampleLayerTars)],
      ...extra,
      ['manifest.json', JSON.stringify(manifest(names))],
    ]);
  };
}
