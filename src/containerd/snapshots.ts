/**
 * Snapshots: containerd's names for trees of the store's driver, and the rules by which they come, change and go.
 *
 * A snapshot is on disk in two places. Its record (`records.ts`) says what it is; its tree, where it has one of its own, is
 * the driver's. Ids of trees begin with a prefix that the records hold, so that after a crash a tree that no record names
 * is known to be ours, and removed. In order, so that a crash between two steps leaves nothing wrong:
 *
 * | call | steps |
 * |---|---|
 * | Prepare, View | tree (durable), record |
 * | Apply | contents, tar-split file (durable), record with what was applied |
 * | Commit | contents durable, record (one line: the old name goes, the new one comes); where it is a layer: layer published, reference, record with the layer, tar-split file removed |
 * | Prepare of a layer that is here | reference, record |
 * | Remove | record, then reference or tree |
 *
 * An open ends what a Commit left half done, before anybody is served.
 *
 * **Layers.** A committed snapshot whose tree holds exactly one applied tar, on a parent that is a layer (or on nothing), and
 * whose name ends in the chain id that follows, is that layer of the store. It then has no tree of its own: the layer has. A
 * reference named `containerd:NAME` keeps the layer as long as the snapshot is there.
 */
import { open, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type ChainID, createChainID, type Digest, parseChainID } from '../digest.js';
import type { MountSpecification, TreeRoot } from '../driver/driver.js';
import { LayerStoreError } from '../errors.js';
import type { ProgressListener, TarSource } from '../engine/engine.js';
import type { Store } from '../store/types.js';
import { type FilledTree, type StoreTrees, treesOf } from '../store/trees.js';
import { defined } from '../util/defined.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import { errorFields } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { quote } from '../util/quote.js';
import { randomID } from '../util/random-id.js';
import { nanoseconds } from './clock.js';
import { parseFilters } from './filters.js';
import { type AppliedTar, type SnapshotRecord, SnapshotRecords, type SnapshotUsage } from './records.js';
import { Refusal } from './refusal.js';

/** Label of a snapshot that is made for unpacking: the name that it will have, which for layers is the chain id. */
export const LABEL_REF = 'containerd.io/snapshot.ref';
/** Labels of a snapshot for a user namespace: `CONTAINER:HOST:SIZE`, with commas between ranges. */
export const LABEL_UID_MAPPING = 'containerd.io/snapshot/uidmapping';
export const LABEL_GID_MAPPING = 'containerd.io/snapshot/gidmapping';
/** References of the store that snapshots hold. */
export const REFERENCE_PREFIX = 'containerd:';

/** What the directory of a new tree is like where nothing else is said. */
const PLAIN_ROOT: TreeRoot = { mode: 0o755, uid: 0, gid: 0 };
/** Bytes of a snapshot's name, so that it fits into a reference's. */
const MAX_NAME = 1000;
const CONTROL = /[\u0000-\u001f\u007f]/;

interface Entry {
  record: SnapshotRecord;
  /** Snapshots on it, those that are being made included. */
  children: number;
  /** Not there for others: it is being made, or removed, or committed to another name. */
  hidden: boolean;
  /** What a committed snapshot's tree begins with, once somebody asked. */
  root?: TreeRoot;
}

export interface ApplySource {
  readonly tar: TarSource;
  readonly blob: { mediaType: string; digest: Digest; size: number };
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ProgressListener | undefined;
}

export interface SnapshotsOptions {
  readonly store: Store;
  /** Prepare answers that a layer which is here already need not be unpacked. */
  readonly reuseLayers: boolean;
}

/** Where a store's snapshots have their records. */
export function snapshotsDirectory(root: string): string {
  return join(root, 'layerstore', 'containerd');
}

export class Snapshots {
  readonly #store: Store;
  readonly #trees: StoreTrees;
  readonly #records: SnapshotRecords;
  readonly #reuseLayers: boolean;
  readonly #applied: string;
  readonly #entries = new Map<string, Entry>();
  readonly #byTree = new Map<string, Entry>();
  /** By a snapshot's name: calls that change it, one after the other. */
  readonly #locks = new KeyedMutex();

