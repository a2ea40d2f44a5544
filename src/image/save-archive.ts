/**
 * The archive that is written: an OCI layout in a tar, with `manifest.json` for Docker. JSON comes first and layers last,
 * so that a reader of the stream knows each layer when it comes and needs to keep nothing.
 */
import type { FileHandle } from 'node:fs/promises';
import type { DiffID } from '../digest.js';
import { writeLayer } from './layer-writer.js';
import {
  blobOf,
  dockerJson,
  fitted,
  indexJson,
  manifestJson,
  OCI_LAYOUT,
  UNKNOWN_BLOB,
  type Blob,
} from './manifest-json.js';
import { blobName } from './oci-index.js';
import { distinctLayers, layerProgress, type SavePlan } from './save-plan.js';
import { TarWriter } from './tar-writer.js';

/** @param file new and empty; stays the caller's */
export async function writeArchive(plan: SavePlan, file: FileHandle): Promise<void> {
  const { images, compression } = plan;
  const unknown = images.map((image) => {
    const layers = image.layers.map(() => UNKNOWN_BLOB);
    const manifest = { ...UNKNOWN_BLOB, size: manifestJson(image.config, layers, compression).length };
    return { ...image, layers, manifest };
  });
  const tar = new TarWriter(file);

  await tar.entry('oci-layout', OCI_LAYOUT);
  const indexPlace = await tar.entry('index.json', Buffer.from(indexJson(unknown)));
  const dockerPlace =
    plan.format === 'docker' ? await tar.entry('manifest.json', Buffer.from(dockerJson(unknown))) : undefined;
  await tar.directory('blobs');
  await tar.directory('blobs/sha256');
  const manifestPlaces = [];
  for (const { config, manifest } of unknown) {
    manifestPlaces.push(await tar.entry(blobName(UNKNOWN_BLOB.digest), fitted('', manifest.size)));
    await tar.entry(blobName(config.id), config.raw);
  }

  const blobs = new Map<DiffID, Blob>();
  for (const layer of distinctLayers(images).values()) {
    const progress = await layerProgress(plan, layer);
    let blob: Blob = UNKNOWN_BLOB;
    const place = await tar.stream(async ({ fd }) => (blob = await writeLayer(layer, fd, compression, progress)).size);
    await tar.fillHeader(place, blobName(blob.digest), blob.size);
    blobs.set(layer.diffID, blob);
  }
  await tar.end();

  const written = images.map((image, i) => {
    const layers = image.layers.map(({ diffID }) => blobs.get(diffID) as Blob);
    const bytes = fitted(manifestJson(image.config, layers, compression), unknown[i]?.manifest.size ?? 0);
    return { ...image, layers, bytes, manifest: blobOf(bytes) };
  });
  for (const [i, place] of manifestPlaces.entries()) {
    const { bytes, manifest } = written[i] as (typeof written)[number];
    await tar.fillContent(place, bytes);
    await tar.fillHeader(place, blobName(manifest.digest), manifest.size);
  }
  await tar.fillContent(indexPlace, Buffer.from(indexJson(written)));
  if (dockerPlace !== undefined) await tar.fillContent(dockerPlace, Buffer.from(dockerJson(written)));
}
