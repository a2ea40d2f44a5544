import { constants } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { randomID } from './random-id.js';

/** A file without a name, which the kernel removes however the process ends. @param label the beginning of its name until it is unlinked */
export async function openNamelessFile(directory: string, label: string): Promise<FileHandle> {
  const path = join(directory, `${label}-${randomID(8)}.tmp`);
  const file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  await unlink(path);
  return file;
}
