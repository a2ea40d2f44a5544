/** Maps of GNU sparse files: the old format and PAX 0.0, 0.1 and 1.0. */
import { badTar } from './errors.js';
import { numeric, type TarHeader } from './header.js';
import { integer, type PaxRecords } from './pax.js';

/** A region that has data; all others read as zeros. */
export interface SparseRegion {
  offset: number;
  length: number;
}

/** Regions in a header or extension block of the old format: `count` of 24 bytes each from `at` on. */
export function oldGnuRegions(block: Buffer, at: number, count: number, offset: number): SparseRegion[] {
  const regions: SparseRegion[] = [];
  for (let index = 0; index < count; index++) {
    const from = at + index * 24;
    if (block[from] === 0) break; // an empty offset ends the map
    regions.push({
      offset: numeric(block, from, 12, 'sparse map', offset),
      length: numeric(block, from + 12, 12, 'sparse map', offset),
    });
  }
  return regions;
}

/** Which PAX sparse format the records speak of. */
export function paxSparseVersion(records: PaxRecords): '0' | '1.0' | undefined {
  const major = records.get('GNU.sparse.major') ?? '';
  const minor = records.get('GNU.sparse.minor') ?? '';
  if (major === '0' && (minor === '0' || minor === '1')) return '0';
  if (major === '1' && minor === '0') return '1.0';
  if (major !== '' || minor !== '') return undefined; // a version nobody knows: the file is as it lies there
  return (records.get('GNU.sparse.map') ?? '') === '' ? undefined : '0';
}

/** Applies name and size of the sparse records. */
export function applySparse(header: TarHeader, records: PaxRecords, offset: number): void {
  const name = records.get('GNU.sparse.name') ?? '';
  if (name !== '') header.name = name;
  const size = records.get('GNU.sparse.size') || records.get('GNU.sparse.realsize') || '';
  if (size !== '') header.size = integer(size, 'GNU.sparse.size', offset);
}

/** The map of formats 0.0 and 0.1. */
export function paxSparseRegions(records: PaxRecords, offset: number): SparseRegion[] {
  const map = records.get('GNU.sparse.map') ?? '';
  const numbers = map === '' ? [] : map.split(',').map((part) => integer(part, 'GNU.sparse.map', offset));
  const count = integer(records.get('GNU.sparse.numblocks') ?? '', 'GNU.sparse.numblocks', offset);
  if (numbers.length % 2 !== 0 || count * 2 !== numbers.length) {
    throw badTar('a sparse map is malformed', offset);
  }
  return pairs(numbers);
}

export function pairs(numbers: readonly number[]): SparseRegion[] {
  const regions: SparseRegion[] = [];
  for (let index = 0; index + 1 < numbers.length; index += 2)
    regions.push({ offset: numbers[index]!, length: numbers[index + 1]! });
  return regions;
}

/** Refuses regions that overlap, go backwards or leave the file, and data of another length than the map says. */
export function checkRegions(regions: readonly SparseRegion[], size: number, stored: number, offset: number): void {
  let end = 0;
  let total = 0;
  for (const { offset: from, length } of regions) {
    if (from < end || length < 0 || from + length > size) throw badTar('a sparse map is malformed', offset);
    end = from + length;
    total += length;
  }
  if (size < 0 || total !== stored) throw badTar('a sparse file has another amount of data than its map says', offset);
}
