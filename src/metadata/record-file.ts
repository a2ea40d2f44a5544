/**
 * Reads the small files of a record: bounded, never through a link, never waiting for a FIFO. Synchronous, since a
 * promise costs several times what these few bytes do.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { Flaw } from './record-text.js';

/** More than any id or digest needs with blanks around it. */
export const SMALL_LIMIT = 512;
/** Annotations may be long; beyond this it is no descriptor. */
export const DESCRIPTOR_LIMIT = 1 << 20;

/** NONBLOCK: opening a FIFO or a device returns at once. NOFOLLOW: a link is nobody's record. */
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

const scratch = Buffer.allocUnsafe(SMALL_LIMIT + 1);

/**
 * The file's content as text, or `undefined` where there is none. `Flaw` for what is no regular file or holds more than
 * `limit` bytes; any other trouble is Node's own error.
 */
export function readRecordFile(path: string, limit = SMALL_LIMIT): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, FLAGS);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    if (code !== undefined && flawOfErrno[code] !== undefined) throw new Flaw(flawOfErrno[code]);
    throw error;
  }
  try {
    const buffer = limit === SMALL_LIMIT ? scratch : Buffer.allocUnsafe(limit + 1);
    let length = 0;
    for (;;) {
      const count = readSync(fd, buffer, length, limit + 1 - length, null);
      if (count === 0) break;
      length += count;
      if (length > limit) throw new Flaw(`holds more than ${limit} bytes`);
    }
    // A FIFO reads as empty here; the difference matters only for what the report says.
    if (length === 0 && !fstatSync(fd).isFile()) throw new Flaw('is no regular file');
    return decode(buffer.subarray(0, length));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== undefined && flawOfErrno[code] !== undefined) throw new Flaw(flawOfErrno[code]);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** What a wrong kind of file answers to open and read; everything else is the machine's trouble, not the record's. */
export const flawOfErrno: Readonly<Record<string, string>> = {
  ELOOP: 'is a symbolic link',
  EISDIR: 'is a directory',
  ENOTDIR: 'lies below something that is no directory',
  ENXIO: 'is no regular file',
  ENODEV: 'is no regular file',
  EINVAL: 'is no regular file',
  EAGAIN: 'is no regular file',
};

/** Bytes that are no UTF-8 become replacement characters, which no reader of records accepts. */
function decode(bytes: Buffer): string {
  return bytes.toString('utf8');
}
