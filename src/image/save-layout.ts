/** An OCI layout as a directory: https://github.com/opencontainers/image-spec/blob/main/image-layout.md. */
import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DiffID } from '../digest.js';
import { attempt } from './errors.js';
import { writeLayer } from './layer-writer.js';
import { blobOf, indexJson, manifestJson, OCI_LAYOUT, type Blob } from './manifest-json.js';
import { blobName } from './oci-index.js';
import { distinctLayers, type SavePlan } from './save-plan.js';

/** @param directory empty */
export async function writeLayout(
  { config, name, layers, compression, signal }: SavePlan,
  directory: string,
): Promise<void> {
  const put = (file: string, bytes: Uint8Array): Promise<void> =>
    attempt('save the image', () => writeFile(join(directory, file), bytes));
  await attempt('save the image', () => mkdir(join(directory, 'blobs', 'sha256'), { recursive: true }));
  const blobs = new Map<DiffID, Blob>();
  for (const layer of distinctLayers(layers).values()) {
    signal?.throwIfAborted();
    const temporary = join(directory, 'blobs', 'sha256', 'layer.tmp');
    const file = await attempt('save the image', () => open(temporary, 'wx'));
    try {
      blobs.set(layer.diffID, await writeLayer(layer, file, compression, signal));
    } finally {
      await file.close();
    }
    await attempt('save the image', () =>
      rename(temporary, join(directory, blobName((blobs.get(layer.diffID) as Blob).digest))),
    );
  }
  await put(blobName(config.id), config.raw);
  const manifest = Buffer.from(
    manifestJson(
      config,
      layers.map(({ diffID }) => blobs.get(diffID) as Blob),
      compression,
    ),
  );
  await put(blobName(blobOf(manifest).digest), manifest);
  await put('index.json', Buffer.from(indexJson(blobOf(manifest), config, name)));
  await put('oci-layout', OCI_LAYOUT);
}
