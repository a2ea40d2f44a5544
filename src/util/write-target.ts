/**
 * Writing to a path that the user names. A regular file appears under its name only when it is complete: it is written
 * under a temporary name beside it and renamed. What has no name to rename onto is written in place: a device, a FIFO, an
 * open descriptor (`/dev/stdout`, `/dev/fd/N`, `/proc/…/fd/N`). Symbolic links are followed: their target is written, the
 * link stays.
 */
import { constants, write } from 'node:fs';
import { open, readlink, realpath, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { syncDirectory, TEMPORARY_SUFFIX } from './atomic-file.js';
import { randomID } from './random-id.js';

const MAX_LINKS = 40;
const writeTo = promisify(write);

export interface OpenTarget {
  readonly fd: number;
  /** The regular file behind `fd`, new and empty. Undefined for what is written in place: bytes go one after the other. */
  readonly file: FileHandle | undefined;
}

/**
 * Runs `write` on what `path` names. With `sync` a regular file's content is on disk before the rename, and the rename
 * before this resolves. Rejects with what `write` threw, or with the error of `node:fs`; nothing is left of a regular file
 * then.
 */
export async function writeTarget<T>(
  path: string,
  sync: boolean,
  write: (target: OpenTarget) => Promise<T>,
): Promise<T> {
  const final = await followLinks(path);
  const ours = ownDescriptor(final);
  if (ours !== undefined) return write({ fd: ours, file: undefined });
  if (await mustStayInPlace(final)) {
    const file = await open(final, constants.O_WRONLY | constants.O_APPEND);
    try {
      return await write({ fd: file.fd, file: undefined });
    } finally {
      await file.close();
    }
  }
  const temporary = join(dirname(final), `.${basename(final).slice(0, 200)}.${randomID(6)}${TEMPORARY_SUFFIX}`);
  const file = await open(temporary, 'wx', 0o666);
  try {
    let result: T;
    try {
      result = await write({ fd: file.fd, file });
      if (sync) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, final);
    if (sync) await syncDirectory(dirname(final));
    return result;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * Writes chunks to a descriptor where that stands, one after the other. The descriptor stays open: `fs.createWriteStream`
 * would close it after an error, and its owner would then close another file of that number.
 */
export async function writeChunks(fd: number, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
  for await (const chunk of chunks) {
    signal?.throwIfAborted();
    for (let done = 0; done < chunk.length;) {
      try {
        done += (await writeTo(fd, chunk, done)).bytesWritten;
      } catch (error) {
        // Somebody made it non-blocking, and its reader is slow.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        await sleep(5);
        signal?.throwIfAborted();
      }
    }
  }
}

/** The path at the end of a chain of links; the file itself may be missing. Links below `/proc` are not paths, so they end it. */
async function followLinks(path: string): Promise<string> {
  let current = resolve(path);
  for (let links = 0; links <= MAX_LINKS; links++) {
    current = join(await realpath(dirname(current)), basename(current));
    if (isProc(current)) return current;
    let target: string;
    try {
      target = await readlink(current);
    } catch {
      // No link, or nothing there. Whatever else is wrong shows when the file is opened.
      return current;
    }
    current = resolve(dirname(current), target);
  }
  await stat(path); // ELOOP
  return current;
}

/** The number in `/proc/PID/fd/N` of this process. It is used as it is: a socket cannot be opened again, a file would lose its offset. */
function ownDescriptor(path: string): number | undefined {
  const [, pid, fd] = /^\/proc\/(\d+)(?:\/task\/\d+)?\/fd\/(\d+)$/.exec(path) ?? [];
  return pid === String(process.pid) && fd !== undefined ? Number(fd) : undefined;
}

async function mustStayInPlace(path: string): Promise<boolean> {
  if (isProc(path)) return true;
  const there = await stat(path).catch(() => undefined); // missing, or told by the open that follows
  return there !== undefined && !there.isFile() && !there.isDirectory();
}

function isProc(path: string): boolean {
  return path.startsWith('/proc/');
}
