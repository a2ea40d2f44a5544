/** Syncing file systems, and locking files: by the commands sync and flock. */
import { constants } from 'node:fs';
import { systemError } from '../../errors.js';
import type { FileLock } from '../engine.js';
import { commandError, run, runOk } from './command.js';
import * as fs from './fs.js';

/** syncfs of the file systems that hold `paths`, each once. */
export async function syncFileSystems(paths: readonly string[]): Promise<void> {
  const byDevice = new Map<bigint, string>();
  for (const path of paths) {
    try {
      const { dev } = await fs.lstat(path);
      if (!byDevice.has(dev)) byDevice.set(dev, path);
    } catch (error) {
      throw systemError(error, 'sync the file system of', 'check that the path exists', { path });
    }
  }
  if (byDevice.size === 0) return;
  await runOk('sync', ['-f', '--', ...byDevice.values()], { purpose: 'sync a file system', syscall: 'syncfs' });
}

const CONFLICT = 99;

/**
 * Locks a file with flock(2). The lock belongs to the open file description, which the command shares with this process:
 * the command takes it and ends, and it lasts until the descriptor here is closed, at the latest by the end of the process.
 */
export async function lockFile(path: string, mode: 'exclusive' | 'shared'): Promise<FileLock | undefined> {
  const { O_RDWR, O_RDONLY, O_CREAT, O_NOFOLLOW } = constants;
  let fd: number;
  try {
    // A reader may be allowed to read the lock file only.
    fd =
      (await fs.unlessErrno(
        fs.open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600),
        ...(mode === 'shared' ? ['EACCES', 'EROFS'] : []),
      )) ?? (await fs.open(path, O_RDONLY | O_NOFOLLOW));
  } catch (error) {
    throw systemError(error, 'open the lock file', 'check its mode and that of its directory', { path });
  }
  let kept = false;
  try {
    const result = await run('flock', ['-n', mode === 'exclusive' ? '-x' : '-s', '-E', String(CONFLICT), '3'], {
      purpose: 'lock a file',
      fds: [fd],
    });
    if (result.exitCode === CONFLICT) return undefined;
    if (result.exitCode !== 0) throw commandError('flock', result, { purpose: 'lock', path, syscall: 'flock' });
    // A new file whose mode the umask took would not be opened again; that of another user stays as it is.
    if (((await fs.fstat(fd)).mode & 0o600n) !== 0o600n) await fs.unlessErrno(fs.fchmod(fd, 0o600), 'EPERM', 'EROFS');
    kept = true;
  } finally {
    if (!kept) await fs.close(fd);
  }
  let released: Promise<void> | undefined;
  return { release: () => (released ??= fs.close(fd)) };
}
