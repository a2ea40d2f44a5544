import { openEngine } from '../engine/select.js';
import type { Engine, HashFileResult } from '../engine/engine.js';
import { checkOptions, checkSignal, checkText } from './arguments.js';

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
