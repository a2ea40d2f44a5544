/** overlay2: layers are directories in Docker's layout; a mount stacks them by overlayfs. */
import { NO_STEPS, type StepsAround } from '../../engine/batch-types.js';
import type { DiffGetter, TarSource, TreeStack, WhiteoutForm } from '../../engine/engine.js';
import { invalidArgument, LayerStoreError } from '../../errors.js';
import { quote } from '../../util/quote.js';
import { checkLayerID, type DriverContext, isLayerID } from '../context.js';
import type { Driver, MountSpecification, TreeRoot, Unlink } from '../driver.js';
import { missingForQuota, quotaFacts } from '../file-system.js';
import { directoriesIn, hasErrno, kindOf } from '../files.js';
import type {
  ApplyOptions,
  ApplyResult,
  CreateReadWriteOptions,
  DriverCapabilities,
  DriverLeftover,
  LiveMount,
} from '../graph-driver.js';
import { bindSpecification, rootOf, rootSteps } from '../mount-specification.js';
import { type MountProfile, parseStorageOpt } from '../options.js';
import { explained, whiteoutsOf } from '../privilege.js';
import { idTaken, TreeDriver } from '../tree-driver.js';
import { TreeGetter } from '../tree-getter.js';
import { Commits, type Difference } from './commit.js';
import { Exchange } from './exchange.js';
import { type CommitMark, LayerMetadataCache } from './layer-metadata-cache.js';
import {
  creationSteps,
  Layout,
  LINK_DIRECTORY,
  type Lower,
  lowerPaths,
  MAX_LOWERS,
  newLinkID,
  stackingSteps,
} from './layout.js';
import { OverlayMounts } from './mounts.js';
import { Removal } from './removal.js';
import { VolatileMarkers } from './volatile.js';

export interface Overlay2Setup {
  readonly profile: MountProfile;
  /** Default limit of RW layers, bytes. */
  readonly size: number | undefined;
  /** SELinux is there. */
  readonly labels: boolean;
  /** Found at open, for `status()`. */
  readonly found: readonly (readonly [string, string])[];
}

export class Overlay2Driver extends TreeDriver implements Driver {
  readonly name = 'overlay2';
  readonly whiteouts: WhiteoutForm;
  readonly capabilities: DriverCapabilities = {
    independentDiffs: true,
    reproducesExactDiffs: false,
    hardSizeLimit: false,
    mounts: true,
  };
  readonly #setup: Overlay2Setup;
  readonly #layout: Layout;
  readonly #layers: LayerMetadataCache;
  readonly #volatile: VolatileMarkers;
  readonly #mounts: OverlayMounts;
  readonly #removal: Removal;
  readonly #commits: Commits;
  readonly #exchange: Exchange;

  /** The home directory and `l/` exist, unless the store is open read-only. */
  constructor(context: DriverContext, setup: Overlay2Setup) {
    const layout = new Layout(context.root);
    const whiteouts = whiteoutsOf(context);
    super(context, layout.home, whiteouts);
    this.whiteouts = whiteouts;
    this.#setup = setup;
    this.#layout = layout;
    this.#layers = new LayerMetadataCache(layout, !context.readOnly);
    this.#volatile = new VolatileMarkers(layout, context, setup.profile.volatile);
    this.#mounts = new OverlayMounts(layout, context, setup.profile, this.#layers, this.#volatile);
    this.#removal = new Removal(layout, context);
    this.#commits = new Commits(layout, context, this.#layers, this.#mounts, this.#removal);
    this.#exchange = new Exchange(layout, context, setup.profile, this.#layers, this.#mounts);
  }

  async create(id: string, parent?: string): Promise<void> {
    this.writable(`make the layer "${id}"`);
    await this.#create(id, parent, false, NO_STEPS);
  }

