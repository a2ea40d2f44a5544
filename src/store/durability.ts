/**
 * When data is on disk. `strict`: a layer's files before its record, by one data sync that concurrent registrations
 * share; the record's own sync and rename are the metadata store's. `relaxed`: the same order without the syncs.
 */
import { raceAbort } from '../util/abort.js';
import type { StoreContext } from './context.js';

/** What was written for these driver ids before this call is on disk when it resolves. An abort does not wait for the disk. */
export async function syncData(ctx: StoreContext, ids: readonly string[], signal?: AbortSignal): Promise<void> {
  if (ctx.durability !== 'strict' || ids.length === 0) return;
  await raceAbort(ctx.driver.sync(ids), signal);
}
