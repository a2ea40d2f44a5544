import { createHash } from 'node:crypto';

/** A driver id as the store makes them: 64 hex digits, always the same for the same number. */
export function driverID(n: number): string {
  return createHash('sha256').update(String(n)).digest('hex');
}
