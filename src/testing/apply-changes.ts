/** Applies a change list to a directory, the same way wherever that lies: times of everything touched are set by a counter. */
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import type { TreeChange } from './change-list.js';
import type { XattrChange } from './xattrs.js';
import { writeXattrs } from './xattrs.js';

/** Where the counter of times starts; a quarter of a second is a number that doubles hold exactly. */
const EPOCH = 1_600_000_000.25;

/**
 * Applies `changes` below `root`. `start` shifts the times that files and their directories get: give each layer's list
 * another one. The same list gives the same tree, times included.
 */
export function applyChanges(root: string, changes: readonly TreeChange[], start = 0): void {
  const at = (path: string): Buffer => Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, 'latin1')]);
  let time = EPOCH + start * 10_000;
  const touched = new Map<string, number>();
  for (const [i, change] of changes.entries()) {
    time += 1;
    if (change.do === 'xattr') {
      // All that follow each other at once: each call is a process.
      if (changes[i - 1]?.do !== 'xattr') writeXattrs(xattrsFrom(at, changes, i));
      continue;
    }
    const changed = applyOne(at, change);
    if (change.do === 'remove') move(touched, change.path, undefined);
    if (change.do === 'rename') move(touched, change.path, change.to);
    for (const path of changed) touched.set(path, time);
    if (change.do === 'touch') touched.set(change.path, change.mtime);
  }
  // Deepest first, so that no directory changes again after its own time was set; the root belongs to the driver.
  const paths = [...touched.keys()]
    .filter((path) => path !== '')
    .sort((a, b) => b.split('/').length - a.split('/').length);
  for (const path of paths) {
    const mtime = touched.get(path) ?? time;
    if (fs.lstatSync(at(path), { throwIfNoEntry: false }) !== undefined) fs.lutimesSync(at(path), mtime, mtime);
  }
}

function xattrsFrom(at: (path: string) => Buffer, changes: readonly TreeChange[], start: number): XattrChange[] {
  const batch: XattrChange[] = [];
  for (const change of changes.slice(start)) {
    if (change.do !== 'xattr') break;
    const value = change.value === undefined ? undefined : Buffer.from(change.value, 'latin1');
    batch.push({ path: at(change.path), name: change.name, value });
  }
  return batch;
}

/** Times of what is renamed or removed go with it. */
function move(touched: Map<string, number>, from: string, to: string | undefined): void {
  for (const [known, time] of [...touched]) {
    if (known !== from && !known.startsWith(`${from}/`)) continue;
    touched.delete(known);
    if (to !== undefined) touched.set(to + known.slice(from.length), time);
  }
}

const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf('/')));

/** Gives the paths whose times changed. */
function applyOne(at: (path: string) => Buffer, change: Exclude<TreeChange, { do: 'xattr' }>): string[] {
  const path = at(change.path);
  switch (change.do) {
    case 'mkdir':
      fs.mkdirSync(path);
      fs.chmodSync(path, change.mode);
      return [change.path, parentOf(change.path)];
    case 'file':
      fs.writeFileSync(path, Buffer.from(change.content, 'latin1'));
      fs.chmodSync(path, change.mode);
      return [change.path, parentOf(change.path)];
    case 'append':
      fs.appendFileSync(path, Buffer.from(change.content, 'latin1'));
      return [change.path];
    case 'sparse':
      writeSparse(path, change);
      return [change.path, parentOf(change.path)];
    case 'remove':
      fs.rmSync(path, { recursive: true });
      return [parentOf(change.path)];
    case 'rename':
      return renameOrCopy(path, at(change.to), change);
    case 'link':
      fs.linkSync(path, at(change.to));
      // The inode's time too: the name that it had first may be removed before times are set.
      return [change.path, change.to, parentOf(change.to)];
    case 'symlink':
      fs.symlinkSync(Buffer.from(change.target, 'latin1'), path);
      return [change.path, parentOf(change.path)];
    case 'mknod':
      makeNode(path, change);
      return [change.path, parentOf(change.path)];
    case 'chmod':
      fs.chmodSync(path, change.mode);
      return [];
    case 'chown':
      fs.lchownSync(path, change.uid, change.gid);
      return [];
    case 'touch':
      return [];
  }
}

function writeSparse(path: Buffer, { size, data, mode }: Extract<TreeChange, { do: 'sparse' }>): void {
  const fd = fs.openSync(path, 'w');
  try {
    fs.ftruncateSync(fd, size);
    for (const { at, content } of data) fs.writeSync(fd, Buffer.from(content, 'latin1'), 0, null, at);
    fs.fchmodSync(fd, mode);
  } finally {
    fs.closeSync(fd);
  }
}

/** Overlayfs answers EXDEV where a directory of a lower layer would move. */
function renameOrCopy(path: Buffer, to: Buffer, change: { path: string; to: string }): string[] {
  try {
    fs.renameSync(path, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    // execFile takes text only; change lists keep odd bytes out of directories that they rename.
    execFileSync('cp', ['-a', '--', path.toString(), to.toString()]);
    fs.rmSync(path, { recursive: true });
  }
  return [parentOf(change.path), parentOf(change.to)];
}

function makeNode(path: Buffer, { type, major, minor, mode }: Extract<TreeChange, { do: 'mknod' }>): void {
  const numbers = type === 'p' ? [] : [String(major), String(minor)];
  execFileSync('mknod', ['--', path.toString(), type, ...numbers]);
  fs.chmodSync(path, mode);
}
