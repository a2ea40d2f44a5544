import { createHash } from 'node:crypto';

/** Bytes that do not compress, the same each time. */
export function randomData(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let block = createHash('sha256').update('layerstore').digest();
  for (let at = 0; at < length; at += block.length) {
    block = createHash('sha256').update(block).digest();
    block.copy(bytes, at);
  }
  return bytes;
}
