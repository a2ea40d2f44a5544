/** The addon writes tar-split records as gzip files; a record that is wanted as a stream goes through a temporary one. */
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import type { TarSplitTarget } from '../engine.js';

/**
 * Calls `work` with the path that it writes the record to. A path that `work` made is removed where it fails; a writer
 * gets the record, uncompressed, after `work` resolved, and is ended; where `work` fails it is destroyed.
 */
export async function withRecordFile<T>(
  target: TarSplitTarget | undefined,
  work: (path: string | undefined) => Promise<T>,
): Promise<T> {
  if (target === undefined) return work(undefined);
  if ('path' in target) return work(target.path);
  const directory = await mkdtemp(join(tmpdir(), 'layerstore-record-'));
  try {
    const path = join(directory, 'tar-split.json.gz');
    const result = await work(path);
    await pipeline(createReadStream(path), createGunzip(), target.writer);
    return result;
  } catch (error) {
    target.writer.destroy();
    throw error;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
