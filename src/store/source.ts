/** What is known of a tar's source before it is read, and what becomes of one that is not. */
import { stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
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

/** Ends a source that nobody will read, so that it holds no descriptor or socket. */
export function abandonSource(tar: TarSource): void {
  if (tar instanceof Readable) {
    // Its owner may see the end as an error of its own making; nobody else listens.
    tar.once('error', () => undefined);
    tar.destroy();
  } else if ('getReader' in tar && !tar.locked) {
    tar.cancel().catch(() => undefined); // the source's own trouble with being cancelled helps nobody here
  }
}
