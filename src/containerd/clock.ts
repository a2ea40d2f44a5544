/** The time of day in nanoseconds, finer than `Date.now()`: containerd compares ours with its own. */

/** Milliseconds that the two clocks may be apart before the time of day counts as set. */
const TOLERANCE = 2;

let origin = performance.timeOrigin;

/** Nanoseconds since 1970, to about a microsecond; never less than at an earlier call unless the time of day was set. */
export function nanoseconds(): bigint {
  let elapsed = performance.now();
  if (Math.abs(origin + elapsed - Date.now()) > TOLERANCE) {
    // The clock of `performance` does not follow when the time of day is set. Its offset is exact when a millisecond begins.
    for (const before = Date.now(); Date.now() === before;) continue;
    elapsed = performance.now();
    origin = Date.now() - elapsed;
  }
  // In two parts: one double would round to a quarter of a microsecond, and the sum of these is exact.
  return BigInt(Math.floor(origin * 1000)) * 1000n + BigInt(Math.floor(elapsed * 1e6));
}

/** As the wire has it. */
export function timestamp(nanos: string): { seconds: number; nanos: number } {
  const value = BigInt(nanos);
  return { seconds: Number(value / 1_000_000_000n), nanos: Number(value % 1_000_000_000n) };
}
