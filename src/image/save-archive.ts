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
  const { config, name, layers, compression } = plan;
  const unknown = layers.map(() => UNKNOWN_BLOB);
  const manifestLength = manifestJson(config, unknown, compression).length;
  const index = (manifest: Blob): string => indexJson(manifest, config, name);
  const tar = new TarWriter(file);

  await tar.entry('oci-layout', OCI_LAYOUT);
  const indexPlace = await tar.entry('index.json', Buffer.from(index({ ...UNKNOWN_BLOB, size: manifestLength })));
  const dockerPlace =
    plan.format === 'docker'
      ? await tar.entry('manifest.json', Buffer.from(dockerJson(config, unknown, name)))
      : undefined;
  await tar.directory('blobs');
  await tar.directory('blobs/sha256');
  const manifestPlace = await tar.entry(blobName(UNKNOWN_BLOB.digest), fitted('', manifestLength));
  await tar.entry(blobName(config.id), config.raw);

  const blobs = new Map<DiffID, Blob>();
  for (const layer of distinctLayers(layers).values()) {
    const progress = await layerProgress(plan, layer);
    let blob: Blob = UNKNOWN_BLOB;
    const place = await tar.stream(async ({ fd }) => (blob = await writeLayer(layer, fd, compression, progress)).size);
    await tar.fillHeader(place, blobName(blob.digest), blob.size);
    blobs.set(layer.diffID, blob);
  }
  await tar.end();

  const written = layers.map(({ diffID }) => blobs.get(diffID) as Blob);
  const manifest = fitted(manifestJson(config, written, compression), manifestLength);
  await tar.fillContent(manifestPlace, manifest);
  await tar.fillHeader(manifestPlace, blobName(blobOf(manifest).digest), manifestLength);
  await tar.fillContent(indexPlace, Buffer.from(index(blobOf(manifest))));
  if (dockerPlace !== undefined) await tar.fillContent(dockerPlace, Buffer.from(dockerJson(config, written, name)));
}
