/** Saving images: as a tar in a new file or down a stream, or as an OCI layout directory. */
import { mkdir, mkdtemp, readdir, realpath, rename, rm, rmdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { invalidArgument, systemError } from '../errors.js';
import { releaseAndLog } from '../store/log.js';
import type { Layer, Store } from '../store/types.js';
import { syncDirectory } from '../util/atomic-file.js';
import { defined } from '../util/defined.js';
import { openNamelessFile } from '../util/nameless-file.js';
import { quote } from '../util/quote.js';
import { writeChunks, writeTarget } from '../util/write-target.js';
import { topChain, type ConfigBlob } from './config.js';
import { attempt, hasErrno } from './errors.js';
import { plainArchive } from './save-archive.js';
import type { ImageName } from '../registry/reference.js';
import { writeArchive } from './save-archive.js';
import { writeLayout } from './save-layout.js';
import type { SavedImage, SavePlan } from './save-plan.js';
import type { SaveOptions } from './types.js';

/** @param images each once, with the names that it is saved under */
export async function saveImages(
  store: Store,
  images: readonly { config: ConfigBlob; names: readonly ImageName[] }[],
  target: { path: string } | Writable,
  options: SaveOptions,
): Promise<void> {
  const { format = 'docker', compression = 'none', signal, onProgress } = options;
  if (format !== 'docker' && format !== 'oci')
    throw invalidArgument(`${quote(String(format))} is not a format of images: "docker" or "oci"`);
  if (!['none', 'gzip', 'zstd'].includes(compression))
    throw invalidArgument(`${quote(String(compression))} is not a compression: "none", "gzip" or "zstd"`);
  signal?.throwIfAborted();
  // Handles of our own: an image may be removed while it is written.
  const handles: Layer[] = [];
  try {
    const saved: SavedImage[] = [];
    for (const { config, names } of images) {
      const chain = topChain(config);
      const top = chain === undefined ? undefined : await store.get(chain);
      if (top !== undefined) handles.push(top);
      saved.push({ config, names, layers: layersOf(top) });
    }
    const sync = store.durability === 'strict';
    const plan: SavePlan = { images: saved, format, compression, sync, signal, onProgress };
    const spoolDirectory = store.readOnly ? tmpdir() : join(store.root, 'layerstore');
    if (!('path' in target)) await saveToStream(plan, target, spoolDirectory);
    else if (await isLayoutTarget(target.path, format)) await saveToDirectory(plan, resolve(target.path));
    else await saveToPath(plan, target.path, spoolDirectory);
  } finally {
    for (const top of handles) await releaseAndLog(store, top);
  }
}

/** The layers down from a handle, base first. */
export function layersOf(top: Layer | undefined): Layer[] {
  const layers: Layer[] = [];
  for (let layer = top; layer !== undefined; layer = layer.parent) layers.unshift(layer);
  return layers;
}

/** A path that ends in `/`, and an empty directory, take a layout; any other directory takes nothing. */
async function isLayoutTarget(path: string, format: 'docker' | 'oci'): Promise<boolean> {
  if (typeof path !== 'string' || path === '') throw invalidArgument('an image is saved to { path } or to a Writable');
  let directory = path.endsWith('/');
  try {
    directory = (await stat(path)).isDirectory() || directory;
    if (directory && (await readdir(path)).length > 0)
      throw invalidArgument(`${quote(path)} is a directory with something in it; give a new path`);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw systemError(error, 'save the image');
  }
  if (directory && format === 'docker')
    throw invalidArgument(
      `${quote(path)} is a directory; the format "docker" is one file (the format "oci" can be a directory)`,
    );
  return directory;
}

async function saveToPath(plan: SavePlan, path: string, spoolDirectory: string): Promise<void> {
  await attempt('save the image', () =>
    writeTarget(path, plan.sync, async ({ fd, file }) => {
      if (file !== undefined) await writeArchive(plan, file);
      else await forStream(plan, spoolDirectory, (chunks) => writeChunks(fd, chunks, plan.signal));
    }),
  );
}

/** The stream is ended after the archive, or destroyed where it did not get all. */
async function saveToStream(plan: SavePlan, target: Writable, spoolDirectory: string): Promise<void> {
  const options = defined({ signal: plan.signal });
  await forStream(plan, spoolDirectory, (chunks) => pipeline(chunks, target, options));
}

/**
 * The archive front to back. The JSON comes first and names the layers' digests and sizes: of plain layers these are
 * known; compressed ones are made whole in a nameless file first.
 */
async function forStream(
  plan: SavePlan,
  spoolDirectory: string,
  send: (chunks: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  if (plan.compression === 'none') return send(plainArchive(plan));
  const file = await attempt('save the image', () => openNamelessFile(spoolDirectory, 'save'));
  try {
    await writeArchive(plan, file);
    await send(file.createReadStream({ start: 0, highWaterMark: 1024 * 1024, autoClose: false }));
  } catch (error) {
    plan.signal?.throwIfAborted();
    throw error;
  } finally {
    await file.close();
  }
}

async function saveToDirectory(plan: SavePlan, wanted: string): Promise<void> {
  // A link to an empty directory stays; the directory is what is replaced.
  const path = await realpath(wanted).catch(() => wanted);
  const temporary = await attempt('save the image', async () => {
    await mkdir(dirname(path), { recursive: true });
    return mkdtemp(`${path}.tmp-`);
  });
  try {
    await writeLayout(plan, temporary);
    await attempt('save the image', async () => {
      await rmdir(path).catch((error: unknown) => {
        // Usually nothing is there; what cannot be removed makes the rename fail, which says why.
        if (!hasErrno(error, 'ENOENT')) throw error;
      });
      await rename(temporary, path);
      if (plan.sync) await syncDirectory(dirname(path));
    });
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}
