/**
 * What an open does about the past: joins records, intents, driver directories and the mount table. Each thing left half
 * done is finished, undone or set aside with one warning; live mounts are adopted. Nothing that a complete record refers
 * to is deleted, and one bad record stops neither the store nor the others.
 */
import { readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { BrokenRecord } from '../metadata/metadata-store.js';
import { systemError } from '../errors.js';
import { TEMPORARY_SUFFIX } from '../util/atomic-file.js';
import { errorFields } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { withTimeout } from '../util/timeout.js';
import { randomID } from '../util/random-id.js';
import type { StoreContext } from './context.js';
import type { StoredIntent } from './intents.js';
import { recordedIDs } from './gc.js';
import { reconcileRecords, populate, type ReconciledRecords } from './reconcile-records.js';
import { withoutDeadMount } from './removal.js';

/** An open waits so long for what may also run on behind it. */
const PATIENCE = 50;

/** A reader's open, and its refresh: sees what is complete, changes nothing. */
export async function loadReadOnly(ctx: StoreContext): Promise<void> {
  const problem = await ctx.references.load();
  if (problem !== undefined) ctx.logger.warn({ why: problem }, 'the named references cannot be read completely');
  const joined = await reconcileRecords(ctx);
  const taken = await takenOver(ctx);
  populate(ctx, { ...joined, mounts: joined.mounts.filter(({ id }) => !taken.has(id)) });
  for (const { what, why } of joined.broken) ctx.logger.debug({ what, why }, 'a record is left out');
  const live = new Map((await ctx.driver.liveMounts()).map(({ id, path }) => [id, path]));
  for (const rw of ctx.rwLayers) {
    rw.path = live.get(rw.mountID);
    rw.mountCount = rw.path === undefined ? 0 : 1;
  }
}

/** RW layers whose files a commit takes over, or took when it was killed: to a read-only store they are incomplete. */
async function takenOver(ctx: StoreContext): Promise<Set<string>> {
  try {
    const intents = await ctx.intents.stored();
    return new Set(intents.flatMap(({ kind, rwID }) => (kind === 'consume' && rwID !== undefined ? [rwID] : [])));
  } catch (error) {
    // A root that no writer of ours has opened yet has no intents.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Set();
    throw systemError(error, 'read what a writer is about to do');
  }
}

/** A writer's open. */
export async function recover(ctx: StoreContext): Promise<void> {
  await removeTemporaries(ctx);
  await loadReferences(ctx);
  const joined = await reconcileRecords(ctx);
  populate(ctx, joined);
  const intents = await ctx.intents.stored();
  // Only directories that an intent or a begun removal names are candidates for removal.
  const recorded = intents.length + joined.removing.length === 0 ? new Set<string>() : recordedIDs(ctx);
  // A driver id in a damaged record is a layer too.
  for (const { cacheID } of joined.broken) if (cacheID !== undefined) recorded.add(cacheID);
  // Consumed RW layers first: undoing one may mend a record that seems broken.
  const again = await settleConsumed(ctx, intents, recorded, joined);
  const settled = again ?? joined;
  for (const intent of intents) {
    if (intent.kind !== 'consume') await settleIntent(ctx, intent, recorded);
  }
  await finishRemovals(ctx, settled, recorded);
  await setAside(ctx, settled.broken);
  await dropTemporaryRecords(ctx, settled.broken);
  await adoptMounts(ctx);
  reportDangling(ctx);
  await withTimeout(
    ctx.background.push((signal) => ctx.driver.cleanup(signal)),
    PATIENCE,
  );
}

/** Files of our own that a crash left between writing and renaming. */
async function removeTemporaries(ctx: StoreContext): Promise<void> {
  for (const name of await readdir(ctx.own.directory)) {
    if (name.endsWith(TEMPORARY_SUFFIX)) await rm(join(ctx.own.directory, name), { force: true });
  }
}

async function loadReferences(ctx: StoreContext): Promise<void> {
  const problem = await ctx.references.load();
  if (problem === undefined) return;
  const aside = join(ctx.own.quarantine, `${basename(ctx.own.references)}.${randomID(4)}`);
  await makeDirectory(ctx.own.quarantine, 0o700);
  await rename(ctx.own.references, aside);
  ctx.logger.warn(
    { why: problem, aside },
    'the named references were damaged: nothing counts as unreferenced until they are put back and "incomplete" is taken out of references.json',
  );
  await ctx.references.markIncomplete();
}

/**
 * A commit that was to take an RW layer's files over: after its publication the RW layer goes, before it the files go
 * back. Gives the records anew where that changed them.
 */
async function settleConsumed(
  ctx: StoreContext,
  intents: readonly StoredIntent[],
  recorded: Set<string>,
  joined: ReconciledRecords,
): Promise<ReconciledRecords | undefined> {
  if (!intents.some(({ kind }) => kind === 'consume')) return undefined;
  let changed = false;
  const published = new Set(joined.layers.map(({ cacheID }) => cacheID));
  for (const intent of intents) {
    const { id, rwID, name } = intent;
    if (intent.kind !== 'consume' || rwID === undefined || name === undefined) continue;
    try {
      if (published.has(id)) {
        const rw = ctx.rwLayers.find(name);
        const broken = joined.broken.find((one) => one.kind === 'mount' && one.name === name && one.cacheID === rwID);
        if (rw?.mountID === rwID || broken !== undefined) await ctx.metadata.removeMount(name);
        for (const files of [rwID, rw?.initID ?? `${rwID}-init`]) {
          if (await ctx.driver.exists(files)) await ctx.driver.remove(files);
        }
      } else if (hasRWRecord(ctx, joined, name, rwID)) {
        await ctx.driver.undoConsume(id, rwID);
      } else {
        // The layer was there already, so the RW layer was dropped and its files, which nobody needs, were to go next.
        for (const files of [id, rwID, `${rwID}-init`]) if (!recorded.has(files)) await discard(ctx, files);
      }
      await ctx.intents.end(id);
      changed = true;
      ctx.logger.info({ name, id }, 'an interrupted commit was settled');
    } catch (error) {
      recorded.add(id);
      ctx.logger.error(
        { name, id, ...errorFields(error) },
        'an interrupted commit cannot be settled; the next open tries again',
      );
    }
  }
  if (!changed) return undefined;
  const again = await reconcileRecords(ctx);
  populate(ctx, again);
  for (const id of recordedIDs(ctx)) recorded.add(id);
  return again;
}

/** Whether a record, be it a damaged one, still says that the RW layer is there. */
function hasRWRecord(ctx: StoreContext, joined: ReconciledRecords, name: string, rwID: string): boolean {
  if (ctx.rwLayers.find(name)?.mountID === rwID) return true;
  return joined.broken.some((one) => one.kind === 'mount' && (one.name === name || one.cacheID === rwID));
}

/** Directories that an intent names and no record does were never finished, or their removal was begun. */
async function settleIntent(ctx: StoreContext, intent: StoredIntent, recorded: ReadonlySet<string>): Promise<void> {
  // Content lost by a power cut: an RW layer's init directory has a name that follows from its own.
  const ids = [intent.id, ...(intent.with ?? (intent.kind === undefined ? [`${intent.id}-init`] : []))];
  try {
    for (const id of ids) if (!recorded.has(id)) await discard(ctx, id);
    await ctx.intents.end(intent.id);
  } catch (error) {
    ctx.logger.warn(
      { id: intent.id, ...errorFields(error) },
      'an unfinished layer cannot be removed; the next cleanup tries again',
    );
  }
}

async function discard(ctx: StoreContext, id: string): Promise<void> {
  if (!(await ctx.driver.exists(id))) return;
  await withoutDeadMount(ctx, id, async () => {
    void ctx.background.push(await ctx.driver.detach(id));
  });
}

async function finishRemovals(
  ctx: StoreContext,
  joined: ReconciledRecords,
  recorded: ReadonlySet<string>,
): Promise<void> {
  for (const { chainID, cacheID } of joined.removing) {
    try {
      if (!recorded.has(cacheID)) await discard(ctx, cacheID);
      await ctx.metadata.remove(chainID, cacheID);
    } catch (error) {
      ctx.logger.warn(
        { chainID, cacheID, ...errorFields(error) },
        'a removal cannot be ended; the next cleanup tries again',
      );
    }
  }
}

/** Records that cannot be used are moved out of the way, with what they name left where it is. */
async function setAside(ctx: StoreContext, broken: readonly BrokenRecord[]): Promise<void> {
  const { metadata } = ctx;
  for (const record of broken) {
    const { kind, what, why, cacheID } = record;
    if (kind === 'removing' || kind === 'temporary') continue;
    try {
      await makeDirectory(ctx.own.quarantine, 0o700);
      const aside = await metadata.quarantine(record, ctx.own.quarantine);
      ctx.logger.warn({ what, why, aside, files: cacheID }, 'a record cannot be used and is set aside');
    } catch (error) {
      ctx.logger.warn({ what, why, ...errorFields(error) }, 'a record cannot be used, nor set aside');
    }
  }
}

/** Unfinished transactions, and removals whose record no longer names a driver id. */
async function dropTemporaryRecords(ctx: StoreContext, broken: readonly BrokenRecord[]): Promise<void> {
  const { metadata } = ctx;
  for (const record of [...broken, ...(await metadata.listTemporary())]) {
    if (record.kind !== 'temporary' && record.kind !== 'removing') continue;
    try {
      await metadata.discard(record);
      ctx.logger.debug({ what: record.what, why: record.why }, 'an unfinished record was dropped');
    } catch (error) {
      ctx.logger.warn(
        { what: record.what, ...errorFields(error) },
        'an unfinished record cannot be dropped; the next cleanup tries again',
      );
    }
  }
}

/** Adopts mounts of RW layers with count 1. Mounts of read-only layers were views of a process that has ended. */
async function adoptMounts(ctx: StoreContext): Promise<void> {
  const { driver } = ctx;
  const live = await driver.liveMounts();
  if (live.length === 0) return;
  const rwByID = new Map([...ctx.rwLayers].map((rw) => [rw.mountID, rw]));
  const views = new Set([...ctx.layers].map(({ cacheID }) => cacheID));
  for (const { id, path } of live) {
    const rw = rwByID.get(id);
    if (rw === undefined && !views.has(id)) continue; // Docker's, or of something set aside
    try {
      const adopted = await driver.adopt(id);
      if (rw === undefined) {
        await driver.put(id);
        continue;
      }
      rw.path = adopted;
      rw.label = null;
      rw.mountCount = 1;
      rw.unowned = 1;
    } catch (error) {
      ctx.logger.warn(
        { id, path, name: rw?.name, ...errorFields(error) },
        'a mount of an earlier process cannot be taken over',
      );
    }
  }
}

function reportDangling(ctx: StoreContext): void {
  for (const chainID of ctx.references.dangling((id) => ctx.layers.find(id) !== undefined)) {
    ctx.logger.warn(
      { chainID },
      'a named reference is on a layer that is not there: somebody else removed it, or it was set aside',
    );
  }
}
