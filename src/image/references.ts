/**
 * What Docker's image records refer to, for the store's gc: every chain id of every image. Read from disk each time, so
 * that what another writer added counts; throws where anything cannot be read, and gc then deletes nothing.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import { chainIDs, readConfig } from './config.js';
import { badImage, hasErrno } from './errors.js';
import { ImageDb } from './imagedb.js';
import { archiveLimits } from './limits.js';

/** A source for `Store.addReferenceSource`. */
export function imageReferences(root: string, driverName: string): () => Promise<Iterable<ChainID>> {
  const limits = archiveLimits();
  const db = new ImageDb({ directory: join(root, 'image', driverName), sync: false, maxJsonBytes: limits.maxJsonBytes });
  return async () => {
    await refuseBuilderState(root);
    const chains = new Set<ChainID>();
    for (const id of await db.list()) {
      for (const chain of chainIDs(readConfig(await db.read(id), limits).diffIDs)) chains.add(chain);
    }
    return chains;
  };
}

/** Docker's builder names chains in a database of its own; what cannot be read must be taken for a reference. */
async function refuseBuilderState(root: string): Promise<void> {
  const path = join(root, 'buildkit', 'snapshots.db');
  try {
    await stat(path);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return;
    throw error;
  }
  throw badImage(`"${path}" holds the state of Docker's builder, which cannot be read here`);
}
