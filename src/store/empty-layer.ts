/** The layer of the tar that holds nothing: 1,024 zero bytes. It needs no store, no handle and no release. */
import { write } from 'node:fs';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { DIGEST_SHA256_EMPTY_TAR, parseChainID, type ChainID } from '../digest.js';
import { LayerStoreError, systemError } from '../errors.js';
import { compressTo } from '../engine/js/compress.js';
import { checkExportOptions, invalid } from './arguments.js';
import { checkTarget, intoFile } from './export.js';
import type { Exported, ExportOptions, Layer } from './types.js';

const SIZE = 1024;
const CHAIN: ChainID = parseChainID(DIGEST_SHA256_EMPTY_TAR);
const writeTo = promisify(write);

function stream(): Readable {
  return Readable.from([Buffer.alloc(SIZE)], { objectMode: false });
}

async function writeZeros(fd: number): Promise<void> {
  const zeros = Buffer.alloc(SIZE);
  let written = 0;
  try {
    while (written < SIZE) written += (await writeTo(fd, zeros, written)).bytesWritten;
  } catch (error) {
    throw systemError(error, 'write the export to its descriptor');
  }
}

/**
 * The layer of {@link DIGEST_SHA256_EMPTY_TAR}: size 0, no parent, a tar of 1,024 bytes. It is no handle of a
 * store's: not to be released. `view()` rejects with `ERR_NOT_SUPPORTED`.
 *
 * @example
 * ```ts
 * console.log(await emptyLayer.size(), await emptyLayer.tarSize()); // 0 1024
 * await emptyLayer.exportTo({ path: 'empty.tar' });
 * console.log((await hashFile('empty.tar')).diffID === emptyLayer.diffID); // true
 * ```
 */
export const emptyLayer: Layer = Object.freeze({
  chainID: CHAIN,
  diffID: DIGEST_SHA256_EMPTY_TAR,
  parent: undefined,
  descriptor: undefined,
  async tarStream() {
    return stream();
  },
  async tarStreamFrom(ancestor?: ChainID) {
    if (ancestor !== undefined)
      throw invalid(`"${parseChainID(ancestor)}" is no ancestor of the empty layer: it has none`);
    return stream();
  },
  async exportTo(target: { path: string } | { fd: number }, options?: ExportOptions): Promise<Exported> {
    const { path, fd } = checkTarget(target);
    const { compression } = checkExportOptions(options);
    const exported: Exported = { bytes: SIZE, diffID: DIGEST_SHA256_EMPTY_TAR };
    const write = async (to: number): Promise<void> => {
      if (compression === undefined) await writeZeros(to);
      else exported.blob = await compressTo(stream(), compression, to);
    };
    if (fd === undefined) await intoFile(path, false, write);
    else await write(fd);
    return exported;
  },
  async tarSize() {
    return SIZE;
  },
  async view(): Promise<never> {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      'the empty layer has no directory to view: register an empty tar for one',
    );
  },
  async size() {
    return 0;
  },
  async diffSize() {
    return 0;
  },
  async metadata() {
    return {};
  },
});
