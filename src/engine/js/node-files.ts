/** Device nodes and FIFOs, by the commands mknod and mkfifo. */
import { runOk } from './command.js';
import { chmodEntry, type OpenDirectory } from './directory.js';
import * as fs from './fs.js';
import { randomID } from '../../util/random-id.js';

const S_IFMT = 0o170000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;

/** Makes a node at a path that is text: character or block device, else a FIFO (told by the file type in `mode`). */
export async function makeNode(path: string, mode: number, major: number, minor: number): Promise<void> {
  await runNode(path, mode, major, minor, []);
  // The command's own -m is cut by nothing, but does not know setuid bits; chmod does.
  await chmodEntry(path, mode & 0o7777);
}

/**
 * Makes a node in an open directory; `name` is latin1 text for any bytes. EEXIST where it is there.
 * The command gets an ASCII name of its own beside it, since arguments of commands are text; then it is linked into place.
 */
export async function makeNodeAt(
  directory: OpenDirectory,
  name: string,
  mode: number,
  major: number,
  minor: number,
): Promise<void> {
  const scratch = `.layerstore-node-${randomID(8)}`;
  const made = directory.at(scratch);
  await runNode(`/proc/self/fd/3/${scratch}`, mode, major, minor, [directory.fd]);
  try {
    await chmodEntry(made, mode & 0o7777);
    await fs.link(made, directory.at(name));
  } finally {
    await fs.unlink(made);
  }
}

async function runNode(
  path: string,
  mode: number,
  major: number,
  minor: number,
  fds: readonly number[],
): Promise<void> {
  const type = mode & S_IFMT;
  if (type === S_IFCHR || type === S_IFBLK) {
    await runOk('mknod', ['-m', '600', '--', path, type === S_IFCHR ? 'c' : 'b', String(major), String(minor)], {
      purpose: 'make a device node',
      syscall: 'mknod',
      fds,
      path,
    });
  } else {
    await runOk('mkfifo', ['-m', '600', '--', path], { purpose: 'make a FIFO', syscall: 'mknod', fds, path });
  }
}
