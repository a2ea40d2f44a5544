/**
 * A real overlay mount in a scratch directory: the only honest answer to whether overlay2 works here. It tries what the
 * driver relies on: whiteouts that overlayfs makes and reads, opaque directories by an attribute of its, and names
 * that vanish from a listing (which they do only where the file system tells the type of each entry).
 */
import { lstat, mkdtemp, readdir, stat, unlink } from 'node:fs/promises';
import type { BatchOp, Engine, MountTier, WhiteoutForm } from '../engine/engine.js';
import { LayerStoreError, systemError } from '../errors.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { hasErrno } from './files.js';
import { scratchPrefix } from './tree-removal.js';

export type ProbeResult = { works: true; tier: MountTier } | { works: false; why: string };

/** The disk or the process is in trouble: that says nothing about overlayfs, and must not choose another driver. */
const NO_ANSWER = ['ENOSPC', 'EDQUOT', 'EIO', 'EROFS', 'EMFILE', 'ENFILE', 'ENOMEM'];

/**
 * Probes below `directory`, which exists, with the mount options that the driver would use. Leaves nothing behind. Rejects
 * where a failing disk, or a process out of descriptors or memory, lets nothing be found out.
 */
export async function probeOverlay(
  engine: Engine,
  directory: string,
  options: readonly string[],
  whiteouts: Exclude<WhiteoutForm, 'plain'>,
  logger: LoggerLike,
): Promise<ProbeResult> {
  const opaque = whiteouts === 'overlay' ? 'trusted.overlay.opaque' : 'user.overlay.opaque';
  let scratch: string | undefined;
  let mounted = false;
  try {
    scratch = await mkdtemp(`${directory}/${scratchPrefix()}`).catch((error: unknown) => {
      throw systemError(error, 'make a scratch directory');
    });
    const target = `${scratch}/merged`;
    await engine.batch(scratchTree(scratch, opaque));
    const tier = await engine.mountOverlay({
      upper: `${scratch}/diff`,
      work: `${scratch}/work`,
      lowers: [`${scratch}/near`, `${scratch}/far`],
      target,
      options,
    });
    mounted = true;
    const why = await whatFails(scratch, target, opaque);
    return why === undefined ? { works: true, tier } : { works: false, why };
  } catch (error) {
    if (hasErrno(error, ...NO_ANSWER)) throw error;
    return { works: false, why: reasonOf(error) };
  } finally {
    await clean(engine, scratch, mounted, logger);
  }
}

function scratchTree(scratch: string, opaque: string): BatchOp[] {
  const directories = ['diff', 'work', 'merged', 'near', 'far', 'near/opaque', 'far/opaque'];
  return [
    ...directories.map((name): BatchOp => ({ op: 'mkdir', path: `${scratch}/${name}`, mode: 0o755 })),
    ...['far/hidden', 'far/removed', 'far/opaque/old'].map((name): BatchOp => ({
      op: 'write',
      path: `${scratch}/${name}`,
      mode: 0o644,
      data: '',
    })),
    { op: 'mknod', path: `${scratch}/near/hidden`, mode: 0o020000, major: 0, minor: 0 },
    { op: 'setxattr', path: `${scratch}/near/opaque`, name: opaque, value: Buffer.from('y') },
  ];
}

async function whatFails(scratch: string, target: string, opaque: string): Promise<string | undefined> {
  await unlink(`${target}/removed`);
  const whiteout = await lstat(`${scratch}/diff/removed`);
  if (!whiteout.isCharacterDevice() || whiteout.rdev !== 0)
    return 'overlayfs makes no whiteouts that layers could keep';
  const names = await readdir(target);
  if (names.includes('hidden'))
    return 'whiteouts made by the driver hide nothing: the file system gives no entry types (d_type)';
  if (names.includes('removed')) return 'removed files stay listed: the file system gives no entry types (d_type)';
  if ((await readdir(`${target}/opaque`)).length > 0) return `the attribute ${opaque} hides nothing`;
  return undefined;
}

function reasonOf(error: unknown): string {
  if (error instanceof LayerStoreError)
    return error.detail === undefined ? error.message : `${error.message} (${error.detail})`;
  return error instanceof Error ? error.message : String(error);
}

async function clean(engine: Engine, scratch: string | undefined, mounted: boolean, logger: LoggerLike): Promise<void> {
  if (scratch === undefined) return;
  try {
    if (mounted) await engine.unmount(`${scratch}/merged`);
    await engine.removeTree(scratch);
  } catch (error) {
    // The probe's answer stands; the next cleanup finds the leftover by its name.
    logger.warn({ path: scratch, ...errorFields(error) }, 'cannot remove the scratch directory of the overlay probe');
  }
}

/** Whether two paths lie on one file system; `false` where the second is not there. */
export async function sameFileSystem(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.allSettled([stat(one), stat(other)]);
  return a.status === 'fulfilled' && b.status === 'fulfilled' && a.value.dev === b.value.dev;
}
