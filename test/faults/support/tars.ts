/** Small layers of every shape, the same ones for the same numbers in every process. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import type { DiffID } from '../../../src/digest.js';
import { buildTar, type TarEntry } from '../../../src/testing/tar-builder.js';
import { pick, seededRandom } from '../../support/random.js';

export interface SampleTar {
  bytes: Buffer;
  diffID: DiffID;
}

const cache = new Map<string, SampleTar>();

/** The tar number `index` of `lane`: a few directories, files up to 200 KB, links, whiteouts. */
export function sampleTar(lane: number, index: number): SampleTar {
  const key = `${lane}/${index}`;
  const known = cache.get(key);
  if (known !== undefined) return known;
  const random = seededRandom(lane * 1009 + index);
  const entries: TarEntry[] = [{ name: 'etc/', type: '5', mode: 0o755, mtime: 1_600_000_000 }];
  const files = 1 + pick(random, 8);
  for (let n = 0; n < files; n += 1) {
    const size = pick(random, 8) === 0 ? pick(random, 200_000) : pick(random, 3_000);
    const content = Buffer.alloc(size, `${key}/${n} `);
    entries.push({ name: `etc/file-${n}`, content, mode: 0o640, mtime: 1_600_000_000 + n });
  }
  entries.push(
    { name: 'etc/again', type: '1', linkname: 'etc/file-0', mode: 0o640, mtime: 1_600_000_000 },
    { name: 'link', type: '2', linkname: `etc/${key}`, mode: 0o777 },
    { name: `etc/.wh.file-${pick(random, 9)}-old`, mode: 0o600 },
  );
  const bytes = buildTar(entries);
  const made = { bytes, diffID: `sha256:${createHash('sha256').update(bytes).digest('hex')}` as DiffID };
  cache.set(key, made);
  return made;
}

/** The same bytes in one of the ways in which they come. */
export function sourceOf(tar: SampleTar, random: () => number): Readable {
  const bytes = pick(random, 3) === 0 ? gzipSync(tar.bytes, { level: 1 }) : tar.bytes;
  const half = Math.floor(bytes.length / 2);
  return Readable.from([bytes.subarray(0, half), bytes.subarray(half)]);
}
