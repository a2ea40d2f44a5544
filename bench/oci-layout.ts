/** An OCI image of one layer, as tools that only take images want it. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, link, mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** Writes the layout `folder`, whose only image has the tag `layer`. The blob is `gzip`, by a hard link where one can be made. */
export async function writeOciLayout(folder: string, plain: string, gzip: string): Promise<void> {
  const blobs = join(folder, 'blobs', 'sha256');
  await mkdir(blobs, { recursive: true });
  const put = async (value: object): Promise<{ digest: string; size: number }> => {
    const text = JSON.stringify(value);
    const hex = createHash('sha256').update(text).digest('hex');
    await writeFile(join(blobs, hex), text);
    return { digest: `sha256:${hex}`, size: text.length };
  };
  const [diffID, blob] = await Promise.all([digestOf(plain), digestOf(gzip)]);
  await link(gzip, join(blobs, blob)).catch(() => copyFile(gzip, join(blobs, blob))); // another file system
  const config = await put({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [`sha256:${diffID}`] },
    history: [],
    config: {},
  });
  const type = 'application/vnd.oci.image';
  const manifest = await put({
    schemaVersion: 2,
    mediaType: `${type}.manifest.v1+json`,
    config: { mediaType: `${type}.config.v1+json`, ...config },
    layers: [{ mediaType: `${type}.layer.v1.tar+gzip`, digest: `sha256:${blob}`, size: (await stat(gzip)).size }],
  });
  const tagged = { 'org.opencontainers.image.ref.name': 'layer' };
  await writeFile(
    join(folder, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ mediaType: `${type}.manifest.v1+json`, ...manifest, annotations: tagged }],
    }),
  );
  await writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}
