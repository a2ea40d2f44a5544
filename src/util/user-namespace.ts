import { readFileSync } from 'node:fs';

/** Whether this process runs in a user namespace that is not the machine's first one (user_namespaces(7)). */
export function inUserNamespace(): boolean {
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'));
  } catch {
    return false; // a kernel without user namespaces
  }
}
