/** Reading files inside a TreeRoot. */
import { constants } from 'node:fs';
import { systemError } from '../../errors.js';
import * as fs from './fs.js';
import type { TreeRoot } from './tree-root.js';

const READ_SIZE = 256 * 1024;

/** Opens a file without following a link, nor waiting where it is a FIFO. */
export async function openTreeFile(root: TreeRoot, path: string): Promise<number> {
  const place = await root.place(path);
  return fs.open(place.path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

/** Bytes of the regular file of that name; undefined where the name leads to none, or that cannot be told. */
export async function treeFileSize(root: TreeRoot, path: string): Promise<number | undefined> {
  try {
    const found = await fs.lstat((await root.place(path)).path);
    return found.isFile() ? Number(found.size) : undefined;
  } catch {
    return undefined; // reading it would say why
  }
}

/** Chunks of a file to its end. */
export async function* readTreeFile(root: TreeRoot, path: string): AsyncGenerator<Buffer> {
  try {
    const fd = await openTreeFile(root, path);
    try {
      for (let position = 0; ;) {
        const buffer = Buffer.allocUnsafe(READ_SIZE);
        const count = await fs.read(fd, buffer, 0, buffer.length, position);
        if (count === 0) return;
        position += count;
        yield buffer.subarray(0, count);
      }
    } finally {
      await fs.close(fd);
    }
  } catch (error) {
    throw systemError(error, 'read the file', undefined, { path: root.describe(path) });
  }
}
