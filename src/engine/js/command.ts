/**
 * Runs the few system commands of the pure-JavaScript path: from fixed absolute paths, without a shell, with a clean
 * environment. What they print on standard error is turned into an errno where it is one.
 */
import { spawn, type StdioOptions } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { LayerStoreError } from '../../errors.js';
import { defined } from '../../util/defined.js';

/** Where a command may lie. PATH is not asked: it belongs to the caller's environment. */
const FOLDERS = ['/usr/bin', '/bin', '/usr/sbin', '/sbin'];
const found = new Map<string, string | undefined>();

/** Absolute path of a command, or `undefined` where the system has none. */
export function commandPath(name: string): string | undefined {
  if (!found.has(name))
    found.set(
      name,
      FOLDERS.map((folder) => `${folder}/${name}`).find((path) => existsSync(path)),
    );
  return found.get(name);
}

/** {@link commandPath}, or ERR_NOT_SUPPORTED that names what needs it. */
export function requireCommand(name: string, purpose: string): string {
  const path = commandPath(name);
  if (path !== undefined) return path;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `the JavaScript engine needs the command "${name}" to ${purpose}, and it is in none of ${FOLDERS.join(', ')}: install it, or build the native engine`,
  );
}

export interface RunOptions {
  /** What needs it, for messages: `mount an overlay`. */
  purpose: string;
  cwd?: string;
  /** Written to standard input. */
  input?: string | Uint8Array | AsyncIterable<Uint8Array>;
  /** Descriptors that the command sees as 3, 4, … */
  fds?: readonly number[];
  signal?: AbortSignal;
  /** Receives standard output; collected (at most 64 MiB) where absent. */
  onOutput?: (chunk: Buffer) => void;
  /** Lines on standard error that are no failure; they are left out of what is collected. */
  harmless?: (line: string) => boolean;
}

export interface RunResult {
  exitCode: number;
  stdout: Buffer;
  stderr: string;
}

const MAX_OUTPUT = 64 * 1024 * 1024;
const MAX_MESSAGE = 64 * 1024;

/** Runs a command to its end, whatever it exits with. Rejects where it cannot be started, was killed, or on abort. */
export async function run(name: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  const path = requireCommand(name, options.purpose);
  options.signal?.throwIfAborted();
  const stdio: StdioOptions = [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', ...(options.fds ?? [])];
  const child = spawn(path, args, {
    stdio,
    env: { LC_ALL: 'C', PATH: FOLDERS.join(':') },
    ...defined({ cwd: options.cwd }),
  });
  const output: Buffer[] = [];
  let outputBytes = 0;
  let message = '';
  let unfinished = '';
  const say = (line: string): void => {
    if (message.length < MAX_MESSAGE && options.harmless?.(line) !== true) message += `${line}\n`;
  };
  (child.stdout as Readable).on('data', (chunk: Buffer) => {
    if (options.onOutput !== undefined) options.onOutput(chunk);
    else if ((outputBytes += chunk.length) <= MAX_OUTPUT) output.push(chunk);
    else child.kill('SIGKILL');
  });
  (child.stderr as Readable).on('data', (chunk: Buffer) => {
    const lines = (unfinished + chunk.toString('latin1')).split('\n');
    unfinished = (lines.pop() ?? '').slice(0, MAX_MESSAGE);
    lines.forEach(say);
  });
  const onAbort = (): void => void child.kill('SIGKILL');
  options.signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const ended = new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        if (code !== null) resolve(code);
        else
          reject(
            new LayerStoreError('ERR_SYSTEM', `cannot ${options.purpose}: "${path}" was ended by ${String(signal)}`),
          );
      });
    });
    const [exitCode] = await Promise.all([ended, feed(child.stdin, options.input)]);
    say(unfinished);
    return { exitCode, stdout: Buffer.concat(output), stderr: message.trim() };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    options.signal?.removeEventListener('abort', onAbort);
  }
}

async function feed(stdin: Writable | null, input: RunOptions['input']): Promise<void> {
  if (stdin === null || input === undefined) return;
  // A command that ends early closes its input: its exit code says why, so EPIPE is no error of ours.
  let closed = false;
  stdin.once('error', () => (closed = true));
  stdin.once('close', () => (closed = true));
  if (typeof input === 'string' || input instanceof Uint8Array) {
    stdin.end(input);
    return;
  }
  for await (const chunk of input) {
    if (closed) return;
    if (!stdin.write(chunk)) {
      await new Promise<void>((resolve) => {
        stdin.once('drain', resolve);
        stdin.once('close', resolve);
      });
    }
  }
  stdin.end();
}

/** Runs a command that must succeed; a failure becomes ERR_SYSTEM with the errno that its message names. */
export async function runOk(
  name: string,
  args: readonly string[],
  options: RunOptions & { path?: string; dest?: string; syscall?: string },
): Promise<RunResult> {
  const result = await run(name, args, options);
  if (result.exitCode === 0) return result;
  throw commandError(name, result, options);
}

/** The error of a command that failed. */
export function commandError(
  name: string,
  result: RunResult,
  about: { purpose: string; path?: string; dest?: string; syscall?: string },
): LayerStoreError {
  const errnoName = errnoOfMessage(result.stderr);
  const where = about.path === undefined ? '' : ` "${about.path}"`;
  const said = result.stderr === '' ? `exit code ${String(result.exitCode)}` : result.stderr.split('\n')[0];
  return new LayerStoreError(
    'ERR_SYSTEM',
    `cannot ${about.purpose}${where}: ${errnoName ?? 'failure'}; "${name}" says: ${said ?? ''}`,
    {
      errnoName,
      errno: errnoName === undefined ? undefined : -(constants.errno as Record<string, number>)[errnoName]!,
      syscall: about.syscall ?? name,
      path: about.path,
      dest: about.dest,
      detail: result.stderr,
    },
  );
}

/** strerror's words in the C locale, as commands print them. */
const WORDS: readonly (readonly [string, string])[] = [
  ['No such file or directory', 'ENOENT'],
  ['does not exist', 'ENOENT'],
  ['Permission denied', 'EACCES'],
  ['must be superuser', 'EPERM'],
  ['Operation not permitted', 'EPERM'],
  ['File exists', 'EEXIST'],
  ['Not a directory', 'ENOTDIR'],
  ['Is a directory', 'EISDIR'],
  ['No space left on device', 'ENOSPC'],
  ['Disk quota exceeded', 'EDQUOT'],
  ['Read-only file system', 'EROFS'],
  ['Too many levels of symbolic links', 'ELOOP'],
  ['File name too long', 'ENAMETOOLONG'],
  ['Argument list too long', 'E2BIG'],
  ['Numerical result out of range', 'ERANGE'],
  ['Operation not supported', 'EOPNOTSUPP'],
  ['No such attribute', 'ENODATA'],
  ['target is busy', 'EBUSY'],
  ['device is busy', 'EBUSY'],
  ['Device or resource busy', 'EBUSY'],
  ['Stale file handle', 'ESTALE'],
  ['not mounted', 'EINVAL'],
  ['no mount point specified', 'EINVAL'],
  ['wrong fs type', 'EINVAL'],
  ['Invalid argument', 'EINVAL'],
  ['unknown filesystem type', 'ENODEV'],
  ['Input/output error', 'EIO'],
  ['Cannot allocate memory', 'ENOMEM'],
];

function errnoOfMessage(message: string): string | undefined {
  return WORDS.find(([words]) => message.includes(words))?.[1];
}
