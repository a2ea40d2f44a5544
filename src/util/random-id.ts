import { randomFillSync } from 'node:crypto';

/** Random bytes are taken from the kernel in this size: a call for each name costs more than making the file of that name. */
const POOL = Buffer.alloc(4096);
let left = 0;

/** At most 4,096 random bytes, the caller's own. */
export function randomBytes(bytes: number): Buffer {
  if (bytes > left) {
    randomFillSync(POOL);
    left = POOL.length;
  }
  left -= bytes;
  return Buffer.from(POOL.subarray(left, left + bytes));
}

/** `bytes` random bytes as lower-case hex; 32 bytes, 64 digits, where nothing is said. */
export function randomID(bytes = 32): string {
  return randomBytes(bytes).toString('hex');
}
