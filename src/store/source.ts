/** What is known of a tar's source before it is read, and what becomes of one that is not. */
import { stat } from 'node:fs/promises';
import type { TarSource } from '../engine/engine.js';
import { systemError } from '../errors.js';

/** A file's identity: equal ones hold the same tar. `undefined` for streams. A missing file rejects here, early. */
export async function sourceIdentity(tar: TarSource): Promise<string | undefined> {
  if (!isFile(tar)) return undefined;
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(tar.path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs, tar.offset, tar.length].join(':');
  } catch (error) {
    throw systemError(error, 'read the tar', 'give the path of a tar that is there');
  }
}

export function isFile(tar: TarSource): tar is { path: string; offset?: number; length?: number } {
  return 'path' in tar && !(Symbol.asyncIterator in tar) && !('getReader' in tar);
}

/** Runs `work` and lets go of what it was to read, however it ends: a source that was read to its end bears that. */
export async function usingSources<T>(sources: readonly unknown[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    for (const source of sources) abandonSource(source);
  }
}

/**
 * Ends a source that is not read any more, so that it holds no descriptor or socket. Takes whatever a caller passed as
 * one. A Node stream is told by its `destroy`: npm's readable-stream has a class of its own.
 */
export function abandonSource(source: unknown): void {
  if (typeof source !== 'object' || source === null) return;
  const { destroy, once, cancel, locked, return: end } = source as Record<string, unknown>;
  // An error of the source while it is ended does not matter here.
  const ignore = (): void => undefined;
  try {
    if (typeof destroy === 'function') {
      // The end may be an error to the stream, which has no other listener.
      if (typeof once === 'function') once.call(source, 'error', ignore);
      destroy.call(source);
    } else if (typeof cancel === 'function') {
      if (locked !== true) Promise.resolve(cancel.call(source)).catch(ignore);
    } else if (typeof end === 'function') {
      Promise.resolve(end.call(source)).catch(ignore);
    }
  } catch {
    ignore();
  }
}
