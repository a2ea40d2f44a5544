/** The layer of the empty tar, 1,024 zero bytes. It needs no store, no handle and no release. */
import { Readable } from 'node:stream';
import { DIGEST_SHA256_EMPTY_TAR, parseChainID, type ChainID } from '../digest.js';
import { invalidArgument, LayerStoreError } from '../errors.js';
import { checkExportOptions } from './arguments.js';
import { writeTar } from '../driver/exact-tar.js';
import { checkTarget, intoDescriptor, intoFile } from './export.js';
import type { Exported, ExportOptions, Layer } from './types.js';

const SIZE = 1024;
const CHAIN: ChainID = parseChainID(DIGEST_SHA256_EMPTY_TAR);

function stream(): Readable {
  return Readable.from([Buffer.alloc(SIZE)], { objectMode: false });
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
      throw invalidArgument(`"${parseChainID(ancestor)}" is not an ancestor of the empty layer: it has none`);
    return stream();
  },
  async exportTo(target: { path: string } | { fd: number }, options?: ExportOptions): Promise<Exported> {
    const { path, fd } = checkTarget(target);
    const given = checkExportOptions(options);
    given.signal?.throwIfAborted();
    const write = async (to: number): Promise<Exported> => ({
      ...(await writeTar(stream(), to, given)),
      diffID: DIGEST_SHA256_EMPTY_TAR,
    });
    return fd === undefined ? intoFile(path, false, write) : intoDescriptor(fd, write);
  },
  async tarSize() {
    return SIZE;
  },
  async entries() {
    return Readable.from([]);
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
