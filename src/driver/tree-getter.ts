/**
 * One layer's files, without a mount. A name from a tar is resolved inside the layer's directory as unpacking resolved
 * it: links lead nowhere else, `..` stops at the top. What was opened is checked once more by its descriptor.
 */
import { constants } from 'node:fs';
import { lstat, open, readlink, realpath, type FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { LayerStoreError, systemError } from '../errors.js';
import type { DiffGetter } from '../engine/engine.js';
import { quote } from '../util/quote.js';
import { hasErrno } from './files.js';

const MAX_LINKS = 40;
const SLASH = 0x2f;
const UP = Buffer.of(0x2e, 0x2e);

export class TreeGetter implements DiffGetter {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  async open(name: Uint8Array): Promise<Readable> {
    const bytes = Buffer.from(name);
    let file: FileHandle | undefined;
    try {
      const path = await this.#resolve(bytes);
      file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      await this.#check(file, bytes);
    } catch (error) {
      await file?.close();
      if (hasErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO')) throw this.#gone(bytes, error);
      throw systemError(error, 'open a file of the layer');
    }
    return file.createReadStream({ highWaterMark: 256 * 1024 });
  }

  async close(): Promise<void> {
    // Nothing is held between two calls.
  }

  /** The path of `name` with every link but the last component's followed inside the directory. */
  async #resolve(name: Buffer): Promise<Buffer> {
    const todo = split(name);
    const done: Buffer[] = [];
    for (let links = 0, part = todo.shift(); part !== undefined; part = todo.shift()) {
      if (part.equals(UP)) {
        done.pop();
        continue;
      }
      const path = this.#join([...done, part]);
      if (todo.length > 0 && (await lstat(path)).isSymbolicLink()) {
        if (++links > MAX_LINKS) throw this.#gone(name, 'too many symbolic links');
        const target = await readlink(path, { encoding: 'buffer' });
        if (target[0] === SLASH) done.length = 0;
        todo.unshift(...split(target));
      } else {
        done.push(part);
      }
    }
    return this.#join(done);
  }

  #join(parts: readonly Buffer[]): Buffer {
    return Buffer.concat([Buffer.from(this.directory), ...parts.flatMap((part) => [Buffer.from('/'), part])]);
  }

  async #check(file: FileHandle, name: Buffer): Promise<void> {
    if (!(await file.stat()).isFile()) throw this.#gone(name, 'it is not a regular file');
    const where = await readlink(`/proc/self/fd/${file.fd}`, { encoding: 'buffer' });
    const top = Buffer.from(`${await realpath(this.directory)}/`);
    if (!where.subarray(0, top.length).equals(top)) {
      throw new LayerStoreError(
        'ERR_UNSAFE_PATH',
        `refusing to read ${quote(name.toString())}: it leads out of the layer "${this.directory}"`,
      );
    }
  }

  #gone(name: Buffer, cause: unknown): LayerStoreError {
    const why = typeof cause === 'string' ? cause : 'it is not there';
    return new LayerStoreError(
      'ERR_LAYER_CORRUPT',
      `cannot give the file ${quote(name.toString())} of the layer in "${this.directory}": ${why}`,
      { path: name.toString(), cause: typeof cause === 'string' ? undefined : cause },
    );
  }
}

function split(name: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let from = 0; from <= name.length;) {
    const slash = name.indexOf(SLASH, from);
    const end = slash < 0 ? name.length : slash;
    const part = name.subarray(from, end);
    if (part.length > 0 && !(part.length === 1 && part[0] === 0x2e)) parts.push(part);
    from = end + 1;
  }
  return parts;
}