  async createReadWrite(
    id: string,
    parent: string | undefined,
    options: CreateReadWriteOptions,
    around: StepsAround = NO_STEPS,
  ): Promise<void> {
    this.writable(`make the layer "${id}"`);
    this.#checkLabel(options.mountLabel);
    const size = parseStorageOpt(options.storageOpt) ?? this.#setup.size;
    if (size !== undefined) await refuseSize(this.#layout.home);
    await this.#create(id, parent, true, around);
  }

  async applyDiff(
    id: string,
    _parent: string | undefined,
    source: TarSource,
    options: ApplyOptions,
  ): Promise<ApplyResult> {
    this.writable(`unpack into the layer "${id}"`);
    checkLayerID(id, LINK_DIRECTORY);
    await this.#layers.load(id);
    await this.#layers.checkTrees(id);
    // overlayfs must not find its upper directory changed under a mount: there the tar is applied through the mount.
    const mounted = this.#mounts.writable(id);
    const directory = mounted ? this.#layout.merged(id) : this.#layout.diff(id);
    return explained(
      this.context.privilege,
      this.context.engine.ingest(source, {
        ...options,
        directory,
        whiteouts: mounted ? 'plain' : this.whiteouts,
        privilege: this.context.privilege,
      }),
    );
  }

  async get(id: string, mountLabel = ''): Promise<string> {
    checkLayerID(id, LINK_DIRECTORY);
    this.#checkLabel(mountLabel);
    return this.#mounts.get(id, mountLabel, false);
  }

  async view(id: string): Promise<string> {
    checkLayerID(id, LINK_DIRECTORY);
    return this.#mounts.get(id, '', true);
  }

  async put(id: string): Promise<void> {
    checkLayerID(id, LINK_DIRECTORY);
    return this.#mounts.put(id);
  }

  async diffGetter(id: string): Promise<DiffGetter> {
    checkLayerID(id, LINK_DIRECTORY);
    await this.#layers.load(id);
    await this.#layers.checkTrees(id);
    return new TreeGetter(this.#layout.diff(id));
  }

  async commitDiff(
    id: string,
    parent: string | undefined,
    rwID: string,
    rwParent: string | undefined,
    options: ApplyOptions & { consume: boolean },
  ): Promise<ApplyResult> {
    this.writable(`commit the layer "${rwID}"`);
    checkLayerID(id, LINK_DIRECTORY);
    const difference = await this.difference(rwID, rwParent);
    const lower = await this.#lower(parent);
    return this.#commits.run(id, lower, rwID, difference, options);
  }

  async undoConsume(id: string, rwID: string): Promise<void> {
    this.writable(`take the commit of "${rwID}" back`);
    checkLayerID(id, LINK_DIRECTORY);
    checkLayerID(rwID, LINK_DIRECTORY);
    return this.#commits.undoConsume(id, rwID);
  }

  async exists(id: string): Promise<boolean> {
    if (!isLayerID(id) || id === LINK_DIRECTORY) return false;
    return (await kindOf(this.#layout.directory(id))) === 'directory';
  }

  async list(): Promise<string[]> {
    const names = await directoriesIn(this.#layout.home, this.context.engine);
    return names.filter((name) => isLayerID(name) && name !== LINK_DIRECTORY);
  }

  async detach(id: string, around: StepsAround = NO_STEPS): Promise<Unlink> {
    this.writable(`remove the layer "${id}"`);
    checkLayerID(id, LINK_DIRECTORY);
    return this.#mounts.whileIdle(id, async () => {
      const unlink = await this.#removal.detach(id, this.#layers.knownLink(id), around);
      this.#layers.forget(id);
      this.#volatile.forget(id);
      return unlink;
    });
  }

  async metadata(id: string): Promise<Record<string, string>> {
    checkLayerID(id, LINK_DIRECTORY);
    const lowers = this.#layers.diffs((await this.#layers.load(id)).lower);
    return {
      ...(lowers.length === 0 ? {} : { LowerDir: lowers.join(':') }),
      MergedDir: this.#layout.merged(id),
      UpperDir: this.#layout.diff(id),
      WorkDir: this.#layout.work(id),
    };
  }

  status(): readonly (readonly [string, string])[] {
    const tier = this.#mounts.tier;
    return [
      ...this.#setup.found.map(
        ([key, value]) => [key, key === 'Mount tier' && tier !== undefined ? tier : value] as const,
      ),
      ['Mount options', this.#setup.profile.writable.join(',')],
      ['Chosen', this.context.reason],
    ];
  }

  async cleanup(signal?: AbortSignal): Promise<void> {
    if (!this.context.readOnly) await this.#removal.cleanup(signal);
  }

  leftovers(): Promise<Required<DriverLeftover>[]> {
    return this.#removal.leftovers();
  }

  async close(): Promise<void> {
    // Mounts stay: the next store takes them over.
    await this.#mounts.close();
  }

  async exchange(id: string, otherID: string): Promise<void> {
    this.writable(`exchange the layer "${id}"`);
    checkLayerID(id, LINK_DIRECTORY);
    checkLayerID(otherID, LINK_DIRECTORY);
    await this.#exchange.run(id, otherID, () => this.list());
  }

  async liveMounts(): Promise<LiveMount[]> {
    return this.#mounts.live();
  }

  async mountVanished(id: string): Promise<boolean> {
    return !(await this.liveMounts()).some((mount) => mount.id === id);
  }

  async adopt(id: string): Promise<string> {
    this.writable(`take over the mount of "${id}"`);
    checkLayerID(id, LINK_DIRECTORY);
    return this.#mounts.adopt(id);
  }

  async usage(id: string): Promise<{ size: number; allocated: number; inodes: number }> {
    checkLayerID(id, LINK_DIRECTORY);
    await this.#layers.load(id);
    await this.#layers.checkTrees(id);
    return this.context.engine.usage(this.#layout.diff(id));
  }

  /** Lower directories go by their short links, so that as many as containerd stacks fit into one page of options. */
  async mountSpecification(id: string, access: 'read-write' | 'read-only'): Promise<MountSpecification> {
    checkLayerID(id, LINK_DIRECTORY);
    const { lower } = await this.#layers.load(id);
    await this.#layers.checkStack(id, lower);
    const diff = this.#layout.diff(id);
    if (lower === undefined) return bindSpecification(diff, access);
    const lowers = lowerPaths(lower, ({ link }) => this.#layout.link(link));
    const { writable, readOnly } = this.#setup.profile;
    const overlay = { type: 'overlay', source: 'overlay' };
    if (access === 'read-only')
      return { ...overlay, options: [...readOnly, `lowerdir=${[diff, ...lowers].join(':')}`] };
    return {
      ...overlay,
      options: [
        // Whether such a mount ended cleanly only its maker knows.
        ...writable.filter((option) => option !== 'volatile'),
        `workdir=${this.#layout.work(id)}`,
        `upperdir=${diff}`,
        `lowerdir=${lowers.join(':')}`,
      ],
      writes: diff,
    };
  }

  async treeRoot(id: string): Promise<TreeRoot> {
    checkLayerID(id, LINK_DIRECTORY);
    return rootOf(this.#layout.diff(id));
  }

  async setTreeRoot(id: string, root: TreeRoot): Promise<void> {
    this.writable(`change the root of the layer "${id}"`);
    checkLayerID(id, LINK_DIRECTORY);
    await this.#layers.checkTrees(id);
    await this.context.engine.batch(rootSteps(this.#layout.diff(id), root, this.context.durability === 'strict'));
  }

  async rebase(id: string, parent: string): Promise<void> {
    this.writable(`put the layer "${id}" on another`);
    checkLayerID(id, LINK_DIRECTORY);
    const known = await this.#layers.load(id);
    if (known.lower?.id === parent) return; // done before, by a process that did not live to tell
    if (known.lower !== undefined || known.link === undefined) {
      throw new LayerStoreError(
        'ERR_INVALID_ARGUMENT',
        `cannot put the layer "${id}" on "${parent}": ${known.link === undefined ? 'it has no link' : 'it stands on another already'}`,
      );
    }
    const { link } = known;
    const lower = await this.#lower(parent);
    if (lower === undefined) return;
    const strict = this.context.durability === 'strict';
    const steps = stackingSteps(this.#layout, id, lower, strict);
    await this.#mounts.whileIdle(id, () =>
      this.#layers.withChild(parent, strict, ({ write, sync }) =>
        this.context.engine.batch([...write, ...steps, ...sync]),
      ),
    );
    this.#layers.add(id, link, lower, known.frozen);
  }

  async #create(id: string, parent: string | undefined, writable: boolean, around: StepsAround): Promise<void> {
    checkLayerID(id, LINK_DIRECTORY);
    // What is unpacked into a read-only layer is synced as a whole later; an RW layer has nothing but these few files.
    const strict = writable && this.context.durability === 'strict';
    const lower = await this.#lower(parent);
    const link = newLinkID();
    try {
      const steps = creationSteps(this.#layout, { id, link, lower, diff: true, sync: strict });
      const make = ({ write, sync }: CommitMark): Promise<void> =>
        this.context.engine.batch([...around.before, ...write, ...steps, ...sync, ...around.after]);
      await (parent === undefined ? make({ write: [], sync: [] }) : this.#layers.withChild(parent, strict, make));
    } catch (error) {
      const ours = LayerStoreError.is(error) && error.path?.startsWith(this.#layout.directory(id)) === true;
      if (!hasErrno(error, 'EEXIST') || !ours) throw error;
      throw idTaken(id, error);
    }
    this.#layers.add(id, link, lower, !writable);
    this.#volatile.created(id);
  }

  async #lower(parent: string | undefined): Promise<Lower | undefined> {
    if (parent === undefined) return undefined;
    checkLayerID(parent, LINK_DIRECTORY);
    const lower = await this.#layers.asLower(parent);
    if (lower.depth <= MAX_LOWERS) return lower;
    throw new LayerStoreError(
      'ERR_MAX_DEPTH_EXCEEDED',
      `cannot stack a layer on "${parent}": it would have ${lower.depth} layers below it, and overlayfs takes ${MAX_LOWERS}`,
    );
  }

  /** What `id` adds to `parent`, which may be any layer below it; without one, its whole tree. */
  protected async difference(id: string, parent: string | undefined): Promise<Difference> {
    checkLayerID(id, LINK_DIRECTORY);
    const uppers = [this.#layout.diff(id)];
    let lower = (await this.#layers.load(id)).lower;
    await this.#layers.checkTrees(id, ...lowerPaths(lower, (each) => each.id));
    while (lower !== undefined && lower.id !== parent) {
      uppers.push(this.#layout.diff(lower.id));
      lower = lower.next;
    }
    const stack = (directories: readonly string[]): TreeStack => ({ directories, whiteouts: this.whiteouts });
    if (parent === undefined) return { upper: stack(uppers) };
    if (lower === undefined) {
      throw invalidArgument(`"${parent}" is not a layer below "${id}": name one that is, or none`);
    }
    const base = { upper: stack(uppers), lower: stack(this.#layers.diffs(lower)) };
    // An init layer is no part of what its RW layer changes: a whiteout of a file that only it had would hide nothing.
    const overInit = parent.endsWith('-init') && uppers.length === 1;
    return overInit ? { ...base, whiteoutsOf: stack(this.#layers.diffs(lower.next)) } : base;
  }

  #checkLabel(label: string | undefined): void {
    if (label === undefined || label === '' || this.#setup.labels) return;
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `cannot use the mount label ${quote(label)}: the kernel runs without SELinux`,
    );
  }
}

/** Always throws: a size takes a project quota, which this driver does not set. What else is missing is said first. */
export async function refuseSize(home: string): Promise<never> {
  const missing = missingForQuota(home, await quotaFacts(home));
  const why =
    missing === undefined ? 'this driver does not set yet' : `${missing}; this driver does not set it yet either`;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `cannot limit the size of a writable layer: that takes a project quota, which ${why}. Omit the size, or put the store on a file system of the size that it may have`,
  );
}
