/** The data root as a directory: made with tight modes, and refused where others could change what is in it. */
import { chmod, mkdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { LayerStoreError, systemError } from '../errors.js';
import { invalid } from './arguments.js';

const ROOT_MODE = 0o710;
const OTHERS_WRITE = 0o022;
/** What lies below a root and must be as tight as itself. */
const INSIDE = ['layerstore', 'image', 'overlay2', 'vfs'];

export interface RootOptions {
  readOnly: boolean;
  allowWritableRoot: boolean;
}

export async function prepareRoot(root: string, options: RootOptions): Promise<void> {
  try {
    if (!options.readOnly) await makeRoot(root);
    const found = await stat(root);
    if (!found.isDirectory()) throw notADirectory(root);
  } catch (error) {
    if (LayerStoreError.is(error)) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOTDIR' || code === 'EEXIST') throw notADirectory(root, error);
    throw systemError(error, 'open the data root', 'give a directory that this user may write to, or make it first');
  }
  if (!options.allowWritableRoot) await checkAccess(root);
}

async function makeRoot(root: string): Promise<void> {
  await mkdir(dirname(root), { recursive: true });
  try {
    await mkdir(root, { mode: ROOT_MODE });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return; // there already, with its owner's modes
    throw error;
  }
  await chmod(root, ROOT_MODE); // whatever the umask took
}

function notADirectory(root: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError('ERR_SYSTEM', `cannot open the data root "${root}": ENOTDIR; give a directory`, {
    errno: -20,
    errnoName: 'ENOTDIR',
    syscall: 'mkdir',
    path: root,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Who can write to the root can have any file of any layer replaced: owner and mode must rule that out. */
async function checkAccess(root: string): Promise<void> {
  const self = process.geteuid?.() ?? 0;
  for (const path of [root, ...INSIDE.map((name) => join(root, name))]) {
    let found;
    try {
      found = await stat(path); // the root may be a link, and Docker's users move directories so: what counts is where it leads
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw systemError(error, 'check who may write to', 'see to the permissions of the data root');
    }
    if (found.uid !== self && found.uid !== 0) {
      throw invalid(
        `"${path}" belongs to user ${found.uid}, who could change any layer: give it to user ${self}, or pass "allowWritableRoot"`,
      );
    }
    if ((found.mode & OTHERS_WRITE) !== 0) {
      const mode = (found.mode & 0o7777).toString(8).padStart(4, '0');
      throw invalid(
        `others may write to "${path}" (mode ${mode}) and so change any layer: run "chmod go-w" on it, or pass "allowWritableRoot"`,
      );
    }
  }
}
