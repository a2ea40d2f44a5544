/** The store's steps around work of a driver's that is no batch itself. */
import type { BatchOp, Engine, StepsAround } from '../engine/engine.js';
import { errorFields, type LoggerLike } from '../util/logger.js';

/** As one batch would: where something fails, what `before` made is taken back, but for renames. `work` takes its own back. */
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
