/**
 * The calls of node:fs that the engine uses, as promises over the callback form: on hot paths (one file an entry) that
 * form costs about half of node:fs/promises. Paths may be bytes. And times as those calls take them.
 */
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import type { TarTime } from '../../tar/header.js';

export const open = promisify(fs.open);
export const close = promisify(fs.close);
export const mkdir: (path: fs.PathLike, mode: number) => Promise<void> = promisify<fs.PathLike, number>(fs.mkdir);
export const rmdir = promisify<fs.PathLike>(fs.rmdir);
export const unlink = promisify(fs.unlink);
export const symlink = promisify<fs.PathLike, fs.PathLike>(fs.symlink);
export const link = promisify(fs.link);
export const rename = promisify(fs.rename);
export const chmod = promisify(fs.chmod);
export const chown = promisify(fs.chown);
export const lchown = promisify(fs.lchown);
export const lutimes = promisify(fs.lutimes);
export const fchmod = promisify(fs.fchmod);
export const fchown = promisify(fs.fchown);
export const futimes = promisify(fs.futimes);
export const ftruncate = promisify(fs.ftruncate);
export const fsync = promisify(fs.fsync);
export const copyFile = promisify(fs.copyFile);

const lstatBig = promisify(fs.lstat) as (path: fs.PathLike, options: { bigint: true }) => Promise<fs.BigIntStats>;
const fstatBig = promisify(fs.fstat) as (fd: number, options: { bigint: true }) => Promise<fs.BigIntStats>;
/** lstat with nanoseconds. */
export const lstat = (path: fs.PathLike): Promise<fs.BigIntStats> => lstatBig(path, { bigint: true });
const statBig = promisify(fs.stat) as (path: fs.PathLike, options: { bigint: true }) => Promise<fs.BigIntStats>;
/** stat with nanoseconds: a link is followed. */
export const stat = (path: fs.PathLike): Promise<fs.BigIntStats> => statBig(path, { bigint: true });
/** fstat with nanoseconds. */
export const fstat = (fd: number): Promise<fs.BigIntStats> => fstatBig(fd, { bigint: true });

/** Entries of a directory, names as bytes. */
export const readdir = promisify(fs.readdir) as unknown as (
  path: fs.PathLike,
  options: { withFileTypes: true; encoding: 'buffer' },
) => Promise<fs.Dirent<Buffer>[]>;

const readlinkBytes = promisify(fs.readlink) as unknown as (
  path: fs.PathLike,
  options: { encoding: 'buffer' },
) => Promise<Buffer>;
/** Target of a symbolic link, as bytes. */
export const readlink = (path: fs.PathLike): Promise<Buffer> => readlinkBytes(path, { encoding: 'buffer' });

/** Reads at `position` (or the current one); resolves to the bytes read, 0 at the end. */
export function read(
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number | null,
): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, buffer, offset, length, position, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
}

function writeOnce(
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number | null,
): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.write(fd, buffer, offset, length, position, (error, count) => {
      if (error) reject(error);
      else resolve(count);
    });
  });
}

/** Writes all of `bytes`. A descriptor that does not block (a pipe made so by its other end) is tried again. */
export async function writeAll(fd: number, bytes: Uint8Array, position: number | null = null): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    try {
      done += await writeOnce(fd, bytes, done, bytes.length - done, position === null ? null : position + done);
    } catch (error) {
      if (errnoName(error) !== 'EAGAIN') throw error;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

/** Name of the errno of a system error, else `undefined`. */
export function errnoName(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code } = error as NodeJS.ErrnoException;
  return typeof code === 'string' ? code : undefined;
}

/** Runs `promise`, and gives `undefined` where it fails with one of these errnos. */
export async function unlessErrno<T>(promise: Promise<T>, ...names: readonly string[]): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    const name = errnoName(error);
    if (name !== undefined && names.includes(name)) return undefined;
    throw error;
  }
}

/** What a Date can hold; no file system has earlier times. */
const FIRST_SECOND = -8_640_000_000_000;

/**
 * node:fs takes times as seconds in a double, and Node 20 cuts them to microseconds; a quarter of one more keeps what the
 * double rounded down. Of numbers below zero it makes the present; a Date it takes, which holds milliseconds.
 */
export function utime({ seconds, nanoseconds }: TarTime): number | Date {
  if (seconds < 0) return new Date(Math.max(seconds, FIRST_SECOND) * 1000 + Math.floor(nanoseconds / 1e6));
  const microseconds = Math.floor(nanoseconds / 1000);
  const most = Math.min(seconds, Number.MAX_SAFE_INTEGER);
  return microseconds === 0 ? most : most + (microseconds + 0.25) / 1e6;
}

const LAST_COMMON_SECOND = 2n ** 31n - 1n;
const FIRST_COMMON_SECOND = -(2n ** 31n);

/**
 * Whether a file that was given `time` by this engine may have `found` (nanoseconds): cut to microseconds, before 1970 to
 * milliseconds, and the nearest that its file system holds. All hold 1901 to 2038.
 */
export function holdsTime(time: TarTime, found: bigint): boolean {
  const wanted = BigInt(time.seconds) * 1_000_000_000n + BigInt(time.nanoseconds);
  const unit = time.seconds < 0 ? 1_000_000n : 1_000n;
  if (floorTo(wanted, unit) === floorTo(found, unit)) return true;
  const seconds = floorTo(found, 1_000_000_000n);
  return time.seconds > 0
    ? found < wanted && seconds >= LAST_COMMON_SECOND
    : found > wanted && seconds <= FIRST_COMMON_SECOND;
}

/** Whole units, towards the past. */
function floorTo(value: bigint, unit: bigint): bigint {
  return (value - (((value % unit) + unit) % unit)) / unit;
}
