/**
 * The archive that is written: an OCI layout in a tar, with `manifest.json` for Docker. JSON comes first and layers last,
 * so that a reader of the stream knows each layer when it comes and needs to keep nothing.
 */
import type { FileHandle } from 'node:fs/promises';
import type { DiffID } from '../digest.js';
import { LayerStoreError } from '../errors.js';
import { BLOCK } from '../tar/header.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../util/throttle.js';
import { attempt } from './errors.js';
import { blobName } from './oci-plan.js';
import {
  blobOf,
  distinctLayers,
  dockerJson,
  fitted,
  indexJson,
  layerProgress,
  manifestJson,
  OCI_LAYOUT,
  UNKNOWN_BLOB,
  writeLayer,
  type Blob,
  type SavePlan,
} from './save-plan.js';

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

/**
 * The archive of layers as they are, front to back: their sizes stand in their records and their digests are their diff
 * ids, so nothing has to be filled in afterwards, and a pipe gets it without a copy on disk.
 */
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
    const due = atMostEvery(PROGRESS_INTERVAL);
    for await (const chunk of (await layer.tarStream()) as AsyncIterable<Uint8Array>) {
      yield chunk;
      written += chunk.length;
      if (due()) onBytes?.(written);
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

interface EntryPlace {
  /** Of the header. */
  readonly offset: number;
}

/**
 * A tar of blobs, written front to back into a file. What is known only later (the size of a blob, a digest in a name) is
 * left open and filled in afterwards in its place. Owner 0:0, times 0: the same image, the same bytes. Headers come from
 * tar-stream; contents do not pass through it, since the engine writes layers to a descriptor by itself
 * (docs/decisions/0012-tar-stream-for-archives.md). One writer, one task: calls must not overlap.
 */
class TarWriter {
  readonly #file: FileHandle;
  #position = 0;

  /** @param file new, open for writing and not for appending; stays the caller's */
  constructor(file: FileHandle) {
    this.#file = file;
  }

  async directory(name: string): Promise<void> {
    await this.#append(await directoryHeader(name));
  }

  async entry(name: string, content: Uint8Array): Promise<EntryPlace> {
    const place = { offset: this.#position };
    await this.#append(await fileHeader(name, content.length));
    await this.#append(content);
    await this.#pad(content.length);
    return place;
  }

  /** An entry of unknown size and name: `write` appends its content to the file at its current position. */
  async stream(write: (file: FileHandle) => Promise<number>): Promise<EntryPlace & { size: number }> {
    const place = { offset: this.#position };
    await this.#append(new Uint8Array(BLOCK));
    const size = await write(this.#file);
    this.#position += size;
    await this.#pad(size);
    return { ...place, size };
  }

  async fillHeader({ offset }: EntryPlace, name: string, size: number): Promise<void> {
    await this.#put(await fileHeader(name, size), offset);
  }

  /** @param content as long as what was written there */
  async fillContent({ offset }: EntryPlace, content: Uint8Array): Promise<void> {
    await this.#put(content, offset + BLOCK);
  }

  async end(): Promise<void> {
    await this.#append(END_OF_ARCHIVE);
  }

  async #pad(size: number): Promise<void> {
    await this.#append(padding(size));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await writeAll(this.#file, bytes, null);
    this.#position += bytes.length;
  }

  async #put(bytes: Uint8Array, offset: number): Promise<void> {
    await writeAll(this.#file, bytes, offset);
  }
}

/** @param position null: where the file's own offset stands, which moves on */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number | null): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const at = position === null ? null : position + done;
    const { bytesWritten } = await attempt('write the image', () => file.write(bytes, done, bytes.length - done, at));
    done += bytesWritten;
  }
}

/** The two blocks that end an archive. */
const END_OF_ARCHIVE: Uint8Array = new Uint8Array(2 * BLOCK);

function directoryHeader(name: string): Promise<Uint8Array> {
  return header({ name: `${name}/`, type: 'directory', mode: 0o755 });
}

function fileHeader(name: string, size: number): Promise<Uint8Array> {
  return header({ name, size, mode: 0o644 });
}

/** What brings an entry's content to a whole number of blocks. */
function padding(size: number): Uint8Array {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

/** One block, made by tar-stream: what a pack gives before the content of its entry. */
async function header(fields: { name: string; size?: number; type?: 'directory'; mode: number }): Promise<Uint8Array> {
  const { pack } = await import('tar-stream'); // loaded by the first save only
  const tar = pack();
  tar.entry({ ...fields, uid: 0, gid: 0, mtime: new Date(0) }).on('error', () => undefined); // it gets no content
  for await (const block of tar as AsyncIterable<Uint8Array>) return block; // leaving the loop destroys the pack
  throw new Error('tar-stream gave no header');
}
