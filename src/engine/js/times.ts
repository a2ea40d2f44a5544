/** Times as node:fs takes them. */
import type { TarTime } from '../../tar/header.js';

/**
 * node:fs takes times as seconds in a double, and Node 20 cuts them to microseconds; a quarter of one more keeps what the
 * double rounded down. Times before 1970 it cannot pass on: they become 1970, as Docker's unpacking makes them.
 */
export function utime({ seconds, nanoseconds }: TarTime): number {
  if (seconds < 0) return 0;
  const microseconds = Math.floor(nanoseconds / 1000);
  return microseconds === 0 ? seconds : seconds + (microseconds + 0.25) / 1e6;
}
