/** The values of a command's options, typed; a wrong one is a UsageError. */
import { UsageError } from './usage-error.js';

export type RawValues = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

export class Values {
  readonly #values: RawValues;

  constructor(values: RawValues) {
    this.#values = values;
  }

  /** Whether an option without a value was given. */
  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === 'string' ? value : undefined;
  }

  /** All values of an option that may come several times. */
  list(name: string): string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.filter((each) => typeof each === 'string') : [];
  }

  /** The value if it is one of `allowed`; undefined if it was not given. */
  oneOf<const T extends string>(name: string, allowed: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const found = allowed.find((each) => each === value);
    if (found === undefined) {
      const choice = allowed.join(', ').replace(/, ([^,]*)$/, ' or $1');
      throw new UsageError(`--${name} takes ${choice}, not "${value}"`);
    }
    return found;
  }

  /** A whole number in a range. */
  integer(name: string, [least, most]: readonly [number, number]): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = Number(value);
    if (!/^[0-9]+$/.test(value) || number < least || number > most)
      throw new UsageError(`--${name} takes a whole number from ${least} to ${most}, not "${value}"`);
    return number;
  }
}
