/**
 * What Docker's image records and its builder refer to, for the store's gc: every chain id of every image. Read from
 * disk each time, so that what another writer added counts; throws where anything cannot be read: gc then deletes nothing.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { parseChainID, type ChainID } from '../digest.js';
import { systemError } from '../errors.js';
import { READ_REGULAR } from '../util/regular-file.js';
import { chainIDs, readConfig } from './config.js';
import { attempt, badImage, hasErrno } from './errors.js';
import { ImageDb } from './imagedb.js';
import { archiveLimits } from './limits.js';

/** A source for `Store.addReferenceSource`. */
export function imageReferences(root: string, driverName: string): () => Promise<Iterable<ChainID>> {
  const limits = archiveLimits();
  const db = new ImageDb({
    directory: join(root, 'image', driverName),
    sync: false,
    maxJsonBytes: limits.maxJsonBytes,
  });
  return async () => {
    const chains = await builderChains(root);
    for (const id of await db.list()) {
      for (const chain of chainIDs(readConfig(await db.read(id), limits).diffIDs)) chains.add(chain);
    }
    return chains;
  };
}

const CHUNK = 1024 * 1024;
const DIGEST_LENGTH = 'sha256:'.length + 64;
const MAGIC = 0xed0cdaed;
const META_SIZE = 80;

/**
 * Chain ids that Docker's builder refers to: `<root>/buildkit/snapshots.db`, a bolt database whose values name them as
 * text (moby, builder/builder-next/adapters/snapshot). The database is not parsed: bolt never splits a value, so every
 * chain id it holds stands somewhere in the file as `sha256:` and 64 digits. What only free pages still hold is taken too:
 * a layer kept too long does no harm.
 *
 * Empty where no builder ever ran here; throws where the database cannot be read completely.
 */
export async function builderChains(root: string): Promise<Set<ChainID>> {
  const path = join(root, 'buildkit', 'snapshots.db');
  let file: FileHandle;
  try {
    file = await open(path, READ_REGULAR);
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return new Set();
    throw systemError(error, "read the state of Docker's builder");
  }
  try {
    return await attempt("read the state of Docker's builder", async () => {
      await checkWhole(file, path);
      return scan(file);
    });
  } finally {
    await file.close();
  }
}

/** A file that is not a bolt database, or ends before the last page it says it has, may have lost what we look for. */
async function checkWhole(file: FileHandle, path: string): Promise<void> {
  const stats = await file.stat();
  if (!stats.isFile())
    throw badImage(`"${path}" is not a regular file, so it is unknown which layers Docker's builder needs`);
  const { size } = stats;
  if (size === 0) return; // Bolt makes the file before it writes the first pages: nothing is in it yet.
  const head = Buffer.alloc(2 * 65_536);
  const { bytesRead } = await file.read(head, 0, head.length, 0);
  // Two meta pages, of which a crash may have damaged one; the page size is the system's, 4 to 64 KiB.
  for (const start of [0, 4_096, 8_192, 16_384, 32_768, 65_536]) {
    const meta = head.subarray(start + 16, start + META_SIZE);
    if (start + META_SIZE > bytesRead || meta.readUInt32LE(0) !== MAGIC) continue;
    const pageSize = meta.readUInt32LE(8);
    const pages = meta.readBigUInt64LE(40);
    if (BigInt(size) >= pages * BigInt(pageSize)) return;
  }
  throw badImage(`"${path}" is not a whole bolt database, so it is unknown which layers Docker's builder needs`);
}

async function scan(file: FileHandle): Promise<Set<ChainID>> {
  const chains = new Set<ChainID>();
  const buffer = Buffer.alloc(CHUNK);
  for (let position = 0; ; position += CHUNK - DIGEST_LENGTH) {
    const { bytesRead } = await file.read(buffer, 0, CHUNK, position);
    for (const [digest] of buffer.toString('latin1', 0, bytesRead).matchAll(/sha256:[a-f0-9]{64}/g))
      chains.add(parseChainID(digest));
    if (bytesRead < CHUNK) return chains;
  }
}
