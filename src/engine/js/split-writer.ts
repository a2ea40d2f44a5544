/**
 * SplitWriter: writes a tar-split record while a tar is read.
 *
 * A file that a later entry takes away can no longer be read back, so its line must not stay: such changes are collected
 * and applied by writing the record once more at the end. That is rare, and costs nothing where it does not happen.
 */
import { createReadStream, createWriteStream, type WriteStream } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { createGzip, type Gzip } from 'node:zlib';
import { systemError } from '../../errors.js';
import type { TarSplitTarget } from '../engine.js';
import { Crc64 } from './crc64.js';
import { formatSplitEntry, type SplitEntry } from './split-record.js';
import { readSplitEntries } from './split-reader.js';

const SEGMENT = 1024 * 1024;
const BATCH = 64 * 1024;

/** Lines before this one have their content in a file of its own, since a later entry took the name. */
interface Replacement {
  before: number;
  content: string;
}

/** What the last pass needs of the finished tree. */
export interface FinishedTree {
  /** The place in the tree of an entry's name. */
  path(name: string): string;
  /** Content of the file at such a place. */
  read(path: string): AsyncIterable<Buffer>;
  /** Bytes of the regular file at such a place; undefined where there is none. */
  size(path: string): Promise<number | undefined>;
  /** Whether there is anything at such a place. */
  has(path: string): Promise<boolean>;
}

export class SplitWriter {
  readonly #target: TarSplitTarget;
  /** The gzip file that is written: the target's own, or a scratch file. */
  readonly #path: string;
  readonly #scratch: string | undefined;
  #lines: LineFile;
  #position = 0;
  readonly #replaced = new Map<string, Replacement[]>();
  #again = false;

  private constructor(target: TarSplitTarget, path: string, scratch: string | undefined, lines: LineFile) {
    this.#target = target;
    this.#path = path;
    this.#scratch = scratch;
    this.#lines = lines;
  }

  static async open(target: TarSplitTarget): Promise<SplitWriter> {
    const scratch = 'path' in target ? undefined : await mkdtemp(join(tmpdir(), 'layerstore-split-'));
    const path = 'path' in target ? target.path : join(scratch ?? '', 'record.gz');
    return new SplitWriter(target, path, scratch, await LineFile.open(path));
  }

  /** Number of lines so far. */
  get position(): number {
    return this.#position;
  }

