/**
 * vfs: each layer is a whole tree in `<root>/vfs/dir/<id>`, begun as a copy of its parent (by reflink where the file
 * system can). Mounts nothing but views, and needs no privilege but what the layers' owners and devices ask for.
 */
import { NO_STEPS, type StepsAround } from '../../engine/batch-types.js';
import type { DiffGetter, DiffRequest, TarSource, TreeStack } from '../../engine/engine.js';
import { LayerStoreError } from '../../errors.js';
import { checkLayerID, type DriverContext, isLayerID, noSuchLayer } from '../context.js';
import type { Driver, MountSpecification, TreeRoot, Unlink } from '../driver.js';
import { commitThroughTar, orRemove, runAround } from '../fallbacks.js';
import { directoriesIn, hasErrno, isMissing, kindOf } from '../files.js';
import type {
  ApplyOptions,
  ApplyResult,
  CreateReadWriteOptions,
  DriverCapabilities,
  DriverLeftover,
  LiveMount,
} from '../graph-driver.js';
import { bindSpecification, rootOf, rootSteps } from '../mount-specification.js';
import { parseStorageOpt } from '../options.js';
import { explained } from '../privilege.js';
import { idTaken, TreeDriver } from '../tree-driver.js';
import { TreeGetter } from '../tree-getter.js';
import { isLeftover, isReplaced, removingName, TreeRemoval } from '../tree-removal.js';
import { VfsViews } from './views.js';

const WHITEOUTS = 'plain';

export class VfsDriver extends TreeDriver implements Driver {
  readonly name = 'vfs';
  readonly whiteouts = WHITEOUTS;
  readonly capabilities: DriverCapabilities = {
    independentDiffs: false,
    reproducesExactDiffs: false,
    hardSizeLimit: false,
    mounts: false,
  };
  readonly #found: readonly (readonly [string, string])[];
  readonly #home: string;
  readonly #trees: TreeRemoval;
  readonly #views: VfsViews;
  /** Times that `get` gave the path of an id: `put` takes these back first, so that a view stays while it is used. */
  readonly #plain = new Map<string, number>();
  #stale: Promise<string[]> | undefined;

  /** `<root>/vfs/dir` exists, unless the store is open read-only. `found`: what is known of the file system, for `status()`. */
  constructor(context: DriverContext, found: readonly (readonly [string, string])[]) {
    const home = vfsHome(context.root);
    super(context, home, WHITEOUTS);
    this.#found = found;
    this.#home = home;
    this.#trees = new TreeRemoval(context);
    this.#views = new VfsViews(context);
  }

  async create(id: string, parent?: string): Promise<void> {
    await this.#create(id, parent);
  }

