/** Checks of option values that `parseArgs` leaves to us. */
import { UsageError } from './command.js';

/** `value` if it is one of `allowed`; undefined if it was not given. */
export function oneOf<const T extends string>(
  option: string,
  value: string | boolean | undefined,
  allowed: readonly T[],
): T | undefined {
  if (value === undefined) return undefined;
  const found = allowed.find((each) => each === value);
  if (found === undefined) throw new UsageError(`${option} takes ${allowed.join(' or ')}, not "${String(value)}"`);
  return found;
}