  private constructor(options: SnapshotsOptions, trees: StoreTrees, records: SnapshotRecords) {
    this.#store = options.store;
    this.#trees = trees;
    this.#records = records;
    this.#reuseLayers = options.reuseLayers;
    this.#applied = join(snapshotsDirectory(trees.root), 'applied');
  }

  static async open(options: SnapshotsOptions): Promise<Snapshots> {
    const trees = treesOf(options.store);
    trees.checkWritable('serve snapshots');
    const directory = snapshotsDirectory(trees.root);
    const records = await SnapshotRecords.open({
      directory,
      quarantine: join(trees.root, 'layerstore', 'quarantine'),
      durability: trees.durability,
      logger: trees.logger,
    });
    const snapshots = new Snapshots(options, trees, records);
    try {
      await makeDirectory(snapshots.#applied, 0o700);
      await snapshots.#recover();
    } catch (error) {
      await records.close();
      throw error;
    }
    trees.setTreeSource('snapshots', async () => snapshots.#byTree.keys());
    return snapshots;
  }

  get count(): number {
    return this.#entries.size;
  }

  /** The caller sees to it that no call runs. */
  async close(): Promise<void> {
    await this.#records.close();
  }

  /** A new snapshot on `parent`, a committed one (empty: on nothing), and how it is mounted. */
  async prepare(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    labels: Record<string, string>,
  ): Promise<MountSpecification[]> {
    checkName(key);
    const below = parent === '' ? undefined : this.#committed(parent);
    if (this.#entries.has(key)) throw alreadyExists(key);
    if (below !== undefined) this.#treeOf(below); // says so where its files are gone
    const mapping = mappingOf(labels);
    const tree = kind === 'view' && below !== undefined ? undefined : this.#newTree();
    const time = nanoseconds().toString();
    const entry: Entry = {
      record: {
        name: key,
        kind,
        parent,
        created: time,
        updated: time,
        labels: withoutEmpty(labels),
        ...defined({ tree }),
      },
      children: 0,
      hidden: true,
    };
    // Before the first await: the name is taken and the parent stays.
    this.#entries.set(key, entry);
    if (below !== undefined) below.children += 1;
    try {
      if (kind === 'active') await this.#refuseWhatIsHere(labels[LABEL_REF], key, below, labels);
      if (tree !== undefined) {
        this.#byTree.set(tree, entry);
        await this.#makeTree(tree, below, mapping);
      }
      const mounts = await this.#mountsOf(entry, below);
      await this.#records.append({ snapshot: entry.record });
      entry.hidden = false;
      return mounts;
    } catch (error) {
      this.#entries.delete(key);
      if (below !== undefined) below.children -= 1;
      if (tree !== undefined) await this.#discardTree(tree);
      throw error;
    }
  }

  /** How an active snapshot or a view is mounted. */
  async mounts(key: string): Promise<MountSpecification[]> {
    return this.#locks.run(key, async () => {
      const entry = this.#find(key);
      if (entry.record.kind === 'committed') {
        throw new Refusal(
          'FAILED_PRECONDITION',
          `snapshot ${quote(key)} is committed: prepare one on it to mount that`,
        );
      }
      // Whoever asks again may write: from here on nobody can say that the tree is what was applied.
      if (entry.record.applied !== undefined) await this.#forgetApplied(entry);
      const { parent } = entry.record;
      return this.#mountsOf(entry, parent === '' ? undefined : this.#committed(parent));
    });
  }

  /**
   * An active snapshot becomes the committed one `name`, with these labels and no others. `parent`: it was prepared on
   * nothing, and is put on this.
   */
  async commit(name: string, key: string, labels: Record<string, string>, parent: string): Promise<void> {
    checkName(name);
    await this.#locks.run(key, async () => {
      const entry = this.#find(key);
      if (this.#entries.has(name)) throw alreadyExists(name);
      const { record } = entry;
      if (record.kind !== 'active') {
        throw new Refusal(
          'FAILED_PRECONDITION',
          `cannot commit the snapshot ${quote(key)}: it is ${record.kind}, not active`,
        );
      }
      const moved = parent !== '' && record.parent === '' ? this.#committed(parent) : undefined;
      if (parent !== '' && moved === undefined && record.parent !== parent) {
        throw new Refusal(
          'INVALID_ARGUMENT',
          `cannot commit the snapshot ${quote(key)} on ${quote(parent)}: it was prepared on ${quote(record.parent)}`,
        );
      }
      const committed: Entry = { record, children: 0, hidden: true };
      this.#entries.set(name, committed);
      if (moved !== undefined) moved.children += 1;
      try {
        await this.#commit(entry, committed, name, labels, moved);
      } catch (error) {
        this.#entries.delete(name);
        if (moved !== undefined) moved.children -= 1;
        throw error;
      }
    });
  }

