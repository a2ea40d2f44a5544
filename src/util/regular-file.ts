/**
 * Reads small files in directories that another program may have changed: never through a symbolic link, never blocking on
 * a FIFO, never more than a bound. Throws `NotRegularError`, which says what there is instead of a regular file.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';

/** NONBLOCK: opening a FIFO or a device returns at once. NOFOLLOW: the last component may be no link. */
export const READ_REGULAR = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** The file cannot be read in this way; the message is a clause: `is a symbolic link`, `holds more than 512 bytes`. */
export class NotRegularError extends Error {}

/** The file holds more bytes than the caller allows. */
export class TooLongError extends NotRegularError {}

const REASONS: Readonly<Record<string, string>> = {
  ELOOP: 'is a symbolic link',
  EISDIR: 'is a directory',
  ENOTDIR: 'lies below something that is not a directory',
  ENXIO: 'is not a regular file',
  ENODEV: 'is not a regular file',
  EINVAL: 'is not a regular file',
  EAGAIN: 'is not a regular file',
};

/** What an errno of open or read says about the kind of file; `undefined` for an errno that is about the machine. */
export function irregularity(errno: string | undefined): string | undefined {
  return errno === undefined ? undefined : REASONS[errno];
}

/** The content; `undefined` where there is no file. `NotRegularError`, else Node's own error. */
export async function readRegularFile(path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    const file = await open(path, READ_REGULAR);
    try {
      const { size, isFile } = await file.stat().then((stats) => ({ size: stats.size, isFile: stats.isFile() }));
      if (!isFile) throw new NotRegularError('is not a regular file');
      if (size > maxBytes) throw tooLong(maxBytes);
      const content = await file.readFile();
      if (content.length > maxBytes) throw tooLong(maxBytes); // it grew meanwhile
      return content;
    } finally {
      await file.close();
    }
  } catch (error) {
    return absentOrThrow(error);
  }
}

/** The same, synchronous: a promise costs several times what reading a few bytes does. */
export function readRegularFileSync(path: string, maxBytes: number): Buffer | undefined {
  try {
    const fd = openSync(path, READ_REGULAR);
    try {
      const buffer = Buffer.allocUnsafe(maxBytes + 1);
      let length = 0;
      for (;;) {
        const count = readSync(fd, buffer, length, maxBytes + 1 - length, null);
        if (count === 0) break;
        length += count;
        if (length > maxBytes) throw tooLong(maxBytes);
      }
      // A FIFO without a writer reads as empty.
      if (length === 0 && !fstatSync(fd).isFile()) throw new NotRegularError('is not a regular file');
      return buffer.subarray(0, length);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return absentOrThrow(error);
  }
}

function tooLong(maxBytes: number): TooLongError {
  return new TooLongError(`holds more than ${maxBytes} bytes`);
}

function absentOrThrow(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return undefined;
  const reason = irregularity(code);
  throw reason === undefined ? error : new NotRegularError(reason, { cause: error });
}
