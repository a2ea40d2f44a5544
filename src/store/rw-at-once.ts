/**
 * RW layers made and thrown away in one call of the engine each: intent, directories, record, end of the intent, in the
 * order and with the syncs that the step-by-step way has, but that the record is its own intent. Only for the plain case;
 * whoever calls goes the other way where these say no.
 */
import { LayerStoreError } from '../errors.js';
import type { MountRecord } from '../metadata/metadata-store.js';
import { errorFields } from '../util/logger.js';
import type { StoreContext } from './context.js';
import type { RWNode } from './rw-map.js';
import type { CreateRWLayerOptions } from './types.js';

/** False where it takes more than one call. Rejects as a batch fails: what is made is taken back, but renames stay. */
export async function createAtOnce(
  ctx: StoreContext,
  name: string,
  record: MountRecord,
  parentCacheID: string | undefined,
  options: CreateRWLayerOptions,
): Promise<boolean> {
  const { driver, metadata, intents } = ctx;
  if (options.initFunc !== undefined || !intents.holdsRecords || !metadata.recordsAreFiles) return false;
  const { mountLabel, storageOpt } = options;
  const place = intents.place(record.id);
  try {
    const { steps, later } = metadata.setMountSteps(name, record, place.path);
    await driver.createReadWrite(
      record.id,
      parentCacheID,
      { ...(mountLabel === undefined ? {} : { mountLabel }), ...(storageOpt === undefined ? {} : { storageOpt }) },
      { before: intents.makePlace(place, { sync: ctx.durability === 'strict' }), after: [...steps, ...later] },
    );
    return true;
  } catch (error) {
    // All was taken back. A record that nobody knows of has the name: step by step it is replaced.
    if (LayerStoreError.is(error) && error.errnoName === 'EEXIST') return false;
    if (!noticeApart(ctx, error)) throw error;
    return false;
  } finally {
    place.settle();
  }
}

/** False where it takes more than one call, or that call failed: step by step it goes on from wherever it stopped. */
export async function removeAtOnce(ctx: StoreContext, node: RWNode): Promise<boolean> {
  const { driver, metadata, intents } = ctx;
  if (node.initID !== undefined || node.readers.count > 0 || !intents.holdsRecords) return false;
  if (!metadata.recordsAreFiles) return false;
  const place = intents.place(node.mountID);
  // No reader comes in from here on; where this fails its handles are as good as before.
  const owners = new Map(node.owners);
  node.owners.clear();
  try {
    const { steps, later } = metadata.removeMountSteps(node.name, place.path);
    const unlink = await driver.detach(node.mountID, { before: steps, after: later });
    void ctx.background.push(unlink);
    return true;
  } catch (error) {
    for (const [owner, count] of owners) node.owners.set(owner, count);
    noticeApart(ctx, error);
    ctx.logger.debug(
      { name: node.name, ...errorFields(error) },
      'an RW layer does not go in one step; step by step now',
    );
    return false;
  } finally {
    place.settle();
  }
}

/** Whether it failed because records and intents lie on different file systems, which is remembered. */
function noticeApart(ctx: StoreContext, error: unknown): boolean {
  if (!LayerStoreError.is(error) || error.errnoName !== 'EXDEV') return false;
  ctx.intents.holdsRecords = false;
  return true;
}
