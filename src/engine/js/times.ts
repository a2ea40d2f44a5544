/** Times as node:fs takes them. */
import type { TarTime } from '../../tar/header.js';

/** What a Date can hold; no file system has earlier times. */
const FIRST_SECOND = -8_640_000_000_000;

/**
 * node:fs takes times as seconds in a double, and Node 20 cuts them to microseconds; a quarter of one more keeps what the
 * double rounded down. Of numbers below zero it makes the present; a Date it takes, which holds milliseconds.
 */
export function utime({ seconds, nanoseconds }: TarTime): number | Date {
  if (seconds < 0) return new Date(Math.max(seconds, FIRST_SECOND) * 1000 + Math.floor(nanoseconds / 1e6));
  const microseconds = Math.floor(nanoseconds / 1000);
  const most = Math.min(seconds, Number.MAX_SAFE_INTEGER);
  return microseconds === 0 ? most : most + (microseconds + 0.25) / 1e6;
}

const LAST_COMMON_SECOND = 2n ** 31n - 1n;
const FIRST_COMMON_SECOND = -(2n ** 31n);

/**
 * Whether a file that was given `time` by this engine may have `found` (nanoseconds): cut to microseconds, before 1970 to
 * milliseconds, and the nearest that its file system holds. All hold 1901 to 2038.
 */
export function holdsTime(time: TarTime, found: bigint): boolean {
  const wanted = BigInt(time.seconds) * 1_000_000_000n + BigInt(time.nanoseconds);
  const unit = time.seconds < 0 ? 1_000_000n : 1_000n;
  if (floorTo(wanted, unit) === floorTo(found, unit)) return true;
  const seconds = floorTo(found, 1_000_000_000n);
  return time.seconds > 0
    ? found < wanted && seconds >= LAST_COMMON_SECOND
    : found > wanted && seconds <= FIRST_COMMON_SECOND;
}

/** Whole units, towards the past. */
function floorTo(value: bigint, unit: bigint): bigint {
  return (value - (((value % unit) + unit) % unit)) / unit;
}
