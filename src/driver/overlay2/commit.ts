/**
 * An RW layer's changes become a read-only layer: copied and hashed in one pass, or, where the RW layer is given up,
 * renamed and hashed where they lie.
 */
import { NO_STEPS } from '../../engine/batch-types.js';
import type { BatchOp, CommitTreeRequest } from '../../engine/engine.js';
import { digestMismatch, invalidArgument } from '../../errors.js';
import { defined } from '../../util/defined.js';
import { errorFields } from '../../util/logger.js';
import type { DriverContext } from '../context.js';
import { hasErrno, kindOf, requireDirectory } from '../files.js';
import type { ApplyOptions, ApplyResult } from '../graph-driver.js';
import { whiteoutsOf } from '../privilege.js';
import type { CommitMark, LayerMetadataCache } from './layer-metadata-cache.js';
import { creationSteps, type Layout, type Lower, newLinkID } from './layout.js';
import { active, type OverlayMounts } from './mounts.js';
import type { Removal } from './removal.js';

export type Difference = Pick<CommitTreeRequest, 'upper' | 'lower' | 'whiteoutsOf'>;

export class Commits {
  readonly #layout: Layout;
  readonly #context: DriverContext;
  readonly #layers: LayerMetadataCache;
  readonly #mounts: OverlayMounts;
  readonly #removal: Removal;

  constructor(
    layout: Layout,
    context: DriverContext,
    layers: LayerMetadataCache,
    mounts: OverlayMounts,
    removal: Removal,
  ) {
    this.#layout = layout;
    this.#context = context;
    this.#layers = layers;
    this.#mounts = mounts;
    this.#removal = removal;
  }

  /** Commits `difference`, whose first directory is the RW layer's own, as the layer `id` on `lower`. */
  async run(
    id: string,
    lower: Lower | undefined,
    rwID: string,
    difference: Difference,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult> {
    const { tarSplit, consume, signal, onProgress, diffID } = options;
    if (tarSplit === undefined) {
      throw invalidArgument(`cannot commit the layer "${rwID}": say where its tar-split record goes`);
    }
    const link = newLinkID();
    const steps = creationSteps(this.#layout, { id, link, lower, diff: false, sync: false });
    const request: CommitTreeRequest = {
      ...difference,
      directory: this.#layout.diff(id),
      consume,
      ...(consume ? { removedWhiteoutsTar: this.#layout.removedWhiteoutsTar(rwID) } : {}),
      tarSplit,
      ...defined({ signal, onProgress }),
    };
    const make = async (last: readonly BatchOp[]): Promise<void> => {
      const batch = ({ write, sync }: CommitMark): Promise<void> =>
        this.#context.engine.batch([...write, ...steps, ...sync, ...last]);
      await (lower === undefined ? batch({ write: [], sync: [] }) : this.#layers.withChild(lower.id, false, batch));
    };
    if (consume) {
      request.upper = { ...request.upper, directories: [request.directory, ...request.upper.directories.slice(1)] };
      await this.#mounts.whileIdle(rwID, async () => {
        await this.#mounts.ended(rwID);
        if (await this.#mounts.inTable(rwID)) throw active(rwID, 'it is mounted, by something else than this store');
        // Last of all, since a batch does not take a rename back.
        await make([{ op: 'rename', path: this.#layout.diff(rwID), dest: request.directory, noReplace: true }]);
      });
    } else {
      await make([]);
    }
    this.#layers.add(id, link, lower, true);
    try {
      const result = await this.#context.engine.commitTree(request);
      if (diffID !== undefined && result.diffID !== diffID) {
        throw digestMismatch(`the diff id of the changes of "${rwID}"`, result.diffID, diffID, 'nothing was kept');
      }
      // The tar has no entry for the root, so a layer registered from it has Docker's: the committed one must not differ.
      await this.#context.engine.batch([
        { op: 'chmod', path: request.directory, mode: 0o755 },
        { op: 'chown', path: request.directory, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
      ]);
      return result;
    } catch (error) {
      await this.#takeBack(id, rwID, consume);
      throw error;
    }
  }

  /** Gives a consumed directory back to its RW layer, however far a commit got, and removes what is left of `id`. */
  async undoConsume(id: string, rwID: string): Promise<void> {
    const [ours, theirs] = await Promise.all([kindOf(this.#layout.diff(id)), kindOf(this.#layout.diff(rwID))]);
    if (theirs === undefined && ours !== undefined) {
      await requireDirectory(this.#layout.diff(id));
      await this.#restoreWhiteouts(id, rwID);
      try {
        await this.#context.engine.batch([
          { op: 'rename', path: this.#layout.diff(id), dest: this.#layout.diff(rwID), noReplace: true },
          ...(this.#context.durability === 'strict'
            ? ([{ op: 'fsync', path: this.#layout.directory(rwID) }] as const)
            : []),
          // Only now: until here a second attempt needs it.
          { op: 'unlink', path: this.#layout.removedWhiteoutsTar(rwID), missingOk: true },
        ]);
      } catch (error) {
        // The RW layer's directory is missing: these files are the only copy, so they stay.
        if (hasErrno(error, 'ENOENT')) return;
        throw error;
      }
    }
    const unlink = await this.#removal.detach(id, undefined, NO_STEPS);
    this.#layers.forget(id);
    await unlink();
  }

  /** What a commit removed from the consumed directory comes back; putting it back twice is no harm. */
  async #restoreWhiteouts(id: string, rwID: string): Promise<void> {
    const removed = this.#layout.removedWhiteoutsTar(rwID);
    if ((await kindOf(removed)) !== 'file') return;
    await this.#context.engine.ingest(
      { path: removed },
      {
        directory: this.#layout.diff(id),
        whiteouts: whiteoutsOf(this.#context),
        privilege: this.#context.privilege,
      },
    );
  }

  async #takeBack(id: string, rwID: string, consume: boolean): Promise<void> {
    try {
      if (consume) return await this.undoConsume(id, rwID);
      const unlink = await this.#removal.detach(id, undefined, NO_STEPS);
      this.#layers.forget(id);
      await unlink();
    } catch (error) {
      // The failure of the commit is the one to report; recovery finds the rest by the store's intent.
      this.#context.logger.error(
        { layer: id, rwLayer: rwID, ...errorFields(error) },
        'cannot take a failed commit back',
      );
    }
  }
}
