/** What needs no store: digests of a tar on disk, a line for a change, the empty layer. */
import { Readable } from 'node:stream';
import { type ChainID, DIGEST_SHA256_EMPTY_TAR, parseChainID } from '../digest.js';
import { writeTar } from '../driver/exact-tar.js';
import type { Change, Engine, HashFileResult } from '../engine/engine.js';
import { openEngine } from '../engine/select.js';
import { invalidArgument, LayerStoreError } from '../errors.js';
import { checkExportOptions, checkOptions, checkSignal, checkText } from './arguments.js';
import { checkTarget, intoDescriptor, intoFile } from './export.js';
import type { Exported, ExportOptions, Layer } from './types.js';

let engine: Promise<Engine> | undefined;

/**
 * Digest and diff id of a tar on disk, plain, gzip or zstd, without a store. Sizes are bytes: of the file, and of the
 * uncompressed tar. Compression is told by content, not by name.
 * Rejects with `signal.reason` when aborted, with `ERR_SYSTEM`, `ERR_BAD_COMPRESSION`, or `ERR_INVALID_ARGUMENT`.
 *
 * @example
 * ```ts
 * const { diffID, digest, size, tarSize } = await hashFile('layer.tar');
 * console.log(diffID === digest, size === tarSize); // true true: it is not compressed
 * ```
 */
export async function hashFile(path: string, options: { signal?: AbortSignal } = {}): Promise<HashFileResult> {
  checkText(path, 'the path');
  checkOptions(options, 'options of hashFile', ['signal']);
  checkSignal(options.signal);
  engine ??= openEngine({ engine: 'auto' });
  return (await engine).hashFile(path, options);
}

const LETTERS = { modify: 'C', add: 'A', delete: 'D' } as const;

/**
 * One line for a change, without an end of line, as `docker diff` shows it: `C /etc`, `A /x`, `D /y`.
 * The path is written as it is; one that holds a line feed takes two lines.
 *
 * @example
 * ```ts
 * console.log(formatChange({ path: '/etc/motd', kind: 'add' })); // A /etc/motd
 * ```
 */
export function formatChange(change: Change): string {
  return `${LETTERS[change.kind]} ${change.path}`;
}

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
