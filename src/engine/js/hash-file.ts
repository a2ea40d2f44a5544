/** Digests of a file as it is, and of what it decompresses to. */
import { createHash } from 'node:crypto';
import type { DiffID } from '../../digest.js';
import type { HashFileResult } from '../engine.js';
import { DEFAULT_LIMITS } from '../limits.js';
import { decode } from './compression.js';
import { SourceReader } from './source.js';

/** See {@link Engine.hashFile}. */
export async function hashFile(path: string, options: { signal?: AbortSignal } = {}): Promise<HashFileResult> {
  const source = await SourceReader.open({ path }, { hash: true, ...options });
  try {
    const decoded = await decode(source, DEFAULT_LIMITS);
    const hash = createHash('sha256');
    let tarSize = 0;
    for await (const chunk of decoded.chunks) {
      options.signal?.throwIfAborted();
      tarSize += chunk.length;
      if (decoded.compression !== 'none') hash.update(chunk);
    }
    const digest = source.digest()!;
    const diffID = (decoded.compression === 'none' ? digest : `sha256:${hash.digest('hex')}`) as DiffID;
    return { digest, diffID, size: source.bytesRead, tarSize, compression: decoded.compression };
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    await source.close();
  }
}
