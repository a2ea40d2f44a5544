import { chmod, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Makes a directory and its missing parents, all with `mode` whatever the umask. Returns the topmost new one. */
export async function makeDirectory(path: string, mode: number): Promise<string | undefined> {
  let above: string | undefined;
  for (;;) {
    try {
      await mkdir(path, { mode });
      break;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') return mkdir(path, { recursive: true }); // a file in its place is an error, a link is none
      if (code !== 'ENOENT' || above !== undefined) throw error;
      above = await makeDirectory(dirname(path), mode);
      above ??= path; // another process made it meanwhile
    }
  }
  await chmod(path, mode);
  return above ?? path;
}
