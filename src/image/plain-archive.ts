/**
 * The archive of layers as they are, front to back: their sizes stand in their records and their digests are their diff
 * ids, so nothing has to be filled in afterwards, and a pipe gets it without a copy on disk.
 */
import type { DiffID } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import { blobOf, dockerJson, indexJson, manifestJson, OCI_LAYOUT, type Blob } from './manifest-json.js';
import { blobName } from './oci-index.js';
import { distinctLayers, layerProgress, type SavePlan } from './save-plan.js';
import { directoryHeader, END_OF_ARCHIVE, fileHeader, padding } from './tar-writer.js';

/** At most 10 reports a second. */
const REPORT_INTERVAL = 100;

export async function* plainArchive(plan: SavePlan): AsyncGenerator<Uint8Array> {
  const distinct = distinctLayers(plan.images);
  const blobs = new Map<DiffID, Blob>();
  for (const [diffID, layer] of distinct) blobs.set(diffID, { digest: diffID, size: await layer.tarSize() });
  const json = archiveJson(plan, blobs);
  for (const { name, content } of json.front) yield* smallFile(name, content);
  yield await directoryHeader('blobs');
  yield await directoryHeader('blobs/sha256');
  for (const { name, content } of json.blobs) yield* smallFile(name, content);
  for (const [diffID, layer] of distinct) {
    const { onBytes } = await layerProgress(plan, layer);
    const { size } = blobs.get(diffID) as Blob;
    yield await fileHeader(blobName(diffID), size);
    let written = 0;
    let reported = performance.now();
    for await (const chunk of (await layer.tarStream()) as AsyncIterable<Uint8Array>) {
      yield chunk;
      written += chunk.length;
      if (onBytes === undefined || performance.now() - reported < REPORT_INTERVAL) continue;
      reported = performance.now();
      onBytes(written);
    }
    if (written !== size) {
      throw new LayerStoreError(
        'ERR_LAYER_CORRUPT',
        `the record of layer ${layer.chainID} tells of a tar of ${size} bytes, but it gives ${written}: repair the layer from the original tar`,
      );
    }
    yield padding(size);
    onBytes?.(written);
  }
  yield END_OF_ARCHIVE;
}

async function* smallFile(name: string, content: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await fileHeader(name, content.length);
  yield content;
  yield padding(content.length);
}

interface NamedFile {
  readonly name: string;
  readonly content: Uint8Array;
}

/** The files beside the layers, in their order: at the top of the archive, and below `blobs`. */
function archiveJson(
  { images, format, compression }: SavePlan,
  written: ReadonlyMap<DiffID, Blob>,
): { front: NamedFile[]; blobs: NamedFile[] } {
  const described = images.map(({ config, names, layers }) => {
    const blobs = layers.map(({ diffID }) => written.get(diffID) as Blob);
    const bytes = Buffer.from(manifestJson(config, blobs, compression));
    return { config, names, layers: blobs, bytes, manifest: blobOf(bytes) };
  });
  const front = [
    { name: 'oci-layout', content: OCI_LAYOUT },
    { name: 'index.json', content: Buffer.from(indexJson(described)) },
  ];
  if (format === 'docker') front.push({ name: 'manifest.json', content: Buffer.from(dockerJson(described)) });
  const blobs = described.flatMap(({ config, bytes, manifest }) => [
    { name: blobName(manifest.digest), content: bytes },
    { name: blobName(config.id), content: config.raw },
  ]);
  return { front, blobs };
}
