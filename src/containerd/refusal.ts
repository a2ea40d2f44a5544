/** What a caller of the services is told that asks for something that cannot be, and how failures become gRPC's codes. */
import { LayerStoreError, type ErrorCode } from '../errors.js';

/** Numbers of gRPC's status codes. */
export const STATUS = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
} as const;

export type StatusName = keyof typeof STATUS;

/** An answer of the services that is no failure of the store: containerd acts on its status. */
export class Refusal extends Error {
  readonly status: StatusName;

  constructor(status: StatusName, message: string) {
    super(message);
    this.status = status;
  }
}

const OF_CODES: Readonly<Partial<Record<ErrorCode, StatusName>>> = {
  ERR_LAYER_DOES_NOT_EXIST: 'NOT_FOUND',
  ERR_MOUNT_DOES_NOT_EXIST: 'NOT_FOUND',
  ERR_MOUNT_NAME_CONFLICT: 'ALREADY_EXISTS',
  ERR_LAYER_NOT_RETAINED: 'FAILED_PRECONDITION',
  ERR_LAYER_IN_USE: 'FAILED_PRECONDITION',
  ERR_ACTIVE_MOUNT: 'FAILED_PRECONDITION',
  ERR_NOT_MOUNTED: 'FAILED_PRECONDITION',
  ERR_READ_ONLY: 'FAILED_PRECONDITION',
  ERR_MAX_DEPTH_EXCEEDED: 'FAILED_PRECONDITION',
  ERR_INVALID_ARGUMENT: 'INVALID_ARGUMENT',
  ERR_INVALID_DIGEST: 'INVALID_ARGUMENT',
  ERR_UNSAFE_PATH: 'INVALID_ARGUMENT',
  ERR_BAD_TAR: 'INVALID_ARGUMENT',
  ERR_BAD_COMPRESSION: 'INVALID_ARGUMENT',
  ERR_DIGEST_MISMATCH: 'FAILED_PRECONDITION',
  ERR_LAYER_CORRUPT: 'DATA_LOSS',
  ERR_LIMIT_EXCEEDED: 'RESOURCE_EXHAUSTED',
  ERR_NOT_SUPPORTED: 'UNIMPLEMENTED',
  ERR_STORE_CLOSED: 'UNAVAILABLE',
};

/** Errnos that say more than that something failed. */
const OF_ERRNOS: Readonly<Record<string, StatusName>> = {
  ENOSPC: 'RESOURCE_EXHAUSTED',
  EDQUOT: 'RESOURCE_EXHAUSTED',
  EMFILE: 'RESOURCE_EXHAUSTED',
  ENFILE: 'RESOURCE_EXHAUSTED',
};

/** What gRPC is given for an error. `signal`: of the call; the reason is an error of ours where the server ends, and none where the caller has gone. */
export function statusOf(error: unknown, signal?: AbortSignal): { code: number; details: string } {
  const details = error instanceof Error ? error.message : String(error);
  return { code: STATUS[statusName(error, signal)], details };
}

function statusName(error: unknown, signal: AbortSignal | undefined): StatusName {
  if (error instanceof Refusal) return error.status;
  if (!(error instanceof LayerStoreError)) {
    return signal?.aborted === true && error === signal.reason ? 'CANCELLED' : 'INTERNAL';
  }
  return OF_CODES[error.code] ?? OF_ERRNOS[error.errnoName ?? ''] ?? 'INTERNAL';
}
