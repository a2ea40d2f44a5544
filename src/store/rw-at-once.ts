/**
 * RW layers made and thrown away in one call of the engine each: intent, directories, record, end of the intent, in the
 * order and with the syncs that the step-by-step way has. Only for the plain case; whoever calls goes the other way where
 * these say no.
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
  const { driver, metadata } = ctx;
  if (options.initFunc !== undefined || driver.sync === undefined) return false;
  if (driver.createReadWriteWith === undefined || metadata.setMountSteps === undefined) return false;
  const { mountLabel, storageOpt } = options;
  const written = metadata.setMountSteps(name, record);
  const intent = ctx.intents.steps(record.id, { kind: 'rw', name }, { sync: ctx.durability === 'strict' });
  let done = false;
  try {
    await driver.createReadWriteWith(
      record.id,
      parentCacheID,
      { ...(mountLabel === undefined ? {} : { mountLabel }), ...(storageOpt === undefined ? {} : { storageOpt }) },
      { before: intent.begin, after: [...written.steps, ...written.later, ...intent.end] },
    );
    done = true;
  } catch (error) {
    // A record that nobody knows of has the name: step by step it is replaced. All else was taken back.
    if (!LayerStoreError.is(error) || error.errnoName !== 'EEXIST') throw error;
  } finally {
    intent.settle();
    await written.settle(done);
  }
  return done;
}

/** False where it takes more than one call, or that call failed: step by step it goes on from wherever it stopped. */
export async function removeAtOnce(ctx: StoreContext, node: RWNode): Promise<boolean> {
  const { driver, metadata } = ctx;
  if (node.initID !== undefined || node.readers.count > 0) return false;
  if (driver.detachWith === undefined || metadata.removeMountSteps === undefined) return false;
  const removed = metadata.removeMountSteps(node.name);
  const intent = ctx.intents.steps(
    node.mountID,
    { kind: 'remove', name: node.name },
    { sync: ctx.durability === 'strict' },
  );
  // No reader comes in from here on; where this fails its handles are as good as before.
  const owners = new Map(node.owners);
  node.owners.clear();
  let done = false;
  try {
    const unlink = await driver.detachWith(node.mountID, {
      before: [...intent.begin, ...removed.steps],
      after: [...removed.later, ...intent.end],
    });
    done = true;
    void ctx.background.push(unlink);
  } catch (error) {
    for (const [owner, count] of owners) node.owners.set(owner, count);
    ctx.logger.debug(
      { name: node.name, ...errorFields(error) },
      'an RW layer does not go in one step; step by step now',
    );
  } finally {
    intent.settle();
    await removed.settle(done);
  }
  return done;
}
