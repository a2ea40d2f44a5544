/** An OCI layout as a directory: https://github.com/opencontainers/image-spec/blob/main/image-layout.md. */
import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiffID } from '../digest.js';
import { syncDirectory } from '../util/atomic-file.js';
import { attempt } from './errors.js';
import { writeLayer } from './save-plan.js';
import { blobOf, indexJson, manifestJson, OCI_LAYOUT, type Blob } from './save-plan.js';
import { blobName } from './oci-plan.js';
import { distinctLayers, layerProgress, type SavePlan } from './save-plan.js';

/** @param directory empty */
export async function writeLayout(plan: SavePlan, directory: string): Promise<void> {
  const { images, compression, sync } = plan;
  const blobsDirectory = join(directory, 'blobs', 'sha256');
  const put = (file: string, bytes: Uint8Array): Promise<void> =>
    attempt('save the image', () => writeFile(join(directory, file), bytes, { flush: sync }));
  await attempt('save the image', () => mkdir(blobsDirectory, { recursive: true }));
  const blobs = new Map<DiffID, Blob>();
  for (const layer of distinctLayers(images).values()) {
    const progress = await layerProgress(plan, layer);
    const temporary = join(blobsDirectory, 'layer.tmp');
    const file = await attempt('save the image', () => open(temporary, 'wx'));
    let blob: Blob;
    try {
      blob = await writeLayer(layer, file.fd, compression, progress);
      if (sync) await attempt('save the image', () => file.sync());
    } finally {
      await file.close();
    }
    blobs.set(layer.diffID, blob);
    await attempt('save the image', () => rename(temporary, join(directory, blobName(blob.digest))));
  }
  const written = [];
  for (const image of images) {
    const { config, layers } = image;
    await put(blobName(config.id), config.raw);
    const described = layers.map(({ diffID }) => blobs.get(diffID) as Blob);
    const bytes = Buffer.from(manifestJson(config, described, compression));
    const manifest = blobOf(bytes);
    await put(blobName(manifest.digest), bytes);
    written.push({ ...image, manifest });
  }
  await put('index.json', Buffer.from(indexJson(written)));
  await put('oci-layout', OCI_LAYOUT);
  if (!sync) return;
  for (const path of [blobsDirectory, join(directory, 'blobs'), directory])
    await attempt('save the image', () => syncDirectory(path));
}
