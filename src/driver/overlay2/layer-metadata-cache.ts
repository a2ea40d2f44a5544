/**
 * What is known of each layer, read once and kept: its link, the stack below it, whether it takes writes. One process
 * writes to a root, so what was read stays true until this driver changes it.
 *
 * Records are hostile until checked: a `lower` file names only links, a link only `../<id>/diff`, and both of these must
 * be real directories inside the driver's home.
 */
import { readlink } from 'node:fs/promises';
import type { BatchOp } from '../../engine/engine.js';
import { LayerStoreError, systemError } from '../../errors.js';
import { mapConcurrent } from '../../util/concurrent.js';
import { quote } from '../../util/quote.js';
import { noSuchLayer } from '../context.js';
import { hasErrno, kindOf, readRecord, requireDirectory, requireDirectorySync } from '../files.js';
import {
  corrupt,
  isLinkID,
  type Layout,
  linkTarget,
  type Lower,
  LOWER_ENTRY_BYTES,
  lowerPaths,
  MAX_LOWERS,
  parseLowerText,
} from './layout.js';

export interface KnownLayer {
  readonly id: string;
  /** `undefined`: the record is missing or damaged. The layer can be used, but not be a parent. */
  readonly link: string | undefined;
  readonly lower: Lower | undefined;
  /** A child was made, or it was made read-only in this process: it is mounted without an upper directory. */
  frozen: boolean;
  /** The file `committed` is there. */
  committed: boolean;
}

/** Steps that mark a parent: first what is written, last what is synced. */
export interface CommitMark {
  readonly write: readonly BatchOp[];
  readonly sync: readonly BatchOp[];
}

/** Links read at once: few, so that the threads of the pool stay free for others. */
const READERS = 4;

export class LayerMetadataCache {
  readonly #layout: Layout;
  readonly #keep: boolean;
  readonly #known = new Map<string, KnownLayer>();
  /** By link: the stack that begins with it, so that children of one parent share one list. */
  readonly #stacks = new Map<string, Lower>();
  readonly #ownLinks = new Map<string, string>();
  /** Ids that {@link checkStack} found in order below another one. */
  readonly #checked = new Set<string>();
  /** By id: the making of a first child; never rejects. */
  readonly #committing = new Map<string, Promise<void>>();

  /** `keep`: no other process changes the root. A store that is open beside a writer reads the files each time. */
  constructor(layout: Layout, keep: boolean) {
    this.#layout = layout;
    this.#keep = keep;
  }

