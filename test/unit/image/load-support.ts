/** Loading an archive in every way a caller can. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { openImages, type Image, type LoadOptions } from '../../../src/image/index.js';
import type { Store } from '../../../src/store/types.js';

export type Way = 'path' | 'stream' | 'small chunks' | 'gzip path' | 'gzip stream';
export const WAYS: readonly Way[] = ['path', 'stream', 'small chunks', 'gzip path', 'gzip stream'];

export async function loadInto(store: Store, archive: Buffer, way: Way, options: LoadOptions = {}): Promise<Image[]> {
  const images = await openImages(store);
  const bytes = way.startsWith('gzip') ? gzipSync(archive) : archive;
  if (way.endsWith('path')) {
    const path = join(store.root, 'archive');
    await writeFile(path, bytes);
    return images.load({ path }, options);
  }
  const size = way === 'small chunks' ? 100 : 65_536;
  return images.load(Readable.from(chunks(bytes, size), { objectMode: false }), options);
}

function* chunks(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
