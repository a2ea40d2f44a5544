/** Small files and names in bulk. Files are read without promises, which would cost several times the reading. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemError } from '../../errors.js';
import { READ_REGULAR } from '../../util/regular-file.js';
import type { SmallFilesRow } from '../engine.js';
import { errnoName } from './fs.js';

/** See {@link Engine.readSmallFiles}. */
export async function readSmallFiles(
  directory: string,
  names: readonly string[],
  maxBytes: number,
): Promise<SmallFilesRow[]> {
  const buffer = Buffer.allocUnsafe(maxBytes);
  const rows: SmallFilesRow[] = [];
  for (const entry of await listDirectories(directory, 'read the files in')) {
    rows.push({ directory: entry, files: names.map((name) => readOne(join(directory, entry, name), buffer)) });
  }
  return rows;
}

/** See {@link Engine.names}. */
export async function names(directory: string, only: 'directories' | 'all'): Promise<string[]> {
  if (only === 'directories') return listDirectories(directory, 'list the directory');
  try {
    return await readdir(directory);
  } catch (error) {
    throw systemError(error, 'list the directory');
  }
}

async function listDirectories(directory: string, action: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    throw systemError(error, action);
  }
}

/** The first bytes of a regular file, as many as `buffer` takes. */
function readOne(path: string, buffer: Buffer): SmallFilesRow['files'][number] {
  try {
    const fd = openSync(path, READ_REGULAR);
    try {
      if (!fstatSync(fd).isFile()) return { failed: 'EINVAL' };
      let length = 0;
      while (length < buffer.length) {
        const count = readSync(fd, buffer, length, buffer.length - length, null);
        if (count === 0) break;
        length += count;
      }
      return buffer.toString('latin1', 0, length);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const failed = errnoName(error);
    if (failed === undefined) throw error;
    return failed === 'ENOENT' ? undefined : { failed };
  }
}