  /** ERR_LAYER_DOES_NOT_EXIST, or ERR_LAYER_CORRUPT where its `lower` cannot be trusted. */
  async load(id: string): Promise<KnownLayer> {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const directory = this.#layout.directory(id);
    if ((await kindOf(directory)) === undefined) throw noSuchLayer(id, this.#layout.home);
    await requireDirectory(directory);
    const lowerFile = `${directory}/lower`;
    const [link, lowers, committed] = await Promise.all([
      this.#readLink(`${directory}/link`),
      readRecord(lowerFile, MAX_LOWERS * LOWER_ENTRY_BYTES),
      kindOf(`${directory}/committed`),
    ]);
    const lower =
      lowers === undefined ? undefined : await this.#stack(parseLowerText(lowers, lowerFile), id, lowerFile);
    const layer: KnownLayer = { id, link, lower, frozen: committed !== undefined, committed: committed !== undefined };
    if (!this.#keep) return layer;
    // Somebody may have read it meanwhile: all share the first, since `frozen` and `committed` change.
    const first = this.#known.get(id);
    if (first !== undefined) return first;
    this.#known.set(id, layer);
    return layer;
  }

  /**
   * Looks at the directories of these layers, for somebody who is about to read, write or mount them: ERR_LAYER_CORRUPT
   * where one is missing, or a link has taken its place, since behind a link lie files of the host. Nothing is remembered:
   * a directory can be replaced while the store is open.
   */
  async checkTrees(...ids: readonly string[]): Promise<void> {
    const directories = ids.flatMap((id) => [this.#layout.directory(id), this.#layout.diff(id)]);
    await mapConcurrent(directories, READERS, requireDirectory);
  }

  /** {@link checkTrees} for a mount: what lies below is looked at once, since a mount must not cost more with each layer below. */
  async checkStack(id: string, lower: Lower | undefined): Promise<void> {
    const below = lowerPaths(lower, (each) => each.id).filter((each) => !this.#checked.has(each));
    requireDirectorySync(this.#layout.directory(id));
    requireDirectorySync(this.#layout.diff(id));
    await this.checkTrees(...below);
    for (const each of below) this.#checked.add(each);
  }

  /** What a child of `parent` stacks on, itself included. */
  async asLower(parent: string): Promise<Lower> {
    const layer = await this.load(parent);
    const { link } = layer;
    const where = `${this.#layout.directory(parent)}/link`;
    if (link === undefined) throw corrupt(where, 'the record is missing or damaged');
    if (this.#ownLinks.get(link) !== parent && (await this.#resolve(link)) !== parent) {
      throw corrupt(where, `"l/${link}" stands for another layer`);
    }
    return this.#intern(parent, link, layer.lower);
  }

  /** Takes in a layer that was just made. */
  add(id: string, link: string, lower: Lower | undefined, frozen: boolean): KnownLayer {
    const layer: KnownLayer = { id, link, lower, frozen, committed: false };
    this.#known.set(id, layer);
    this.#ownLinks.set(link, id);
    return layer;
  }

  /** The link that is known to stand for `id` and nothing else. */
  knownLink(id: string): string | undefined {
    const link = this.#known.get(id)?.link;
    return link !== undefined && this.#ownLinks.get(link) === id ? link : undefined;
  }

  forget(id: string): void {
    const link = this.#known.get(id)?.link;
    this.#known.delete(id);
    this.#checked.delete(id);
    if (link !== undefined && this.#ownLinks.get(link) === id) this.#ownLinks.delete(link);
    if (link !== undefined && this.#stacks.get(link)?.id === id) this.#stacks.delete(link);
  }

  /**
   * Makes a child of `id`: `make` gets the steps that mark the parent as Docker does, so that a later `get` of it makes no
   * writable mount; they are empty where that was done. Of children made at once the first marks, the others wait for it,
   * and where it fails nothing of the mark is left.
   */
  async withChild(id: string, durable: boolean, make: (mark: CommitMark) => Promise<void>): Promise<void> {
    const layer = await this.load(id);
    for (let first = this.#committing.get(id); first !== undefined; first = this.#committing.get(id)) await first;
    if (layer.committed) return make({ write: [], sync: [] });
    const directory = this.#layout.directory(id);
    const path = `${directory}/committed`;
    const made = make({
      write: [{ op: 'write', path, mode: 0o600, data: '' }],
      sync: durable ? [path, directory].map((what) => ({ op: 'fsync', path: what })) : [],
    }).then(() => void (layer.committed = layer.frozen = true));
    // The caller that began it gets the error; the others only wait for its end.
    const over = made.catch(() => undefined).finally(() => this.#committing.delete(id));
    this.#committing.set(id, over);
    return made;
  }

  /** Real directories of a stack, nearest first. */
  diffs(lower: Lower | undefined): string[] {
    return lowerPaths(lower, ({ id }) => this.#layout.diff(id));
  }

  async #readLink(path: string): Promise<string | undefined> {
    try {
      const link = await readRecord(path, 64);
      return link !== undefined && isLinkID(link) ? link : undefined;
    } catch (error) {
      // A damaged link matters only to new children; `asLower` reports it.
      if (LayerStoreError.is(error, 'ERR_LAYER_CORRUPT')) return undefined;
      throw error;
    }
  }

  async #stack(links: readonly string[], self: string, path: string): Promise<Lower> {
    const ids = await mapConcurrent(links, READERS, async (link) => this.#ownLinks.get(link) ?? this.#resolve(link));
    if (new Set([self, ...ids]).size !== ids.length + 1) throw corrupt(path, 'it stacks a layer on itself');
    let lower: Lower | undefined;
    for (let at = links.length - 1; at >= 0; at--) lower = this.#intern(ids[at] as string, links[at] as string, lower);
    // parseLowerText gives at least one link, or throws.
    return lower as Lower;
  }

  #intern(id: string, link: string, next: Lower | undefined): Lower {
    const held = this.#stacks.get(link);
    if (held !== undefined && held.id === id && held.next === next) return held;
    const lower: Lower = { id, link, next, depth: (next?.depth ?? 0) + 1 };
    this.#stacks.set(link, lower);
    return lower;
  }

  async #resolve(link: string): Promise<string> {
    const path = this.#layout.link(link);
    let target: string;
    try {
      target = await readlink(path);
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) throw corrupt(path, 'a layer is stacked on it and it is gone');
      if (hasErrno(error, 'EINVAL')) throw corrupt(path, 'it is not a symbolic link');
      throw systemError(error, 'read the link');
    }
    const id = linkTarget(target);
    if (id === undefined) throw corrupt(path, `it points to ${quote(target)} and not to "../ID/diff"`);
    await this.checkTrees(id);
    if (this.#keep) this.#ownLinks.set(link, id);
    return id;
  }
}