  /** Raw bytes; nothing for none. */
  async segment(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; at += SEGMENT) {
      await this.#write({ type: 2, payload: bytes.subarray(at, at + SEGMENT) });
    }
  }

  async file(name: string, size: number, crc: Buffer | undefined): Promise<void> {
    await this.#write({ type: 1, name, size, crc });
  }

  /** The entry named `path` (as it lies in the tree) is gone or has a namesake; `content`: a file that keeps what it had. */
  replaced(path: string, content: string | undefined): void {
    this.#again = true;
    if (content === undefined) return;
    const list = this.#replaced.get(path) ?? [];
    list.push({ before: this.#position, content });
    this.#replaced.set(path, list);
  }

  /** Writes the record to its end. */
  async finish(tree: FinishedTree): Promise<void> {
    await this.#lines.end();
    if (this.#again) await this.#rewrite(tree);
    if ('writer' in this.#target) await copyLines(this.#path, this.#target.writer);
    await this.#removeScratch();
  }

  /** Takes away what was written. */
  async abort(): Promise<void> {
    this.#lines.destroy();
    await rm(this.#path, { force: true });
    await rm(`${this.#path}.rewrite`, { force: true });
    await this.#removeScratch();
  }

  async #removeScratch(): Promise<void> {
    if (this.#scratch !== undefined) await rm(this.#scratch, { recursive: true, force: true });
  }

  async #write(entry: SplitEntry): Promise<void> {
    await this.#lines.write(formatSplitEntry(entry, this.#position));
    this.#position++;
  }

  /** No name has two lines, and no line stands for content that cannot be read back. */
  async #rewrite(tree: FinishedTree): Promise<void> {
    const path = `${this.#path}.rewrite`;
    this.#lines = await LineFile.open(path);
    this.#position = 0;
    const names = new Set<string>();
    let line = -1;
    for await (const entry of readSplitEntries({ path: this.#path })) {
      line++;
      if (entry.type === 2) {
        await this.#write(entry);
        continue;
      }
      const path = tree.path(entry.name);
      // Nothing that could be looked at; a whiteout's own name never leads to anything.
      if (entry.size === 0 && !/(^|\/)\.wh\.[^/]*$/.test(path) && !(await tree.has(path))) continue;
      const replacement = entry.size === 0 ? undefined : this.#replaced.get(path)?.find(({ before }) => before > line);
      // What was replaced may be in the tree as well: then the first line of that name stays, in either engine.
      const stays = replacement === undefined || (!names.has(path) && (await holds(tree, path, entry)));
      if (!stays) await this.#segments(createReadStream(replacement.content, { highWaterMark: SEGMENT }));
      else if (!names.has(path)) await this.#write(entry);
      else if (entry.size > 0) await this.#segments(tree.read(path));
      if (stays) names.add(path);
    }
    await this.#lines.end();
    await rename(path, this.#path);
  }

  async #segments(content: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of content) await this.segment(chunk);
  }
}

/** Whether the file at `path` has the content of the line at the end. */
async function holds(
  tree: FinishedTree,
  path: string,
  line: { size: number; crc: Buffer | undefined },
): Promise<boolean> {
  if ((await tree.size(path)) !== line.size) return false;
  const crc = new Crc64();
  for await (const chunk of tree.read(path)) crc.update(chunk);
  return line.crc?.equals(crc.digest()) === true;
}

/** Plain lines of a finished record into the caller's stream, which is ended. */
async function copyLines(path: string, writer: Writable): Promise<void> {
  let position = 0;
  const failure = finished(writer);
  failure.catch(() => undefined); // awaited below; until then a failure must not count as unhandled
  for await (const entry of readSplitEntries({ path })) {
    if (!writer.write(formatSplitEntry(entry, position++))) {
      await Promise.race([new Promise((resolve) => writer.once('drain', resolve)), failure]);
    }
  }
  writer.end();
  await failure;
}

/** A gzip file of lines, level 1 as Docker's records are made for speed. */
class LineFile {
  readonly #path: string;
  readonly #gzip: Gzip;
  readonly #file: WriteStream;
  readonly #done: Promise<void>;
  #batch: string[] = [];
  #bytes = 0;

  private constructor(path: string, file: WriteStream) {
    this.#path = path;
    this.#file = file;
    this.#gzip = createGzip({ level: 1, chunkSize: BATCH });
    this.#done = finished(this.#file);
    this.#done.catch(() => undefined); // awaited by write and end
    this.#file.once('error', (error) => this.#gzip.destroy(error));
    this.#gzip.once('error', (error) => this.#file.destroy(error));
    this.#gzip.pipe(this.#file);
  }

  static async open(path: string): Promise<LineFile> {
    const file = createWriteStream(path, { flags: 'wx', mode: 0o600 });
    await new Promise<void>((resolve, reject) => {
      file.once('open', () => resolve());
      file.once('error', (error) =>
        reject(systemError(error, 'write the tar-split record', undefined, { path }) as Error),
      );
    });
    return new LineFile(path, file);
  }

  async write(line: string): Promise<void> {
    this.#batch.push(line);
    this.#bytes += line.length;
    if (this.#bytes >= BATCH) await this.#flush();
  }

  async #flush(): Promise<void> {
    const text = this.#batch.join('');
    this.#batch = [];
    this.#bytes = 0;
    if (this.#gzip.destroyed) await this.#failed();
    if (text !== '' && !this.#gzip.write(text)) {
      await Promise.race([new Promise((resolve) => this.#gzip.once('drain', resolve)), this.#failed()]);
    }
  }

  async end(): Promise<void> {
    await this.#flush();
    this.#gzip.end();
    await this.#failed();
  }

  async #failed(): Promise<void> {
    try {
      await this.#done;
    } catch (error) {
      throw systemError(error, 'write the tar-split record', undefined, { path: this.#path });
    }
  }

  destroy(): void {
    this.#gzip.destroy();
    this.#file.destroy();
  }
}
