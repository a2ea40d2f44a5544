/** Reads tar-split records: gzip files, or streams of plain JSON lines. */
import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { LayerStoreError, systemError } from '../../errors.js';
import { through } from './decode.js';
import { parseSplitEntry, type SplitEntry } from './split-record.js';

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
    yield* through(createGunzip(), file, 'tar-split record');
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
