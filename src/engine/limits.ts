/**
 * Limits of a registration: defaults, and how the levels (built-in, store, call) are joined.
 * Layers are not trusted, so every limit is on unless the caller lifts it with `Infinity`.
 */
import { statfs } from 'node:fs/promises';
import { invalidArgument, systemError } from '../errors.js';
import { formatValue, quote } from '../util/quote.js';
import type { UnpackLimits } from './engine.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Every limit with a number; `minFreeBytes` is worked out for the file system of a directory. */
export type CompleteLimits = Required<UnpackLimits>;

/** The built-in limits. `minFreeBytes` is not among them: it depends on the file system, see {@link resolveLimits}. */
export const DEFAULT_LIMITS: Readonly<Omit<CompleteLimits, 'minFreeBytes'>> = Object.freeze({
  /** No figure fits both a 5 MB base and a 200 GB model: the disk's reserve (`minFreeBytes`) is what stops a bomb. */
  maxBytes: Infinity,
  /** Ten times the largest layers seen in the wild; each entry costs an inode, and inodes run out before bytes. */
  maxEntries: 10_000_000,
  /** Deflate reaches 1,032 and zstd far more, on zeros only; real layers stay below 20. Counted after 4 GiB, so that a small layer of zeros passes. */
  maxRatio: 200,
  /** PATH_MAX: the kernel takes no longer path in one call, so no program in a container could open it. */
  maxPathLength: 4_096,
  /** A path of 4,096 bytes can have 2,048 components; half of it is more than any tool makes, and bounds the walk of one name. */
  maxPathDepth: 1_024,
  /** What Go's reader takes (1 MiB), so that what Docker registers is registered here. */
  maxHeaderBytes: 1 * MIB,
  /** The kernel's limit of one value is 64 KiB; ext4 keeps far less. 1 MiB leaves room for what XFS can hold. */
  maxXattrBytes: 1 * MIB,
  /** A list of names fits 64 KiB in the kernel (XATTR_LIST_MAX): no file system can list more. */
  maxXattrs: 1_024,
  /** PATH_MAX less its final NUL: `symlink(2)` takes no longer target. */
  maxLinkLength: 4_095,
  /** What zstd's own command accepts without `--long` (2^27): memory an attacker can make a registration hold. */
  maxWindow: 128 * MIB,
  /** Contents that cannot be read back from the tree are kept in the record, compressed, and read with it each time. */
  maxKeptBytes: 1 * GIB,
});

const KEYS: readonly (keyof UnpackLimits)[] = [
  ...(Object.keys(DEFAULT_LIMITS) as (keyof UnpackLimits)[]),
  'minFreeBytes',
];

/** The value of a limit, or ERR_INVALID_ARGUMENT: a whole number >= 0, or `Infinity` for none; a ratio may have a fraction. */
export function checkLimit(name: string, value: unknown): number {
  const whole = name === 'maxRatio' || Number.isSafeInteger(value) || value === Infinity;
  if (typeof value === 'number' && value >= 0 && whole) return value;
  throw invalidArgument(
    `the limit "${name}" must be a whole number of 0 or more, or Infinity for none, not ${formatValue(value)}`,
  );
}

/** Checks each value by {@link checkLimit} and refuses unknown names. Throws ERR_INVALID_ARGUMENT. */
export function validateLimits(limits: unknown): void {
  if (typeof limits !== 'object' || limits === null) {
    throw invalidArgument(`limits must be an object such as { maxBytes: 1e9 }, not ${formatValue(limits)}`);
  }
  for (const [key, value] of Object.entries(limits) as [string, unknown][]) {
    if (!(KEYS as readonly string[]).includes(key)) {
      throw invalidArgument(`unknown limit ${quote(key)}: known are ${KEYS.join(', ')}`);
    }
    if (value !== undefined) checkLimit(key, value);
  }
}

/**
 * Joins levels of limits, the later ones winning, over {@link DEFAULT_LIMITS}. Validates each.
 *
 * `minFreeBytes` stays absent where no level gives it: {@link defaultMinFreeBytes} knows it for a directory.
 */
export function resolveLimits(
  ...levels: readonly (UnpackLimits | undefined)[]
): Omit<CompleteLimits, 'minFreeBytes'> & Pick<UnpackLimits, 'minFreeBytes'> {
  const resolved: Record<string, number> = { ...DEFAULT_LIMITS };
  for (const level of levels) {
    if (level === undefined) continue;
    validateLimits(level);
    for (const [key, value] of Object.entries(level) as [string, number | undefined][]) {
      if (value !== undefined) resolved[key] = value;
    }
  }
  return resolved as ReturnType<typeof resolveLimits>;
}

/** {@link resolveLimits} with `minFreeBytes` worked out for the file system that holds `directory`. */
export async function resolveLimitsFor(
  directory: string,
  ...levels: readonly (UnpackLimits | undefined)[]
): Promise<CompleteLimits> {
  const limits = resolveLimits(...levels);
  return { ...limits, minFreeBytes: limits.minFreeBytes ?? (await defaultMinFreeBytes(directory)) };
}

/** The reserve of free space: the smaller of 1 GiB and 5 % of the file system, so that a full disk does not take the host down. */
export async function defaultMinFreeBytes(directory: string): Promise<number> {
  try {
    const { blocks, bsize } = await statfs(directory);
    return Math.floor(Math.min(GIB, (blocks * bsize) / 20));
  } catch (error) {
    throw systemError(error, 'read the size of the file system of', 'check that the directory exists');
  }
}
