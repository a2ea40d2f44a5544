/** What takes more than one step where a driver has no faster way: those of this package, and `adapt.ts` for others. */
import type { BatchOp, Engine, StepsAround } from '../engine/engine.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { ApplyOptions, ApplyResult, GraphDriver } from './graph-driver.js';

/** The store's steps around work that is no batch itself, as one batch would run them: where something fails, what `before` made is taken back, but for renames. `work` takes its own back. */
export async function runAround(
  { engine, logger }: { engine: Engine; logger: LoggerLike },
  { before, after }: StepsAround,
  work: () => Promise<void>,
): Promise<void> {
  if (before.length > 0) await engine.batch(before);
  try {
    await work();
    if (after.length > 0) await engine.batch(after);
  } catch (error) {
    const back = [...before].reverse().flatMap(undoing);
    try {
      if (back.length > 0) await engine.batch(back);
    } catch (failure) {
      // The first failure is what the caller hears; recovery finds what stays by its name.
      logger.warn(errorFields(failure), 'cannot take back the first steps of an RW layer that failed');
    }
    throw error;
  }
}

function undoing(step: BatchOp): BatchOp[] {
  switch (step.op) {
    case 'mkdir':
      return step.existOk === true ? [] : [{ op: 'rmdir', path: step.path, missingOk: true }];
    case 'write':
    case 'symlink':
    case 'mknod':
      return [{ op: 'unlink', path: step.path, missingOk: true }];
    default:
      return [];
  }
}

/**
 * `commitDiff` through the tar, by which nothing is taken from the RW layer: the changes alone go onto a new layer, since
 * the RW layer's tree may hold an init layer too. Where it fails the new layer is taken away again.
 */
export async function commitThroughTar(
  driver: Pick<GraphDriver, 'create' | 'diff' | 'applyDiff' | 'exists' | 'remove'>,
  logger: LoggerLike,
  [id, parent]: readonly [string, string | undefined],
  [rwID, rwParent]: readonly [string, string | undefined],
  options: ApplyOptions,
): Promise<ApplyResult> {
  const tar = await driver.diff(rwID, rwParent);
  try {
    await driver.create(id, parent);
    return await orRemove(driver, logger, id, () => driver.applyDiff(id, parent, tar, options));
  } finally {
    tar.destroy();
  }
}

/** Runs `work` on a layer that was just made; where it fails the layer is taken away again. */
export async function orRemove<T>(
  driver: Pick<GraphDriver, 'exists' | 'remove'>,
  logger: LoggerLike,
  id: string,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    try {
      if (await driver.exists(id)) await driver.remove(id);
    } catch (failure) {
      // The first failure is the one to report; recovery finds the layer by the store's intent.
      logger.error({ layer: id, ...errorFields(failure) }, 'cannot take back a layer that failed half-way');
    }
    throw error;
  }
}
