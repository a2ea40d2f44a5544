/**
 * Names inside Docker's layerdb, and nothing else: pure functions and constants.
 * Source: moby, `layer/filestore.go` (directories and file names) and `layer_store.go` (`-removing`).
 */
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import { isSHA256Hex, parseChainID } from '../digest.js';
import { invalidArgument } from '../errors.js';
import { isPlainName, PLAIN_NAME_RULE } from '../util/plain-name.js';
import { formatValue } from '../util/quote.js';
import { randomID } from '../util/random-id.js';

/** Directories of a layerdb; Docker knows other algorithms by name only, `sha256` is the one it uses. */
export const LAYERS = 'sha256';
export const MOUNTS = 'mounts';
export const TEMPORARY = 'tmp';

/** Files of a layer's record, and of an RW layer's. */
export const LAYER_FILES = {
  cacheID: 'cache-id',
  diff: 'diff',
  size: 'size',
  parent: 'parent',
  descriptor: 'descriptor.json',
  tarSplit: 'tar-split.json.gz',
} as const;
export const MOUNT_FILES = { id: 'mount-id', initID: 'init-id', parent: 'parent' } as const;

/** Modes that Docker gives; all but the root's are subject to the umask there. */
export const MODES = { root: 0o700, directory: 0o755, writeSet: 0o700, file: 0o644 } as const;

const REMOVING = /^([a-f0-9]{64})-.*-removing$/;

/** `sha256/<hex>`; throws `ERR_INVALID_DIGEST`, so that no other text ever becomes part of a path. */
export function layerName(id: ChainID): string {
  return join(LAYERS, parseChainID(id).slice('sha256:'.length));
}

/** `mounts/<name>`; throws `ERR_INVALID_ARGUMENT` for a name that RW layers cannot have. */
export function mountName(name: string): string {
  if (!isMountName(name)) {
    throw invalidArgument(`${formatValue(name)} is not a valid name for an RW layer: use ${PLAIN_NAME_RULE}`);
  }
  return join(MOUNTS, name);
}

export function isMountName(name: unknown): name is string {
  return isPlainName(name);
}

/** The chain id that a directory's name below `sha256/` stands for. */
export function chainIDOf(directoryName: string): ChainID | undefined {
  return isSHA256Hex(directoryName) ? (`sha256:${directoryName}` as ChainID) : undefined;
}

/** Name of a layer's record while it is being removed: `<hex>-<64 hex>-removing`. */
export function removingName(id: ChainID): string {
  return `${layerName(id)}-${randomID()}-removing`;
}

/** The chain id in a name that {@link removingName} made. */
export function removingChainIDOf(directoryName: string): ChainID | undefined {
  const hex = REMOVING.exec(directoryName)?.[1];
  return hex === undefined ? undefined : chainIDOf(hex);
}

/** A new name below `tmp/`. */
export function temporaryName(kind: 'write-set' | 'mount' | 'removed' | 'bad'): string {
  return join(TEMPORARY, `${kind}-${randomID(8)}`);
}
