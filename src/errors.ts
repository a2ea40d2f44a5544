/**
 * The one error class of the package and its closed union of codes.
 * Imports nothing, so that every room may throw it.
 */

/**
 * Every code a {@link LayerStoreError} can carry.
 *
 * @example
 * ```ts
 * console.log(ERROR_CODES.includes('ERR_ACTIVE_MOUNT')); // true
 * ```
 */
export const ERROR_CODES = [
  'ERR_LAYER_DOES_NOT_EXIST',
  'ERR_LAYER_NOT_RETAINED',
  'ERR_LAYER_IN_USE',
  'ERR_MOUNT_DOES_NOT_EXIST',
  'ERR_MOUNT_NAME_CONFLICT',
  'ERR_ACTIVE_MOUNT',
  'ERR_NOT_MOUNTED',
  'ERR_MAX_DEPTH_EXCEEDED',
  'ERR_NOT_SUPPORTED',
  'ERR_INVALID_ARGUMENT',
  'ERR_INVALID_DIGEST',
  'ERR_DIGEST_MISMATCH',
  'ERR_LAYER_CORRUPT',
  'ERR_BAD_TAR',
  'ERR_BAD_COMPRESSION',
  'ERR_UNSAFE_PATH',
  'ERR_LIMIT_EXCEEDED',
  'ERR_STORE_LOCKED',
  'ERR_STORE_CLOSED',
  'ERR_READ_ONLY',
  'ERR_BAD_IMAGE',
  'ERR_IMAGE_DOES_NOT_EXIST',
  'ERR_REGISTRY',
  'ERR_UNAUTHORIZED',
  'ERR_SYSTEM',
] as const;

/** A stable code: switch on it, never on the message. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** A process that keeps a mount busy, read from `/proc`. */
export interface Holder {
  pid: number;
  command: string;
}

/** What may accompany a {@link LayerStoreError} beside its code and message. A member that is undefined becomes no property of the error. */
export interface LayerStoreErrorDetails {
  cause?: unknown;
  /** Negative errno, as Node's own system errors carry it (`-28` for ENOSPC). */
  errno?: number | undefined;
  /** Name of the errno, `'ENOSPC'`. */
  errnoName?: string | undefined;
  syscall?: string | undefined;
  path?: string | undefined;
  dest?: string | undefined;
  /** What the kernel wrote to the file-system context, or where in a tar (`offset`) reading stopped. */
  detail?: string | undefined;
  offset?: number | undefined;
  /** For an unmount that found the target busy. */
  holders?: readonly Holder[] | undefined;
  /** For ERR_REGISTRY and ERR_UNAUTHORIZED: the registry that answered, as `host[:port]`. */
  host?: string | undefined;
  /** HTTP status of its answer; absent where there was none. */
  status?: number | undefined;
  /** Code of the registry's own error, `TOOMANYREQUESTS`. */
  registryCode?: string | undefined;
  /** Seconds that the registry asks to wait before the next request. */
  retryAfter?: number | undefined;
}

/**
 * The error that every operation of the package rejects with or throws. Not wrapped: an abort's reason, a source stream's own
 * error, and what a caller's own function threw. Fields that are not known are absent.
 *
 * @example
 * ```ts
 * try {
 *   await store.createRWLayer('no/name', layer.chainID);
 * } catch (error) {
 *   if (!LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT')) throw error;
 *   console.log(error.code, error.message);
 * }
 * ```
 */
export class LayerStoreError extends Error {
  override readonly name = 'LayerStoreError';
  readonly code: ErrorCode;
  declare readonly errno?: number;
  declare readonly errnoName?: string;
  declare readonly syscall?: string;
  declare readonly path?: string;
  declare readonly dest?: string;
  declare readonly detail?: string;
  declare readonly offset?: number;
  declare readonly holders?: readonly Holder[];
  declare readonly host?: string;
  declare readonly status?: number;
  declare readonly registryCode?: string;
  declare readonly retryAfter?: number;

  constructor(code: ErrorCode, message: string, details: LayerStoreErrorDetails = {}) {
    const { cause, ...fields } = details;
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    // Only what is known becomes a property, so that logs and toString stay short.
    for (const [key, value] of Object.entries(fields)) {
      if (value !== undefined) Object.defineProperty(this, key, { value, enumerable: true });
    }
  }

  /** Whether `error` is a LayerStoreError, with `code` if one is given. */
  static is(error: unknown, code?: ErrorCode): error is LayerStoreError {
    return error instanceof LayerStoreError && (code === undefined || error.code === code);
  }
}

/** The caller passed a value that the operation does not take. */
export function invalidArgument(message: string): LayerStoreError {
  return new LayerStoreError('ERR_INVALID_ARGUMENT', message);
}

/**
 * Content is not what was promised: `${what} is ${found}, not ${expected}: ${advice}`.
 *
 * @param what `the diff id of the tar`, `the size of the blob in bytes`
 */
export function digestMismatch(
  what: string,
  found: string | number | undefined,
  expected: string | number,
  advice = 'it is another one, or was damaged on its way',
): LayerStoreError {
  return new LayerStoreError('ERR_DIGEST_MISMATCH', `${what} is ${found ?? 'not known'}, not ${expected}: ${advice}`);
}

/** The fields of Node's own system errors that are read here. */
interface NodeSystemError extends Error {
  code?: string;
  errno?: number;
  syscall?: string;
  path?: string;
  dest?: string;
}

/**
 * Turns an error of `node:fs` (or of a child process) into `ERR_SYSTEM`. A LayerStoreError, and anything that is
 * no system error, comes back as it is.
 *
 * @param action what was tried, for the message: `write the layer's record`
 * @param advice what the reader can do, one clause
 * @param names what the caller knows better than the error does: a path behind `/proc/self/fd`, a name's bytes
 */
export function systemError(
  error: unknown,
  action: string,
  advice?: string,
  names: { path?: string; dest?: string; syscall?: string } = {},
): unknown {
  if (!(error instanceof Error) || error instanceof LayerStoreError) return error;
  const { code, errno, syscall, path, dest } = { ...(error as NodeSystemError), ...names };
  if (typeof code !== 'string' || typeof errno !== 'number') return error;
  const where = path === undefined ? '' : ` "${path}"`;
  const onto = dest === undefined ? '' : ` to "${dest}"`;
  return new LayerStoreError(
    'ERR_SYSTEM',
    `cannot ${action}${where}${onto}: ${code}${advice === undefined ? '' : `; ${advice}`}`,
    { cause: error, errno, errnoName: code, syscall, path, dest },
  );
}