  async createReadWrite(
    id: string,
    parent: string | undefined,
    options: CreateReadWriteOptions,
    around: StepsAround = NO_STEPS,
  ): Promise<void> {
    if (options.mountLabel !== undefined && options.mountLabel !== '') {
      throw new LayerStoreError('ERR_NOT_SUPPORTED', 'cannot use a mount label with the vfs driver: it mounts nothing');
    }
    if (parseStorageOpt(options.storageOpt) !== undefined) {
      throw new LayerStoreError(
        'ERR_NOT_SUPPORTED',
        'cannot limit the size of a layer with the vfs driver: omit the size',
      );
    }
    await runAround(this.context, { before: around.before, after: [] }, async () => {
      await this.#create(id, parent);
      await this.#orRemove(id, async () => {
        // Here the layer is a copy of everything below it: only a sync of the file system covers that.
        await this.sync([id]);
        if (around.after.length > 0) await this.context.engine.batch(around.after);
      });
    });
  }

  async applyDiff(
    id: string,
    _parent: string | undefined,
    source: TarSource,
    options: ApplyOptions,
  ): Promise<ApplyResult> {
    this.writable(`unpack into the layer "${id}"`);
    const directory = await this.#existing(id);
    await this.#staleScratch();
    return explained(
      this.context.privilege,
      this.context.engine.ingest(source, {
        ...options,
        directory,
        whiteouts: WHITEOUTS,
        privilege: this.context.privilege,
      }),
    );
  }

  async get(id: string): Promise<string> {
    const path = await this.#existing(id);
    this.#plain.set(id, (this.#plain.get(id) ?? 0) + 1);
    return path;
  }

  /** A path that `get` gave needs nothing back but its count; the last of a view's takes the mount away. */
  async put(id: string): Promise<void> {
    checkLayerID(id);
    const plain = this.#plain.get(id) ?? 0;
    if (plain === 0) {
      await this.#views.put(id);
      return;
    }
    if (plain === 1) this.#plain.delete(id);
    else this.#plain.set(id, plain - 1);
  }

  async view(id: string): Promise<string> {
    this.writable(`mount a view of the layer "${id}"`);
    return this.#views.get(id, await this.#existing(id));
  }

  async liveMounts(): Promise<LiveMount[]> {
    return this.#views.live();
  }

  /** Only views are mounts here, and no RW layer is one. */
  async mountVanished(): Promise<boolean> {
    return false;
  }

  async adopt(id: string): Promise<string> {
    await this.#existing(id);
    return this.#views.adopt(id);
  }

  async diffGetter(id: string): Promise<DiffGetter> {
    return new TreeGetter(await this.#existing(id));
  }

  /** Through the tar, onto a copy of the parent. */
  async commitDiff(
    id: string,
    parent: string | undefined,
    rwID: string,
    rwParent: string | undefined,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult> {
    this.writable(`commit the layer "${rwID}"`);
    const { consume: _, ...apply } = options;
    return commitThroughTar(this, this.context.logger, [id, parent], [rwID, rwParent], apply);
  }

  /** A commit takes nothing from the RW layer, so there is only the new layer to remove. */
  async undoConsume(id: string, rwID: string): Promise<void> {
    checkLayerID(rwID);
    await this.remove(id);
  }

  async exists(id: string): Promise<boolean> {
    return isLayerID(id) && (await kindOf(this.#directory(id))) === 'directory';
  }

  async list(): Promise<string[]> {
    return (await directoriesIn(this.#home, this.context.engine)).filter(isLayerID);
  }

  async detach(id: string, { before, after }: StepsAround = NO_STEPS): Promise<Unlink> {
    this.writable(`remove the layer "${id}"`);
    checkLayerID(id);
    const directory = this.#directory(id);
    const aside = `${this.#home}/${removingName(id)}`;
    this.#trees.markPending(aside);
    this.#plain.delete(id);
    try {
      await this.context.engine.batch([
        ...before,
        { op: 'rename', path: directory, dest: aside, noReplace: true },
        ...this.#homeSync(),
        ...after,
      ]);
    } catch (error) {
      this.#trees.unmarkPending(aside);
      if (!isMissing(error, directory)) throw error;
      // The batch stopped where the directory should have been: the steps before were done.
      if (after.length > 0) await this.context.engine.batch(after);
      return async () => undefined;
    }
    return (signal) => this.#trees.run(aside, signal);
  }

  async metadata(id: string): Promise<Record<string, string>> {
    return { Dir: await this.#existing(id) };
  }

  status(): readonly (readonly [string, string])[] {
    return [...this.#found, ['Chosen', this.context.reason]];
  }

  async cleanup(signal?: AbortSignal): Promise<void> {
    if (this.context.readOnly) return;
    await this.#trees.removeAll(this.#home, await this.#leftoverNames(), async () => undefined, signal);
  }

  async leftovers(): Promise<Required<DriverLeftover>[]> {
    return this.#trees.leftovers(this.#home, await this.#leftoverNames());
  }

  async #leftoverNames(): Promise<string[]> {
    // A reader cannot tell a writer's live scratch from stale.
    const stale = this.context.readOnly ? [] : await this.#staleScratch();
    return (await directoriesIn(this.#home, this.context.engine)).filter(
      (name) => isLeftover(name) || stale.includes(name),
    );
  }

  async close(): Promise<void> {
    // Nothing is held.
  }

  async exchange(id: string, otherID: string): Promise<void> {
    this.writable(`exchange the layer "${id}"`);
    const [path, dest] = [await this.#existing(id), await this.#existing(otherID)];
    await this.context.engine.batch([{ op: 'exchange', path, dest }, ...this.#homeSync()]);
  }

  async usage(id: string): Promise<{ size: number; allocated: number; inodes: number }> {
    return this.context.engine.usage(await this.#existing(id));
  }

  async mountSpecification(id: string, access: 'read-write' | 'read-only'): Promise<MountSpecification> {
    return bindSpecification(await this.#existing(id), access);
  }

  async treeRoot(id: string): Promise<TreeRoot> {
    return rootOf(await this.#existing(id));
  }

  async setTreeRoot(id: string, root: TreeRoot): Promise<void> {
    this.writable(`change the root of the layer "${id}"`);
    await this.context.engine.batch(rootSteps(await this.#existing(id), root, this.context.durability === 'strict'));
  }

  async rebase(id: string): Promise<void> {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `cannot put the layer "${id}" on another: with the vfs driver a layer begins as a copy of its parent`,
    );
  }

  /**
   * What unpacking processes that were killed left beside their trees. Listed before this process unpacks anything, as
   * the names of live ones look the same; the store's lock lets no other process write.
   */
  #staleScratch(): Promise<string[]> {
    this.#stale ??= directoriesIn(this.#home, this.context.engine).then(
      (names) => names.filter(isReplaced),
      (error: unknown) => {
        this.#stale = undefined; // the next caller tries again
        throw error;
      },
    );
    return this.#stale;
  }

  async #create(id: string, parent: string | undefined): Promise<void> {
    this.writable(`make the layer "${id}"`);
    checkLayerID(id);
    const source = parent === undefined ? undefined : await this.#existing(parent);
    const directory = this.#directory(id);
    try {
      await this.context.engine.batch([{ op: 'mkdir', path: directory, mode: 0o755 }]);
    } catch (error) {
      if (!hasErrno(error, 'EEXIST')) throw error;
      throw idTaken(id, error);
    }
    if (source !== undefined) await this.#orRemove(id, () => this.context.engine.copyTree(source, directory));
  }

  #orRemove<T>(id: string, work: () => Promise<T>): Promise<T> {
    return orRemove(this, this.context.logger, id, work);
  }

  protected async difference(id: string, parent: string | undefined): Promise<DiffRequest> {
    const upper = stack(await this.#existing(id));
    return parent === undefined ? { upper } : { upper, lower: stack(await this.#existing(parent)) };
  }

  async #existing(id: string): Promise<string> {
    checkLayerID(id);
    if (await this.exists(id)) return this.#directory(id);
    throw noSuchLayer(id, this.#home);
  }

  #homeSync(): { op: 'fsync'; path: string }[] {
    return this.context.durability === 'strict' ? [{ op: 'fsync', path: this.#home }] : [];
  }

  #directory(id: string): string {
    return `${this.#home}/${id}`;
  }
}

/** Where vfs keeps its layers under a store's root. */
export function vfsHome(root: string): string {
  return `${root === '/' ? '' : root}/vfs/dir`;
}

function stack(directory: string): TreeStack {
  return { directories: [directory], whiteouts: WHITEOUTS };
}
