/**
 * When data is on disk. `strict`: a layer's files before its record, by one data sync that concurrent registrations
 * share; the record's own sync and rename are the metadata store's. `relaxed`: the same order without the syncs.
 */
import { raceAbort } from '../util/abort.js';
import type { StoreContext } from './context.js';

/** What was written for these driver ids before this call is on disk when it resolves. An abort does not wait for the disk. */
export async function syncData(ctx: StoreContext, ids: readonly string[], signal?: AbortSignal): Promise<void> {
  if (ctx.durability !== 'strict' || ids.length === 0) return;
  // A driver that says nothing of its files: the root's file system is the best guess there is.
  const sync = ctx.driver.sync === undefined ? ctx.engine.syncFs([ctx.root]) : ctx.driver.sync(ids);
  await raceAbort(sync, signal);
}
