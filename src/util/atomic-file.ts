import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { randomID } from './random-id.js';

/** Ending of the temporary file of {@link writeFileAtomic}; recovery removes files with this ending. */
export const TEMPORARY_SUFFIX = '.tmp';

/**
 * Writes a file whole or not at all: a temporary file beside it, then one rename. With `sync` the content is on disk
 * before the rename, and the rename before this resolves.
 */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array,
  options: { mode: number; sync: boolean },
): Promise<void> {
  const temporary = `${path}.${randomID(8)}${TEMPORARY_SUFFIX}`;
  try {
    const file = await open(temporary, 'wx', options.mode);
    try {
      await file.chmod(options.mode); // whatever the umask took
      await file.writeFile(data);
      if (options.sync) await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  if (options.sync) await syncDirectory(dirname(path));
}

/** Makes the names of a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
