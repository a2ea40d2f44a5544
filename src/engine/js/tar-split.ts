/**
 * Tar-split records (vbatts/tar-split, tar/storage): gzip files of JSON lines. A line of type 2 is a segment of raw bytes of
 * the tar, one of type 1 a file whose content is read back from the tree. Names are latin1 text that stands for bytes.
 *
 * SplitWriter writes a record while a tar is read. A file that a later entry takes away can no longer be read back, so its
 * line must not stay: such changes are collected and applied by writing the record once more at the end. That is rare, and
 * costs nothing where it does not happen.
 */
import { isUtf8 } from 'node:buffer';
import { createReadStream, createWriteStream, type BigIntStats, type WriteStream } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { createGunzip, createGzip, type Gzip } from 'node:zlib';
import { LayerStoreError, systemError } from '../../errors.js';
import type { TarSplitTarget } from '../engine.js';
import { through } from './compression.js';
import { Crc64 } from './crc64.js';

export type SplitEntry =
  | { type: 2; payload: Buffer }
  | {
      type: 1;
      name: string;
      size: number;
      /** CRC-64 of the content; `undefined` where there is none. */ crc: Buffer | undefined;
    };

// Go's encoder writes these so, that JSON can stand inside HTML and JavaScript.
const GO_ESCAPES = /[<>&\u2028\u2029]/g;

function goString(text: string): string {
  return JSON.stringify(text).replace(
    GO_ESCAPES,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** One line with its newline. */
export function formatSplitEntry(entry: SplitEntry, position: number): string {
  if (entry.type === 2)
    return `{"type":2,"payload":"${entry.payload.toString('base64')}","position":${String(position)}}\n`;
  const bytes = Buffer.from(entry.name, 'latin1');
  let name = '';
  if (bytes.length > 0)
    name = isUtf8(bytes) ? `"name":${goString(bytes.toString())},` : `"name_raw":"${bytes.toString('base64')}",`;
  const size = entry.size === 0 ? '' : `"size":${String(entry.size)},`;
  const payload = entry.crc === undefined ? 'null' : `"${entry.crc.toString('base64')}"`;
  return `{"type":1,${name}${size}"payload":${payload},"position":${String(position)}}\n`;
}

/** Reads one line. Anything that is no such line is ERR_LAYER_CORRUPT. */
export function parseSplitEntry(line: string, position: number): SplitEntry {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw badRecord(position, 'it is no JSON', error);
  }
  if (typeof value !== 'object' || value === null) throw badRecord(position, 'it is not an object');
  const { type, name, name_raw: rawName, size, payload, position: stated } = value as Record<string, unknown>;
  if (stated !== position) throw badRecord(position, 'its position is another one');
  const bytes = payload === null || payload === undefined ? undefined : base64(payload, position);
  if (type === 2) return { type: 2, payload: bytes ?? Buffer.alloc(0) };
  if (type !== 1) throw badRecord(position, 'its type is unknown');
  if (size !== undefined && !(typeof size === 'number' && Number.isSafeInteger(size) && size >= 0))
    throw badRecord(position, 'its size is not a number');
  let text = '';
  if (typeof rawName === 'string') text = base64(rawName, position).toString('latin1');
  else if (typeof name === 'string') text = Buffer.from(name).toString('latin1');
  if (bytes !== undefined && bytes.length !== 8) throw badRecord(position, 'its checksum has not eight bytes');
  return { type: 1, name: text, size: size ?? 0, crc: bytes };
}

function base64(value: unknown, position: number): Buffer {
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(value) || value.length % 4 !== 0)
    throw badRecord(position, 'its payload is not base64');
  return Buffer.from(value, 'base64');
}

function badRecord(position: number, why: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `the tar-split record is damaged: line ${String(position)} cannot be read, ${why}; repair the layer from its tar`,
    { cause, detail: why },
  );
}

/** A line holds at most 1 MiB of raw bytes as base64, unless another writer chose longer segments. */
const MAX_LINE = 256 * 1024 * 1024;
const NEWLINE = 0x0a;

/** Entries in order. A damaged record is ERR_LAYER_CORRUPT; an error of the caller's stream comes through unchanged. */
export async function* readSplitEntries(source: { path: string } | Readable): AsyncGenerator<SplitEntry> {
  let position = 0;
  for await (const line of lines(
    'path' in source && typeof source.path === 'string' ? unzipped(source.path) : (source as Readable),
  )) {
    if (line !== '') yield parseSplitEntry(line, position++);
  }
}

async function* unzipped(path: string): AsyncGenerator<Buffer> {
  const file = createReadStream(path, { highWaterMark: 64 * 1024 });
  try {
    yield* through(createGunzip({ chunkSize: BATCH }), file, 'tar-split record');
  } catch (error) {
    if (LayerStoreError.is(error, 'ERR_BAD_COMPRESSION')) {
      throw new LayerStoreError(
        'ERR_LAYER_CORRUPT',
        `the tar-split record "${path}" is damaged: ${error.message}; repair the layer from its tar`,
        {
          cause: error,
          path,
        },
      );
    }
    throw systemError(error, 'read the tar-split record', undefined, { path });
  } finally {
    file.destroy();
  }
}

async function* lines(chunks: AsyncIterable<Buffer | string>): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let held = 0;
  for await (const given of chunks) {
    const chunk =
      typeof given === 'string' ? Buffer.from(given) : Buffer.from(given.buffer, given.byteOffset, given.byteLength);
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      const end = chunk.subarray(from, at);
      yield (parts.length === 0 ? end : Buffer.concat([...parts, end])).toString();
      parts = [];
      held = 0;
      from = at + 1;
    }
    if (from < chunk.length) {
      parts.push(chunk.subarray(from));
      held += chunk.length - from;
      if (held > MAX_LINE) {
        throw new LayerStoreError(
          'ERR_LAYER_CORRUPT',
          'the tar-split record is damaged: a line has no end; repair the layer from its tar',
        );
      }
    }
  }
  if (held > 0) yield Buffer.concat(parts).toString();
}

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
  /** What lies at such a place; undefined where there is nothing, or a link leads there: that would be another entry's. */
  find(path: string): Promise<BigIntStats | undefined>;
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
    try {
      return new SplitWriter(target, path, scratch, await LineFile.open(path));
    } catch (error) {
      if (scratch !== undefined) await rm(scratch, { recursive: true, force: true });
      throw error;
    }
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
      if (entry.size === 0 && !/(^|\/)\.wh\.[^/]*$/.test(path) && (await tree.find(path)) === undefined) continue;
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
  const found = await tree.find(path);
  if (found?.isFile() !== true || Number(found.size) !== line.size) return false;
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
