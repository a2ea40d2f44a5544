/**
 * Names that a driver's directory holds only for a while. They begin with a dot, so they are never a layer's id, Docker
 * looks at none of them, and recovery finds them after a crash.
 */
import { randomID } from '../util/random-id.js';

const REMOVING = /^\.removing-(.+)-[a-f0-9]{16}$/;
const SCRATCH = '.probe-';

/** A name for the directory of `id` while its files are unlinked; another one at each call, since an id may come again. */
export function removingName(id: string): string {
  return `.removing-${id}-${randomID(8)}`;
}

/** The id that a name of {@link removingName} stands for. */
export function removedID(name: string): string | undefined {
  return REMOVING.exec(name)?.[1];
}

/** Prefix of a probe's scratch directory, for `mkdtemp`. */
export function scratchPrefix(): string {
  return SCRATCH;
}

export function isScratch(name: string): boolean {
  return name.startsWith(SCRATCH);
}

/** Where the native engine keeps files that a later entry of the same tar replaced, beside the tree while it unpacks. */
export function isReplaced(name: string): boolean {
  return /^\.replaced-[0-9]+$/.test(name);
}

/** Whether a crash left this behind: a half-removed layer, or a probe's scratch directory. */
export function isLeftover(name: string): boolean {
  return REMOVING.test(name) || isScratch(name);
}
