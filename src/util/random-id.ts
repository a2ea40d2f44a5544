import { randomBytes } from 'node:crypto';

/** `bytes` random bytes as lower-case hex; 32 bytes, 64 digits, where nothing is said. */
export function randomID(bytes = 32): string {
  return randomBytes(bytes).toString('hex');
}
