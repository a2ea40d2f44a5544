/** Cold caches: everything dirty is written, then the page cache, dentries and inodes are dropped. Needs root. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);

export async function dropCaches(): Promise<void> {
  await execute('sync');
  await writeFile('/proc/sys/vm/drop_caches', '3');
}
