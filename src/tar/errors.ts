/** What is wrong with a tar, and how names of a tar stand in messages. */
import { LayerStoreError } from '../errors.js';

/** Text of a name for messages; names are latin1 text that stands for bytes. */
export function shown(name: string): string {
  return Buffer.from(name, 'latin1').toString();
}

/** ERR_BAD_TAR with the place in the tar. */
export function badTar(why: string, offset: number, path?: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_BAD_TAR',
    `the tar cannot be read: ${why}, at byte ${String(offset)}; it is damaged, truncated or no tar`,
    { offset, detail: why, path: path === undefined ? undefined : shown(path) },
  );
}

/** ERR_LIMIT_EXCEEDED that says which limit, and how to raise it. */
export function overLimit(limit: string, value: number, what: string, offset?: number): LayerStoreError {
  const where = offset === undefined ? '' : `, at byte ${String(offset)} of the tar`;
  return new LayerStoreError(
    'ERR_LIMIT_EXCEEDED',
    `${what}${where}; the limit ${limit} is ${String(value)}: raise it with limits: { ${limit}: … }`,
    { detail: limit, offset },
  );
}
