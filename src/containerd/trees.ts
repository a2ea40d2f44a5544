/**
 * For programs that open a store without serving it: tells the store which trees of its driver are those of snapshots, so
 * that its reports do not call them nobody's. Loads no gRPC.
 */
import type { Store } from '../store/types.js';
import { treesOf } from '../store/trees.js';
import { readRecords } from './records.js';
import { snapshotsDirectory } from './snapshots.js';

/** Records are read when a report asks. A store without snapshots costs nothing. */
export function answerForSnapshots(store: Store): void {
  const trees = treesOf(store);
  trees.setTreeSource('snapshots', async () => {
    const found = await readRecords(snapshotsDirectory(trees.root));
    if (found === undefined) return [];
    // A tree that no record names is a snapshot's, too: the next server removes it.
    return (await trees.driver.list()).filter((id) => id.startsWith(found.prefix));
  });
}
