/** Records of the addon become errors here, after the `await` of the caller, so that the stack is the caller's. */
import { getSystemErrorName } from 'node:util';
import { LayerStoreError, type ErrorCode, type LayerStoreErrorDetails } from '../../errors.js';
import { quote, shorten } from '../../util/quote.js';
import type { NativeErrorRecord, NativeFault } from './binding.js';

const CODES: Readonly<Record<Exclude<NativeFault, 'cancelled' | 'sourceError'>, ErrorCode>> = {
  system: 'ERR_SYSTEM',
  badTar: 'ERR_BAD_TAR',
  badCompression: 'ERR_BAD_COMPRESSION',
  unsafePath: 'ERR_UNSAFE_PATH',
  limit: 'ERR_LIMIT_EXCEEDED',
  corrupt: 'ERR_LAYER_CORRUPT',
  notSupported: 'ERR_NOT_SUPPORTED',
  invalid: 'ERR_INVALID_ARGUMENT',
  digestMismatch: 'ERR_DIGEST_MISMATCH',
};

/** What a reader can do about an errno. */
const ADVICE: Readonly<Record<string, string>> = {
  ENOSPC: 'free space on that file system',
  EDQUOT: 'raise the quota, or free space below it',
  EPERM: 'this needs root (CAP_SYS_ADMIN, CAP_CHOWN, CAP_MKNOD), or a file system that allows it',
  EACCES: 'check the modes and the owner of the path, or run as root',
  EROFS: 'the file system is mounted read-only',
  EMFILE: 'raise the limit of open files (ulimit -n)',
  ENFILE: 'the system has no file descriptors left',
  ENOENT: 'check that the path is there',
  EISDIR: 'give a file, not a directory',
  ENOTDIR: 'a component of the path is not a directory',
  EIO: 'the disk reported an error: look at the kernel log',
  ENOMEM: 'the system is out of memory',
  ESTALE: 'the directories changed since this overlay was last mounted',
  ELOOP: 'too many symbolic links, or one where none may be',
  ENODEV: 'the kernel does not know this file system',
};

/** Whether a value is a record of the addon. */
export function isNativeRecord(value: unknown): value is NativeErrorRecord {
  return typeof value === 'object' && value !== null && !(value instanceof Error) && 'fault' in value;
}

/**
 * The error to throw for what a call of the addon rejected with or threw.
 *
 * @param action what was tried: `mount the layers on`
 * @param signal where it fired and the record says `cancelled`, its reason is the error
 */
export function nativeError(error: unknown, action: string, signal?: AbortSignal): unknown {
  if (error instanceof TypeError && 'fault' in error)
    return new LayerStoreError('ERR_INVALID_ARGUMENT', `cannot ${action}: ${error.message}`, { cause: error });
  if (!isNativeRecord(error)) return error;
  const { fault } = error;
  if (fault === 'cancelled' || fault === 'sourceError') {
    return signal?.aborted === true
      ? (signal.reason as unknown)
      : new LayerStoreError('ERR_STORE_CLOSED', `cannot ${action}: it was stopped`);
  }
  if (fault === 'system') return systemFault(error, action);
  return new LayerStoreError(CODES[fault], dataMessage(error, action), {
    ...location(error),
    offset: error.offset === 0 ? undefined : error.offset,
  });
}

function systemFault(record: NativeErrorRecord, action: string): LayerStoreError {
  const name = record.errno === undefined ? 'EIO' : getSystemErrorName(-record.errno);
  const where = record.path === undefined ? '' : ` ${quote(record.path)}`;
  const to = record.dest === undefined ? '' : ` to ${quote(record.dest)}`;
  const said = record.detail === undefined || record.detail === '' ? '' : ` (${shorten(record.detail)})`;
  const advice = name === 'EBUSY' ? busyAdvice(record) : ADVICE[name];
  const call = record.syscall === undefined ? '' : `${record.syscall}: `;
  return new LayerStoreError(
    'ERR_SYSTEM',
    `cannot ${action}${where}${to}: ${call}${name}${said}${advice === undefined ? '' : `; ${advice}`}`,
    {
      ...location(record),
      errnoName: name,
      errno: record.errno === undefined ? undefined : -record.errno,
      syscall: record.syscall,
      holders: record.holders,
    },
  );
}

function busyAdvice(record: NativeErrorRecord): string {
  const holders = record.holders ?? [];
  if (holders.length === 0)
    return 'something keeps it busy: another mount below it, or a process that cannot be seen from here';
  const named = holders.slice(0, 5).map((holder) => `${holder.pid} (${holder.command})`);
  return `end the processes that use it: ${named.join(', ')}${holders.length > 5 ? ` and ${holders.length - 5} more` : ''}`;
}

function dataMessage(record: NativeErrorRecord, action: string): string {
  const where = record.path === undefined ? '' : ` at ${quote(record.path)}`;
  const offset = record.offset === undefined || record.offset === 0 ? '' : ` (byte ${record.offset} of the tar)`;
  const detail = record.detail === undefined || record.detail === '' ? record.fault : shorten(record.detail);
  if (record.fault === 'limit') {
    // The detail is the limit's name where it is one that a caller can raise.
    return /^m(ax|in)[A-Z]\w+$/.test(detail)
      ? `cannot ${action}: the limit ${detail} was exceeded${where}${offset}; raise it with { limits: { ${detail}: … } }, or lift it with Infinity`
      : `cannot ${action}: a limit was exceeded${where}${offset}: ${detail}`;
  }
  return `cannot ${action}: ${detail}${where}${offset}`;
}

function location(record: NativeErrorRecord): LayerStoreErrorDetails {
  return { path: record.path, dest: record.dest, detail: record.detail };
}
