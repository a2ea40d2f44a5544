/** What the tests of the JavaScript engine share. */
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import type { IngestRequest, IngestResult, TarSource } from '../../../src/engine/engine.js';
import { createJsEngine } from '../../../src/engine/js/index.js';
import { directoryGetter } from '../../../src/testing/engine-suite-tars.js';

export const engine = createJsEngine();

const SAMPLES = fileURLToPath(new URL('../../data/tar', import.meta.url));

/** Real tars, decompressed. */
export function samples(): { name: string; path: string; bytes: Buffer }[] {
  return readdirSync(SAMPLES)
    .filter((name) => !name.endsWith('.md'))
    .sort()
    .map((name) => {
      const path = join(SAMPLES, name);
      const bytes = readFileSync(path);
      return { name, path, bytes: bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes };
    });
}

export interface Taken {
  result: IngestResult;
  tree: string;
  record: string;
}

let count = 0;

/** Ingests into a new directory below `base`. */
export async function take(
  base: string,
  source: TarSource | Uint8Array,
  options: Partial<IngestRequest> = {},
): Promise<Taken> {
  const tree = join(base, `tree${String(++count)}`);
  const record = `${tree}.json.gz`;
  mkdirSync(tree);
  const result = await engine.ingest(source instanceof Uint8Array ? Readable.from([source]) : source, {
    directory: tree,
    whiteouts: 'overlay',
    tarSplit: { path: record },
    ...options,
  });
  return { result, tree, record };
}

/** The tar given back. */
export async function give({ result, tree, record }: Taken): Promise<Buffer> {
  return buffer(
    await engine.assemble({ tarSplit: { path: record }, tree: directoryGetter(tree), diffID: result.diffID }),
  );
}

/** Lines of a record, parsed. */
export function recordLines(path: string): { type: number; name?: string; size?: number; payload: string | null }[] {
  return gunzipSync(readFileSync(path))
    .toString()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: number; payload: string | null });
}

/** Names that have a line of their own. */
export function recordNames(path: string): string[] {
  return recordLines(path).flatMap((line) => (line.type === 1 ? [line.name ?? ''] : []));
}

export function* pieces(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
