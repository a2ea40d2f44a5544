/**
 * What Docker's image records and its builder refer to, for the store's gc: every chain id of every image. Read from
 * disk each time, so that what another writer added counts; throws where anything cannot be read: gc then deletes nothing.
 */
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import { builderChains } from './builder-state.js';
import { chainIDs, readConfig } from './config.js';
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
