/**
 * The version of what lies under `<root>/layerstore/`, a decimal number in a file. Upgrade rule: an older version is
 * brought up step by step, one entry of UPGRADES each, and the number is written after each step, so that a crash repeats
 * at most one; steps must bear repetition. A newer one is refused, whoever opens it.
 */
import { rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { LayerStoreError, systemError } from '../errors.js';
import { writeFileAtomic } from '../util/atomic-file.js';
import type { LoggerLike } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { randomID } from '../util/random-id.js';
import { NotRegularError, readRegularFile } from '../util/regular-file.js';
import type { OwnPaths } from './context.js';

/** What this code writes. */
export const FORMAT_VERSION = 1;

/** UPGRADES[n - 1] brings version n to n + 1. Version 1 is the first, so there is none yet. */
const UPGRADES: readonly ((own: OwnPaths) => Promise<void>)[] = [];

export async function checkFormatVersion(
  own: OwnPaths,
  options: { readOnly: boolean; sync: boolean; logger: LoggerLike },
): Promise<void> {
  const found = await readVersion(own.version);
  if (typeof found === 'number' && found > FORMAT_VERSION) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `"${own.directory}" has format version ${found}, written by a newer layerstore: this one knows up to ${FORMAT_VERSION}; upgrade it`,
    );
  }
  if (options.readOnly || found === FORMAT_VERSION) return;
  if (found === 'unreadable') {
    // Written whole and synced, so this is damage; our own records have no other form yet.
    await makeDirectory(own.quarantine, 0o700);
    const aside = join(own.quarantine, `${basename(own.version)}.${randomID(4)}`);
    await rename(own.version, aside);
    options.logger.warn({ aside, version: FORMAT_VERSION }, 'the format version was damaged and is written anew');
  }
  for (let version = typeof found === 'number' ? found : FORMAT_VERSION; version < FORMAT_VERSION; version += 1) {
    await UPGRADES[version - 1]?.(own);
    await writeVersion(own, version + 1, options.sync);
  }
  if (typeof found !== 'number') await writeVersion(own, FORMAT_VERSION, options.sync);
}

async function readVersion(path: string): Promise<number | 'absent' | 'unreadable'> {
  try {
    const text = (await readRegularFile(path, 64))?.toString('utf8');
    if (text === undefined) return 'absent';
    return /^[1-9][0-9]{0,8}\n?$/.test(text) ? Number(text) : 'unreadable';
  } catch (error) {
    if (error instanceof NotRegularError) return 'unreadable';
    throw systemError(error, 'read the format version');
  }
}

async function writeVersion(own: OwnPaths, version: number, sync: boolean): Promise<void> {
  try {
    await writeFileAtomic(own.version, `${version}\n`, { mode: 0o600, sync });
  } catch (error) {
    throw systemError(error, 'write the format version', 'give a data root that this user may write to');
  }
}
