/** Batches of small changes to directories, with roll-back of what was made. */
import { constants } from 'node:fs';
import { invalidArgument, LayerStoreError, systemError } from '../../errors.js';
import type { BatchOp } from '../engine.js';
import { formatValue } from '../../util/quote.js';
import { run, commandError } from './command.js';
import { makeNode } from './directory.js';
import * as fs from './fs.js';
import { removeXattr, setXattr } from './xattr.js';

type Undo = () => Promise<void>;

/** See {@link Engine.batch}. */
export async function runBatch(ops: readonly BatchOp[]): Promise<void> {
  const undo: Undo[] = [];
  for (const op of ops) {
    try {
      await apply(op, undo);
    } catch (error) {
      const failure = batchError(error, op);
      for (const step of undo.reverse()) {
        try {
          await step();
        } catch {
          // The first failure is what the caller hears; what cannot be taken back is found by recovery.
        }
      }
      throw failure;
    }
  }
}

const ACTIONS: Record<BatchOp['op'], string> = {
  mkdir: 'make the directory',
  write: 'write the file',
  symlink: 'make the symbolic link',
  rename: 'rename',
  exchange: 'exchange',
  unlink: 'remove the file',
  rmdir: 'remove the directory',
  chmod: 'change the mode of',
  chown: 'change the owner of',
  setxattr: 'set an extended attribute of',
  removexattr: 'remove an extended attribute of',
  mknod: 'make the device node',
  fsync: 'sync',
};

function batchError(error: unknown, op: BatchOp): unknown {
  if (error instanceof LayerStoreError) return error;
  return systemError(error, ACTIONS[op.op], undefined, { path: op.path, ...('dest' in op ? { dest: op.dest } : {}) });
}

async function apply(op: BatchOp, undo: Undo[]): Promise<void> {
  switch (op.op) {
    case 'mkdir':
      return makeDirectory(op, undo);
    case 'write':
      return writeFile(op, undo);
    case 'symlink':
      await fs.symlink(op.target, op.path);
      undo.push(() => fs.unlink(op.path));
      return;
    case 'rename':
      return op.noReplace === true ? renameNoReplace(op.path, op.dest) : fs.rename(op.path, op.dest);
    case 'exchange':
      return exchange(op.path, op.dest);
    case 'unlink':
      return missingOk(fs.unlink(op.path), op.missingOk);
    case 'rmdir':
      return missingOk(fs.rmdir(op.path), op.missingOk);
    case 'chmod':
      return fs.chmod(op.path, op.mode);
    case 'chown':
      return setOwner(op, (uid, gid) => fs.lchown(op.path, uid, gid));
    case 'setxattr':
      return setXattr(op.path, [op.name, Buffer.from(op.value)]);
    case 'removexattr':
      return removeXattr(op.path, op.name, op.missingOk === true);
    case 'mknod':
      await makeNode(op.path, op.mode, op.major, op.minor);
      undo.push(() => fs.unlink(op.path));
      return;
    case 'fsync':
      return sync(op.path);
    default:
      throw invalidArgument(`unknown batch step ${formatValue((op as { op: unknown }).op)}`);
  }
}

async function missingOk(step: Promise<void>, ok: boolean | undefined): Promise<void> {
  await (ok === true ? fs.unlessErrno(step, 'ENOENT') : step);
}

async function makeDirectory(op: Extract<BatchOp, { op: 'mkdir' }>, undo: Undo[]): Promise<void> {
  try {
    await fs.mkdir(op.path, op.mode);
  } catch (error) {
    if (op.existOk !== true || fs.errnoName(error) !== 'EEXIST') throw error;
    if ((await fs.stat(op.path)).isDirectory()) return;
    throw error;
  }
  undo.push(() => fs.rmdir(op.path));
  await setOwner(op, (uid, gid) => fs.lchown(op.path, uid, gid));
  // mkdir's mode is cut by the umask, and loses setuid and setgid.
  await fs.chmod(op.path, op.mode);
}

async function writeFile(op: Extract<BatchOp, { op: 'write' }>, undo: Undo[]): Promise<void> {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = await fs.open(op.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  undo.push(() => fs.unlink(op.path));
  try {
    await fs.writeAll(fd, typeof op.data === 'string' ? Buffer.from(op.data) : op.data);
    await setOwner(op, (uid, gid) => fs.fchown(fd, uid, gid));
    await fs.fchmod(fd, op.mode);
    if (op.sync === true) await fs.fsync(fd);
  } finally {
    await fs.close(fd);
  }
}

/** What is absent stays: -1 for chown(2). */
async function setOwner(
  { uid, gid }: { uid?: number; gid?: number },
  chown: (uid: number, gid: number) => Promise<void>,
): Promise<void> {
  if (uid !== undefined || gid !== undefined) await chown(uid ?? -1, gid ?? -1);
}

async function sync(path: string): Promise<void> {
  const fd = await fs.open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await fs.fsync(fd);
  } finally {
    await fs.close(fd);
  }
}

/** EEXIST where `dest` is there. */
async function renameNoReplace(path: string, dest: string): Promise<void> {
  // A file can be renamed without replacing by link and unlink. A directory cannot: rename(2) replaces an empty one and
  // refuses all others, so between the look and the rename only an empty directory could be lost.
  const stat = await fs.lstat(path);
  if (!stat.isDirectory()) {
    await fs.link(path, dest);
    await fs.unlink(path);
    return;
  }
  if ((await fs.unlessErrno(fs.lstat(dest), 'ENOENT')) !== undefined) {
    throw Object.assign(new Error('EEXIST: file already exists'), { code: 'EEXIST', errno: -17, syscall: 'rename' });
  }
  await fs.rename(path, dest);
}

/** RENAME_EXCHANGE has no call in Node; `mv --exchange` of GNU coreutils 9.5 has it. */
async function exchange(path: string, dest: string): Promise<void> {
  const result = await run('mv', ['--exchange', '--no-target-directory', '--', path, dest], {
    purpose: 'exchange two directories',
  });
  if (result.exitCode === 0) return;
  if (result.stderr.includes('unrecognized option')) return exchangeByRenames(path, dest);
  throw commandError('mv', result, { purpose: 'exchange', path, dest, syscall: 'renameat2' });
}

/** Three renames: not atomic, but undone where one fails. */
async function exchangeByRenames(path: string, dest: string): Promise<void> {
  const aside = `${dest}.exchange-${process.pid.toString(36)}-${Date.now().toString(36)}`;
  await fs.rename(dest, aside);
  try {
    await fs.rename(path, dest);
  } catch (error) {
    await fs.rename(aside, dest);
    throw error;
  }
  try {
    await fs.rename(aside, path);
  } catch (error) {
    await fs.rename(dest, path);
    await fs.rename(aside, dest);
    throw error;
  }
}
