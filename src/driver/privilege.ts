/**
 * What the maker of a root's layers may do with files. It belongs to the root, not to the process: what was made without
 * being root stays readable and verifiable for a root that opens it later.
 *
 * `<root>/layerstore/privilege` holds it, one word and a newline; without the file it is `full`.
 */
import { readFile } from 'node:fs/promises';
import { LayerStoreError, type LayerStoreErrorDetails } from '../errors.js';
import type { BatchOp, Privilege, WhiteoutForm } from '../engine/engine.js';
import { quote } from '../util/quote.js';
import type { DriverContext } from './context.js';
import { hasErrno, readRecord } from './files.js';

const MARK_BYTES = 32;

/** Whether this process runs in a user namespace that is not the machine's first one (user_namespaces(7)). */
export async function inUserNamespace(): Promise<boolean> {
  const map = await readFile('/proc/self/uid_map', 'utf8').catch(() => ''); // a kernel without user namespaces
  return map !== '' && !/^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/** What the layers below `root` were made with; `undefined` where the root does not say. */
export async function readPrivilege(root: string): Promise<Exclude<Privilege, 'full'> | undefined> {
  const path = markOf(root);
  const word = (await readRecord(path, MARK_BYTES))?.trimEnd();
  if (word === undefined || word === 'namespace' || word === 'none') return word;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `"${path}" says ${quote(word)}, which this version does not know: open the root with a newer version`,
    { path },
  );
}

/** Writes the mark of a root without layers; `<root>/layerstore` exists. */
export async function writePrivilege({ root, engine, durability, privilege }: DriverContext): Promise<void> {
  if (privilege === 'full' || (await readPrivilege(root)) === privilege) return;
  const path = markOf(root);
  const sync = [path, `${root}/layerstore`].map((each): BatchOp => ({ op: 'fsync', path: each }));
  await engine.batch([
    { op: 'write', path, mode: 0o600, data: `${privilege}\n` },
    ...(durability === 'strict' ? sync : []),
  ]);
}

/** How overlayfs finds whiteouts and opaque directories: without full privilege only by attributes of `user.` (`userxattr`). */
export function whiteoutsOf({ privilege }: Pick<DriverContext, 'privilege'>): Exclude<WhiteoutForm, 'plain'> {
  return privilege === 'full' ? 'overlay' : 'overlay-user';
}

/** Runs the unpacking of a layer; where rights are missing, the error says how to do without them. */
export async function explained<T>(privilege: Privilege, unpacking: Promise<T>): Promise<T> {
  try {
    return await unpacking;
  } catch (error) {
    const advice = LayerStoreError.is(error) && error.code === 'ERR_SYSTEM' ? adviceFor(privilege, error) : undefined;
    if (advice === undefined) throw error;
    const { errno, errnoName, syscall, path, dest, detail } = error as LayerStoreError;
    const details: LayerStoreErrorDetails = { errno, errnoName, syscall, path, dest, detail, cause: error };
    throw new LayerStoreError('ERR_SYSTEM', `${(error as LayerStoreError).message}; ${advice}`, details);
  }
}

function adviceFor(privilege: Privilege, error: LayerStoreError): string | undefined {
  const ofOwner = error.syscall?.includes('chown') === true;
  if (privilege === 'namespace' && ofOwner && hasErrno(error, 'EINVAL'))
    return 'this user namespace does not have that id: give it more of them (/etc/subuid, /etc/subgid), or choose a new root with the driver option ignore_chown_errors=true';
  if (privilege === 'full' && process.geteuid?.() !== 0 && hasErrno(error, 'EPERM'))
    return 'without root, run this in a user namespace (`layerstore unshare`), or choose a new root with the driver option ignore_chown_errors=true';
  return undefined;
}

function markOf(root: string): string {
  return `${root}/layerstore/privilege`;
}
