/**
 * Batches as the addon takes them: all steps in one text, since each value that it reads costs it calls. The fields, each
 * with a zero byte behind it, are in the order of `ReadBatchOp` in native/binding/kernel.cc.
 */
import type { BatchOp } from '../engine.js';

export interface FlatBatch {
  text: string;
  /** What cannot stand in a text. */
  blobs: Uint8Array[];
}

/** Throws a TypeError that names the first field of a wrong type. */
export function flatBatch(ops: readonly BatchOp[]): FlatBatch {
  if (!Array.isArray(ops)) throw wrong('ops', 'an array');
  const flat: FlatBatch = { text: '', blobs: [] };
  for (const op of ops as readonly BatchOp[]) {
    if (typeof op !== 'object' || op === null) throw wrong('op', 'an object');
    flat.text += text(op.op, 'op') + text(op.path, 'path') + rest(op, flat);
  }
  return flat;
}

function rest(op: BatchOp, flat: FlatBatch): string {
  switch (op.op) {
    case 'mkdir':
      return number(op.mode, 'mode') + flag(op.existOk) + owner(op);
    case 'write':
      return number(op.mode, 'mode') + bytes(op.data, 'data', flat) + flag(op.sync) + owner(op);
    case 'symlink':
      return text(op.target, 'target');
    case 'rename':
      return text(op.dest, 'dest') + flag(op.noReplace);
    case 'exchange':
      return text(op.dest, 'dest');
    case 'unlink':
    case 'rmdir':
      return flag(op.missingOk);
    case 'chmod':
      return number(op.mode, 'mode');
    case 'chown':
      return owner(op);
    case 'setxattr':
      return text(op.name, 'name') + bytes(op.value, 'value', flat);
    case 'removexattr':
      return text(op.name, 'name') + flag(op.missingOk);
    case 'mknod':
      return number(op.mode, 'mode') + number(op.major, 'major') + number(op.minor, 'minor');
    default:
      return ''; // fsync; the addon refuses what is none of these
  }
}

function text(value: unknown, name: string): string {
  if (typeof value !== 'string' || value.includes('\0')) throw wrong(name, 'a string without a zero byte');
  return `${value}\0`;
}

function number(value: unknown, name: string): string {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0) throw wrong(name, 'a whole number');
  return `${value}\0`;
}

function flag(value: boolean | undefined): string {
  return value === true ? '1\0' : '\0';
}

function owner({ uid, gid }: { uid?: number; gid?: number }): string {
  const id = (value: number | undefined, name: string): string => (value === undefined ? '\0' : number(value, name));
  return id(uid, 'uid') + id(gid, 'gid');
}

function bytes(value: unknown, name: string, flat: FlatBatch): string {
  if (typeof value === 'string' && !value.includes('\0')) return `=${value}\0`;
  if (typeof value !== 'string' && !(value instanceof Uint8Array)) throw wrong(name, 'a string or a Uint8Array');
  flat.blobs.push(typeof value === 'string' ? Buffer.from(value) : value);
  return '\0';
}

function wrong(name: string, expected: string): TypeError {
  return new TypeError(`"${name}" must be ${expected}`);
}