  async remove(key: string): Promise<void> {
    await this.#locks.run(key, async () => {
      const entry = this.#find(key);
      if (entry.children > 0) {
        throw new Refusal(
          'FAILED_PRECONDITION',
          `cannot remove the snapshot ${quote(key)}: ${entry.children} others stand on it`,
        );
      }
      entry.hidden = true;
      try {
        await this.#records.append({ gone: key });
      } catch (error) {
        entry.hidden = false;
        throw error;
      }
      this.#forget(entry);
      await this.#removeContents(entry.record);
    });
  }

  stat(key: string): SnapshotRecord {
    return this.#find(key).record;
  }

  /** `paths`: `labels`, or `labels.NAME`; none stands for all that can be changed, which are the labels. */
  async update(key: string, labels: Record<string, string>, paths: readonly string[]): Promise<SnapshotRecord> {
    return this.#locks.run(key, async () => {
      const entry = this.#find(key);
      let updated = paths.length === 0 ? labels : { ...entry.record.labels };
      for (const path of paths) {
        if (path === 'labels') {
          updated = { ...labels };
        } else if (path.startsWith('labels.')) {
          const label = path.slice('labels.'.length);
          const value = Object.hasOwn(labels, label) ? labels[label] : undefined;
          if (value === undefined || value === '') delete updated[label];
          else updated[label] = value;
        } else {
          throw new Refusal(
            'INVALID_ARGUMENT',
            `cannot update the field ${quote(path)} of the snapshot ${quote(key)}: only labels can be changed`,
          );
        }
      }
      await this.#change(entry, { ...entry.record, labels: withoutEmpty(updated), updated: nanoseconds().toString() });
      return entry.record;
    });
  }

  /** Those that fit one of the filters, in order of name. */
  list(filters: readonly string[]): SnapshotRecord[] {
    const fits = parseFilters(filters);
    const found: SnapshotRecord[] = [];
    for (const { record, hidden } of this.#entries.values()) if (!hidden && fits(record)) found.push(record);
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Of a committed snapshot as it was recorded; of an active one by a walk of what it holds above its parent. */
  async usage(key: string): Promise<SnapshotUsage> {
    const { record } = this.#find(key);
    if (record.kind !== 'active' || record.tree === undefined) return record.usage ?? { size: 0, inodes: 0 };
    return this.#measure(record.tree, record.parent);
  }

  /** Removes trees that no record names, and what removals left. */
  async cleanup(): Promise<void> {
    await this.#removeOrphans();
    await this.#trees.driver.cleanup();
  }

  /**
   * The active snapshot that a request's mounts write to. NOT_FOUND where it is none of ours, so that no request can name a
   * path: a directory counts only as what the driver says of a snapshot's tree.
   */
  async writtenBy(directory: string): Promise<string> {
    const id = directory.split('/').find((part) => part.startsWith(this.#records.prefix));
    const entry = id === undefined ? undefined : this.#byTree.get(id);
    if (id !== undefined && entry !== undefined && entry.record.kind === 'active' && !entry.hidden) {
      const { writes } = await this.#trees.driver.mountSpecification(id, 'read-write');
      if (writes === directory) return entry.record.name;
    }
    throw new Refusal('NOT_FOUND', `the directory ${quote(directory)} is that of no active snapshot here`);
  }

  /** Unpacks a tar into an active snapshot. A failure may leave parts of it in the tree, as with any differ. */
  async apply(key: string, source: ApplySource): Promise<AppliedTar> {
    return this.#locks.run(key, async () => {
      const entry = this.#find(key);
      const { tree, kind, parent } = entry.record;
      if (kind !== 'active' || tree === undefined) {
        throw new Refusal(
          'FAILED_PRECONDITION',
          `cannot unpack into the snapshot ${quote(key)}: it is ${kind}, not active`,
        );
      }
      const first = entry.record.applied === undefined && (await this.#isEmpty(tree, parent));
      if (entry.record.applied !== undefined) await this.#forgetApplied(entry);
      const tarSplit = this.#tarSplitPath(tree);
      await rm(tarSplit, { force: true }); // of an attempt that failed
      const { limits } = this.#trees;
      const result = await this.#trees.driver.applyDiff(tree, this.#parentTree(parent), source.tar, {
        blob: { digest: source.blob.digest, size: source.blob.size },
        ...defined({
          limits,
          tarSplit: first ? { path: tarSplit } : undefined,
          signal: source.signal,
          onProgress: source.onProgress,
        }),
      });
      const applied: AppliedTar = {
        diffID: result.diffID,
        tarSize: result.tarSize,
        size: result.size,
        entries: result.entries,
        blob: source.blob,
      };
      if (!first) return applied;
      if (this.#trees.durability === 'strict') await syncFile(tarSplit);
      await this.#change(entry, { ...entry.record, applied });
      return applied;
    });
  }

  // --- what the calls are made of

  #find(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry !== undefined && !entry.hidden) return entry;
    throw new Refusal('NOT_FOUND', `there is no snapshot ${quote(name)}`);
  }

  #committed(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined || entry.hidden)
      throw new Refusal('NOT_FOUND', `there is no snapshot ${quote(name)} to stand on`);
    if (entry.record.kind === 'committed') return entry;
    throw new Refusal(
      'INVALID_ARGUMENT',
      `cannot stand on the snapshot ${quote(name)}: it is ${entry.record.kind}, not committed`,
    );
  }

  /** The driver's id of a committed snapshot's files. */
  #treeOf({ record }: Entry): string {
    const tree = record.layer === undefined ? record.tree : this.#trees.treeOf(record.layer);
    if (tree !== undefined) return tree;
    throw new Refusal(
      'FAILED_PRECONDITION',
      `the files of the snapshot ${quote(record.name)} are gone: remove the images that use it and pull them again`,
    );
  }

  #parentTree(parent: string): string | undefined {
    return parent === '' ? undefined : this.#treeOf(this.#committed(parent));
  }

  #newTree(): string {
    return `${this.#records.prefix}${randomID(24)}`;
  }

  async #makeTree(tree: string, below: Entry | undefined, mapping: Mapping | undefined): Promise<void> {
    const { driver } = this.#trees;
    const parent = below === undefined ? undefined : this.#treeOf(below);
    await driver.createReadWrite(tree, parent, {});
    let root = PLAIN_ROOT;
    if (below !== undefined && parent !== undefined) root = below.root ??= await driver.treeRoot(parent);
    if (mapping !== undefined) root = { mode: root.mode, uid: mapping.uid, gid: mapping.gid };
    const plain = root.mode === PLAIN_ROOT.mode && root.uid === PLAIN_ROOT.uid && root.gid === PLAIN_ROOT.gid;
    if (!plain) await driver.setTreeRoot(tree, root);
  }

  async #mountsOf({ record }: Entry, below: Entry | undefined): Promise<MountSpecification[]> {
    const { driver } = this.#trees;
    const tree = record.tree ?? (below === undefined ? undefined : this.#treeOf(below));
    if (tree === undefined) throw new Refusal('FAILED_PRECONDITION', `the snapshot ${quote(record.name)} has no files`);
    const mount = await driver.mountSpecification(tree, record.kind === 'active' ? 'read-write' : 'read-only');
    const maps = [
      ['uidmap', record.labels[LABEL_UID_MAPPING]],
      ['gidmap', record.labels[LABEL_GID_MAPPING]],
    ].flatMap(([option, value]) => (value === undefined ? [] : [`${option}=${value}`]));
    return [maps.length === 0 ? mount : { ...mount, options: [...maps, ...mount.options] }];
  }

  async #commit(
    active: Entry,
    committed: Entry,
    name: string,
    labels: Record<string, string>,
    moved: Entry | undefined,
  ): Promise<void> {
    const { tree, applied } = active.record;
    if (tree === undefined) throw new Refusal('FAILED_PRECONDITION', `the snapshot ${quote(name)} has no files`);
    const parent = moved?.record.name ?? active.record.parent;
    if (moved !== undefined) await this.#trees.driver.rebase(tree, this.#treeOf(moved));
    const [usage] = await Promise.all([this.#measure(tree, parent), this.#trees.sync([tree])]);
    const below = parent === '' ? undefined : this.#committed(parent);
    const layer = applied === undefined ? undefined : layerNamed(name, applied, below);
    const time = nanoseconds().toString();
    const record: SnapshotRecord = {
      name,
      kind: 'committed',
      parent,
      created: time,
      updated: time,
      labels: withoutEmpty(labels),
      tree,
      usage,
      ...defined({ applied: layer === undefined ? undefined : applied }),
    };
    await this.#records.append({ gone: active.record.name, snapshot: record });
    // From here on nothing takes the commit back: the snapshot is there under its new name, as a layer or not.
    this.#entries.delete(active.record.name);
    active.hidden = true;
    committed.record = record;
    this.#byTree.set(tree, committed);
    if (applied !== undefined && layer === undefined) await this.#dropTarSplit(tree);
    if (layer !== undefined) await this.#becomeLayer(committed);
    committed.hidden = false;
  }

  /** Of a committed snapshot with `applied`. Where that fails it stays a snapshot with a tree of its own, which does as well. */
  async #becomeLayer(entry: Entry): Promise<void> {
    const { record } = entry;
    const { tree, applied, parent } = record;
    if (tree === undefined || applied === undefined) return;
    const { tree: _tree, applied: _applied, ...rest } = record;
    try {
      const filled: FilledTree = {
        id: tree,
        parent: parent === '' ? undefined : this.#committed(parent).record.layer,
        result: resultOf(applied),
        tarSplit: this.#tarSplitPath(tree),
        descriptor: undefined,
      };
      const { layer, id } = await this.#trees.publish(filled);
      try {
        await this.#store.retain(layer.chainID, referenceName(record.name));
      } finally {
        await this.#store.release(layer);
      }
      await this.#change(entry, { ...rest, layer: layer.chainID });
      this.#byTree.delete(tree);
      if (id !== tree) await this.#discardTree(tree);
    } catch (error) {
      this.#trees.logger.warn(
        { snapshot: record.name, ...errorFields(error) },
        'a snapshot does not become a layer of the store; containerd can use it all the same',
      );
      // Published, but with a reference or record missing: it is left as it is for the next open, which tries again.
      if (this.#trees.treeOf(layerOf(record)) === tree) return;
      await this.#change(entry, { ...rest, tree }).catch(() => undefined); // logged above; the next open tries again
    }
    await this.#dropTarSplit(tree);
  }

  /**
   * Where `ref` names a layer of the store on this very parent: makes the committed snapshot that unpacking would end in, and
   * says so, by which containerd neither fetches nor unpacks the layer.
   */
  async #refuseWhatIsHere(
    ref: string | undefined,
    key: string,
    below: Entry | undefined,
    labels: Record<string, string>,
  ): Promise<void> {
    if (ref === undefined || !this.#reuseLayers) return;
    const chainID = chainOf(ref);
    const parent = below?.record.name ?? '';
    if (chainID === undefined) return;
    await this.#locks.run(`reuse ${parent} ${ref}`, async () => {
      const there = [...this.#entries.values()].find(
        ({ record, hidden }) =>
          !hidden && record.kind === 'committed' && record.parent === parent && record.labels[LABEL_REF] === ref,
      );
      if (there === undefined && !(await this.#adopt(chainID, key, below, labels))) return;
      throw new Refusal('ALREADY_EXISTS', `the layer ${quote(ref)} is here already`);
    });
  }

  async #adopt(
    chainID: ChainID,
    key: string,
    below: Entry | undefined,
    labels: Record<string, string>,
  ): Promise<boolean> {
    const layer = this.#store.map().get(chainID);
    if (layer === undefined) return false;
    if (below === undefined ? layer.parent !== undefined : layer.parent?.chainID !== below.record.layer) return false;
    const tree = this.#trees.treeOf(chainID);
    if (tree === undefined) return false;
    const name = this.#nameFor(key, chainID);
    const entry: Entry = {
      record: {
        name,
        kind: 'committed',
        parent: '',
        created: '0',
        updated: '0',
        labels: withoutEmpty(labels),
        layer: chainID,
      },
      children: 0,
      hidden: true,
    };
    this.#entries.set(name, entry);
    if (below !== undefined) below.children += 1;
    try {
      await this.#store.retain(chainID, referenceName(name));
      const time = nanoseconds().toString();
      const parent = below?.record.name ?? '';
      const usage = await this.#measure(tree, parent);
      entry.record = { ...entry.record, parent, created: time, updated: time, usage };
      await this.#records.append({ snapshot: entry.record });
      entry.hidden = false;
      return true;
    } catch (error) {
      this.#entries.delete(name);
      if (below !== undefined) below.children -= 1;
      if (LayerStoreError.is(error, 'ERR_LAYER_DOES_NOT_EXIST')) return false; // released meanwhile
      await this.#dropReference(name);
      throw error;
    }
  }

  /** As containerd would name it: `NAMESPACE/NUMBER/CHAINID` for the key `NAMESPACE/NUMBER/extract-…`. */
  #nameFor(key: string, chainID: ChainID): string {
    const name = key.replace(/[^/]*$/, chainID);
    return this.#entries.has(name) ? `${key} ${randomID(8)}` : name;
  }

  async #measure(tree: string, parent: string): Promise<SnapshotUsage> {
    const { allocated, inodes } = await this.#trees.driver.usage(tree, this.#parentTree(parent));
    return { size: allocated, inodes };
  }

  async #isEmpty(tree: string, parent: string): Promise<boolean> {
    return (await this.#trees.driver.changes(tree, this.#parentTree(parent))).length === 0;
  }

  async #change(entry: Entry, record: SnapshotRecord): Promise<void> {
    await this.#records.append({ snapshot: record });
    entry.record = record;
  }

  async #forgetApplied(entry: Entry): Promise<void> {
    const { applied: _, ...record } = entry.record;
    await this.#change(entry, record);
    if (record.tree !== undefined) await this.#dropTarSplit(record.tree);
  }

  #forget({ record }: Entry): void {
    this.#entries.delete(record.name);
    const below = this.#entries.get(record.parent);
    if (below !== undefined) below.children -= 1;
  }

  /** Of a snapshot whose record is gone. What fails here is removed by the next cleanup or open. */
  async #removeContents(record: SnapshotRecord): Promise<void> {
    const { name, layer, tree, kind, applied } = record;
    if (layer !== undefined) await this.#dropReference(name);
    if (tree === undefined) return;
    await this.#dropTarSplit(tree);
    // Half of a commit: the tree may be a layer's by now, which gc removes where nothing keeps it.
    const pending = kind === 'committed' && applied !== undefined;
    if (pending && this.#trees.treeOf(layerOf(record)) === tree) this.#byTree.delete(tree);
    else await this.#discardTree(tree);
  }

  async #discardTree(tree: string): Promise<void> {
    try {
      await this.#trees.discard(tree);
    } catch (error) {
      this.#trees.logger.warn(
        { tree, ...errorFields(error) },
        'a tree cannot be removed; the next cleanup tries again',
      );
    }
    this.#byTree.delete(tree);
  }

  async #dropReference(name: string): Promise<void> {
    const reference = referenceName(name);
    if (!this.#store.references().some((each) => each.name === reference)) return;
    try {
      await this.#store.dropReference(reference);
    } catch (error) {
      this.#trees.logger.warn({ reference, ...errorFields(error) }, 'a reference stays; the next open drops it');
    }
  }

  #tarSplitPath(tree: string): string {
    return join(this.#applied, `${tree}.tar-split.gz`);
  }

  async #dropTarSplit(tree: string): Promise<void> {
    try {
      await rm(this.#tarSplitPath(tree), { force: true });
    } catch (error) {
      this.#trees.logger.warn({ tree, ...errorFields(error) }, 'a tar-split file of a snapshot cannot be removed');
    }
  }

  // --- the past

  async #recover(): Promise<void> {
    for (const record of this.#records.snapshots.values()) {
      const entry: Entry = { record, children: 0, hidden: false };
      this.#entries.set(record.name, entry);
      if (record.tree !== undefined) this.#byTree.set(record.tree, entry);
    }
    for (const { record } of this.#entries.values()) {
      const below = this.#entries.get(record.parent);
      if (below !== undefined) below.children += 1;
      else if (record.parent !== '') {
        this.#trees.logger.warn(
          { snapshot: record.name, parent: record.parent },
          'the parent of a snapshot has no record',
        );
      }
    }
    await this.#settleCommits();
    await this.#settleReferences();
    await this.#dropEmptied();
    await this.#removeOrphans();
    await this.#dropStaleTarSplits();
  }

  /** Parents first: a layer needs its parent to be one. */
  async #settleCommits(): Promise<void> {
    const pending = [...this.#entries.values()].filter(
      ({ record }) => record.kind === 'committed' && record.applied !== undefined,
    );
    const depth = (record: SnapshotRecord): number => {
      let levels = 0;
      for (let at = this.#entries.get(record.parent); at !== undefined; at = this.#entries.get(at.record.parent))
        levels += 1;
      return levels;
    };
    pending.sort((a, b) => depth(a.record) - depth(b.record));
    for (const entry of pending) await this.#becomeLayer(entry);
  }

  async #settleReferences(): Promise<void> {
    const wanted = new Map<string, SnapshotRecord>();
    for (const { record } of this.#entries.values()) {
      if (record.layer !== undefined) wanted.set(referenceName(record.name), record);
    }
    const held = new Map(this.#store.references().map(({ name, chainID }) => [name, chainID]));
    for (const [name, { layer }] of wanted) {
      if (layer === undefined || held.get(name) === layer || this.#trees.treeOf(layer) === undefined) continue;
      await this.#store.retain(layer, name);
    }
    // Where records are lost, so is what their references are for.
    if (this.#records.damaged) return;
    for (const name of held.keys()) {
      if (name.startsWith(REFERENCE_PREFIX) && !wanted.has(name)) await this.#store.dropReference(name);
    }
  }

  /** A snapshot whose files are gone is dropped, so that containerd unpacks it again; one that others stand on is kept. */
  async #dropEmptied(): Promise<void> {
    const there = new Set(await this.#trees.driver.list());
    const emptied = [...this.#entries.values()].filter(({ record: { layer, tree } }) => {
      if (layer !== undefined) return this.#trees.treeOf(layer) === undefined;
      return tree !== undefined && !there.has(tree);
    });
    for (const entry of emptied) {
      const { name } = entry.record;
      this.#trees.logger.warn({ snapshot: name, children: entry.children }, 'the files of a snapshot are gone');
      if (entry.children > 0) continue;
      await this.#records.append({ gone: name });
      this.#forget(entry);
      await this.#removeContents(entry.record);
    }
  }

  /** Nothing is being unpacked yet: what no record speaks of is of an Apply that was interrupted, or of a commit that is done. */
  async #dropStaleTarSplits(): Promise<void> {
    const wanted = new Set(
      [...this.#byTree].flatMap(([tree, { record }]) =>
        record.applied === undefined ? [] : [basename(this.#tarSplitPath(tree))],
      ),
    );
    for (const name of await readdir(this.#applied)) {
      if (!wanted.has(name)) await rm(join(this.#applied, name), { force: true });
    }
  }

  async #removeOrphans(): Promise<void> {
    // A record that cannot be read may name any of them.
    if (this.#records.damaged) return;
    const there = await this.#trees.driver.list();
    // Decided without an await: a tree that becomes a layer meanwhile is at each moment a snapshot's or the layer's.
    const unnamed = there.filter((id) => id.startsWith(this.#records.prefix) && !this.#byTree.has(id));
    if (unnamed.length === 0) return;
    const layers = new Set([...this.#store.map().keys()].map((chainID) => this.#trees.treeOf(chainID)));
    for (const id of unnamed.filter((each) => !layers.has(each))) {
      this.#trees.logger.info({ tree: id }, 'a tree that no snapshot has any more is removed');
      await this.#discardTree(id);
      await this.#dropTarSplit(id);
    }
  }
}

interface Mapping {
  uid: number;
  gid: number;
}

/** The host's ids of the container's root, where both labels are there. */
function mappingOf(labels: Record<string, string>): Mapping | undefined {
  const uids = labels[LABEL_UID_MAPPING];
  const gids = labels[LABEL_GID_MAPPING];
  if (uids === undefined && gids === undefined) return undefined;
  return { uid: hostRoot(uids, LABEL_UID_MAPPING), gid: hostRoot(gids, LABEL_GID_MAPPING) };
}

function hostRoot(ranges: string | undefined, label: string): number {
  for (const range of ranges?.split(',') ?? []) {
    const [container, host, size] = (/^(\d{1,10}):(\d{1,10}):(\d{1,10})$/.exec(range)?.slice(1) ?? []).map(Number);
    if (container === undefined || host === undefined || size === undefined || host > 0xfffffffe) break;
    if (container === 0 && size > 0) return host;
  }
  throw new Refusal(
    'INVALID_ARGUMENT',
    `the label "${label}" is ${quote(ranges ?? '')}: give CONTAINER:HOST:SIZE with a range for 0, and both labels`,
  );
}

function checkName(name: string): void {
  if (name !== '' && Buffer.byteLength(name) <= MAX_NAME && !CONTROL.test(name)) return;
  throw new Refusal(
    'INVALID_ARGUMENT',
    `${quote(name)} is not a valid name of a snapshot: use 1 to ${MAX_NAME} bytes without control characters`,
  );
}

function alreadyExists(name: string): Refusal {
  return new Refusal('ALREADY_EXISTS', `there is a snapshot ${quote(name)} already`);
}

function withoutEmpty(labels: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== ''));
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

function referenceName(name: string): string {
  return `${REFERENCE_PREFIX}${name}`;
}

function chainOf(text: string): ChainID | undefined {
  try {
    return parseChainID(text);
  } catch {
    return undefined; // a name of containerd's that is no chain id: nothing of ours
  }
}

/** The layer that a commit under this name makes; `undefined` where the name or the parent says that it is none. */
function layerNamed(name: string, { diffID }: AppliedTar, below: Entry | undefined): ChainID | undefined {
  if (below !== undefined && below.record.layer === undefined) return undefined;
  const chainID = createChainID([diffID], below?.record.layer);
  return chainID !== undefined && name.slice(name.lastIndexOf('/') + 1) === chainID ? chainID : undefined;
}

/** Of a record that waits to be one: its name says which. */
function layerOf({ name }: SnapshotRecord): ChainID {
  return parseChainID(name.slice(name.lastIndexOf('/') + 1));
}

function resultOf({ diffID, tarSize, size, entries, blob }: AppliedTar): FilledTree['result'] {
  return {
    diffID,
    tarSize,
    size,
    entries,
    compression: 'none',
    blobDigest: blob.digest,
    blobSize: blob.size,
    ignoredXattrs: 0,
    ignoredOwners: 0,
  };
}
