/**
 * What the maker of a root's layers may do with files. It belongs to the root, not to the process: what was made without
 * being root stays readable and verifiable for a root that opens it later.
 *
 * `<root>/layerstore/privilege` holds it, one word and a newline; without the file it is `full`.
 */
import { LayerStoreError, type LayerStoreErrorDetails, systemError } from '../errors.js';
import type { Privilege, WhiteoutForm } from '../engine/engine.js';
import { writeFileAtomic } from '../util/atomic-file.js';
import { quote } from '../util/quote.js';
import { NotRegularError, readRegularFile } from '../util/regular-file.js';
import type { DriverContext } from './context.js';
import { hasErrno } from './files.js';

const MARK_BYTES = 32;

/** What the layers below `root` were made with; `undefined` where the root does not say. */
export async function readPrivilege(root: string): Promise<Exclude<Privilege, 'full'> | undefined> {
  const path = markOf(root);
  const word = await readMark(root, path);
  if (word === undefined || word === 'namespace' || word === 'none') return word;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `"${path}" says ${quote(word)}, which this version does not know: open the root with a newer version`,
    { path },
  );
}

async function readMark(root: string, path: string): Promise<string | undefined> {
  try {
    return (await readRegularFile(path, MARK_BYTES))?.toString('latin1').trimEnd();
  } catch (error) {
    if (!(error instanceof NotRegularError)) throw systemError(error, 'read what the layers were made with');
    throw new LayerStoreError(
      'ERR_LAYER_CORRUPT',
      `cannot tell what the layers below "${root}" were made with: "${path}" ${error.message}; restore the file`,
      { path },
    );
  }
}

/** Writes the mark of a root without layers, whole or not at all: a torn one would keep the root shut. `<root>/layerstore` exists. */
export async function writePrivilege({ root, durability, privilege }: DriverContext): Promise<void> {
  if (privilege === 'full' || (await readPrivilege(root)) === privilege) return;
  try {
    await writeFileAtomic(markOf(root), `${privilege}\n`, { mode: 0o600, sync: durability === 'strict' });
  } catch (error) {
    throw systemError(error, 'write what the layers are made with', 'give a data root that this user may write to');
  }
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
