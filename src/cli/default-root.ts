/** Where a store lies when nobody says it. */
import { join } from 'node:path';
import { inUserNamespace } from '../util/user-namespace.js';

/** The root of the machine's own store. */
export const SYSTEM_ROOT = '/var/lib/layerstore';

/**
 * The machine's store for root; a user's own below `XDG_DATA_HOME` (XDG base directory specification) for everybody else,
 * also for who is root in a user namespace only.
 */
export function defaultRoot(env: Readonly<Record<string, string | undefined>>): string {
  const home = env['XDG_DATA_HOME'] ?? (env['HOME'] === undefined ? undefined : join(env['HOME'], '.local/share'));
  return isMachineRoot() || home?.startsWith('/') !== true ? SYSTEM_ROOT : join(home, 'layerstore');
}

function isMachineRoot(): boolean {
  return process.geteuid?.() === 0 && !inUserNamespace();
}
