/**
 * The images of one store. Records are Docker's; each image holds a handle on its top layer while the process runs, as
 * dockerd does, and is a reference for gc at any time. Changes of records run one after the other.
 */
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { type Digest, isSHA256Hex, parseDigest } from '../digest.js';
import { invalidArgument, LayerStoreError } from '../errors.js';
import { releaseAndLog } from '../store/log.js';
import { usingSources } from '../store/source.js';
import type { Layer, LayerMetadata, Store } from '../store/types.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { KeyedMutex } from '../util/keyed-mutex.js';
import { quote } from '../util/quote.js';
import { Slots } from '../util/slots.js';
import { makeDirectory } from '../util/make-directory.js';
import { analyzeImage } from './analyze.js';
import { readConfig, topChain, type ConfigBlob } from './config.js';
import { attempt, noSuchImage, noSuchLayer } from './errors.js';
import { checkCreateOptions, newConfig } from './create.js';
import { ImageDb } from './imagedb.js';
import { archiveLimits } from './limits.js';
import { loadImages, PinnedChains, type LoadedImage } from './load.js';
import { parseName, parseNameToGive, tryParseName, type ImageName } from '../registry/reference.js';
import { registrySettings } from '../registry/settings.js';
import type { RegistryOptions } from '../registry/types.js';
import { imageReferences } from './references.js';
import { Repositories } from './repositories.js';
import { layersOf, saveImages } from './save.js';
import { LayerBlobs } from './layer-blobs.js';
import { MAX_LEFT_BYTES, PartialBlobs } from './partial-blobs.js';
import { pullImage, type RegistryAccess } from './pull.js';
import { pushImage } from './push.js';
import type {
  CreateImageOptions,
  Image,
  ImageAnalysis,
  Images,
  LoadOptions,
  PullOptions,
  PushOptions,
  SaveOptions,
} from './types.js';

const LIMITS = archiveLimits();
const HEX_PREFIX = /^[a-f0-9]{8,64}$/;

/** One image in memory: what its record says, and the handle that keeps its layers. */
interface ImageRecord {
  readonly config: ConfigBlob;
  /** The handle of this image on its top layer; absent for an image without layers, and in a read-only store. */
  readonly layer: Layer | undefined;
  readonly size: number;
}

export class DockerImages implements Images {
  readonly #store: Store;
  readonly #directory: string;
  readonly #db: ImageDb;
  readonly #repositories: Repositories;
  readonly #changes = new KeyedMutex();
  readonly #kept = new PinnedChains();
  readonly #registry: RegistryAccess;
  #records = new Map<Digest, ImageRecord>();
  #problems: string[] = [];
  /** Why names are not to be written: the file that is there was not understood. */
  #namesUnreadable: unknown;

  private constructor(store: Store, registry: RegistryOptions) {
    const sync = store.durability === 'strict';
    this.#store = store;
    const settings = registrySettings(registry);
    const own = join(store.root, 'layerstore');
    this.#registry = {
      settings,
      slots: new Slots(settings.concurrency),
      partial: new PartialBlobs(own, MAX_LEFT_BYTES),
      blobs: new LayerBlobs(own),
    };
    this.#directory = join(store.root, 'image', store.driverName);
    this.#db = new ImageDb({ directory: this.#directory, sync, maxJsonBytes: LIMITS.maxJsonBytes });
    this.#repositories = new Repositories(join(this.#directory, 'repositories.json'), { sync, limits: LIMITS });
  }

  static async open(store: Store, registry: RegistryOptions = {}): Promise<DockerImages> {
    const images = new DockerImages(store, registry);
    // What fails here has added no source, so that the next attempt adds none twice.
    await images.refresh();
    store.addReferenceSource(imageReferences(store.root, store.driverName));
    store.addReferenceSource(async () => images.#kept.chains());
    store.addLeftoverSource(() => images.#registry.partial.leftovers());
    return images;
  }

  async refresh(): Promise<void> {
    this.#assertOpen();
    if (this.#store.readOnly) await this.#store.refresh();
    await this.#changes.run('records', async () => {
      this.#problems = [];
      try {
        await this.#repositories.load();
        this.#namesUnreadable = undefined;
      } catch (error) {
        this.#namesUnreadable = error;
        this.#report('the image names cannot be read', error);
      }
      const ids = new Set(await this.#db.list());
      const records = new Map<Digest, ImageRecord>();
      for (const id of ids) {
        const record = this.#records.get(id) ?? (await this.#readRecord(id));
        if (record !== undefined) records.set(id, record);
      }
      const gone = [...this.#records].filter(([id]) => !records.has(id));
      this.#records = records;
      for (const [, { layer }] of gone) if (layer !== undefined) await this.#store.release(layer);
    });
  }

  async load(source: { path: string } | Readable, options: LoadOptions = {}): Promise<Image[]> {
    return usingSources([source], async () => {
      this.#assertWritable('load an image');
      const pins = this.#kept.begin(this.#store.map().keys());
      try {
        return await loadImages(this.#store, source, options, pins, (images) =>
          this.#changes.run('records', () => this.#record(images)),
        );
      } finally {
        pins.end();
      }
    });
  }

  async create(options: CreateImageOptions): Promise<Image> {
    this.#assertWritable('make an image');
    checkCreateOptions(options);
    const names = (options.names ?? []).map(parseNameToGive);
    const base = options.base === undefined ? undefined : this.#configOf(options.base);
    const baseChain = base === undefined ? undefined : topChain(base);
    const chainID = options.chainID ?? baseChain;
    // A handle from the beginning: the base or the layer may be removed meanwhile.
    const layer = chainID === undefined ? undefined : await this.#store.get(chainID);
    try {
      const layers = layersOf(layer);
      if (baseChain !== undefined && !layers.some((each) => each.chainID === baseChain))
        throw invalidArgument(
          `layer ${quote(String(chainID))} does not stand on the top layer "${baseChain}" of the base image ${quote(String(options.base))}; commit an RW layer that was made from the image`,
        );
      const diffIDs = layers.map(({ diffID }) => diffID);
      const config = newConfig(options, base, diffIDs, LIMITS);
      const [image] = await this.#changes.run('records', () => this.#record([{ config, names, layer }]));
      return image as Image;
    } catch (error) {
      if (layer !== undefined) await releaseAndLog(this.#store, layer);
      throw error;
    }
  }

  async analyze(nameOrID: string, { signal }: { signal?: AbortSignal } = {}): Promise<ImageAnalysis> {
    this.#assertOpen();
    signal?.throwIfAborted();
    const config = this.#configOf(nameOrID);
    const chain = topChain(config);
    // A handle of our own: the image may be removed meanwhile.
    const top = chain === undefined ? undefined : await this.#store.get(chain);
    try {
      return await analyzeImage(config, layersOf(top), signal);
    } finally {
      if (top !== undefined) await releaseAndLog(this.#store, top);
    }
  }

  #configOf(nameOrID: string): ConfigBlob {
    return this.#recordOf(this.#resolve(nameOrID)).config;
  }

  async save(
    nameOrID: string | readonly string[],
    target: { path: string } | Writable,
    options: SaveOptions = {},
  ): Promise<void> {
    this.#assertOpen();
    const wanted = new Set(typeof nameOrID === 'string' ? [nameOrID] : nameOrID);
    if (wanted.size === 0) throw invalidArgument('there is no image to save: give at least one name or id');
    const names = new Map<Digest, ImageName[]>();
    for (const each of wanted) {
      const id = this.#resolve(each);
      const name = this.#nameFor(each, id);
      names.set(id, [...(names.get(id) ?? []), ...(name === undefined ? [] : [name])]);
    }
    const images = [...names].map(([id, own]) => ({ config: this.#recordOf(id).config, names: own }));
    await saveImages(this.#store, images, target, options);
  }

  async pull(reference: string, options: PullOptions = {}): Promise<Image> {
    this.#assertWritable('pull an image');
    const pins = this.#kept.begin(this.#store.map().keys());
    try {
      return await pullImage(this.#store, this.#registry, reference, options, pins, async (image) => {
        const [recorded] = await this.#changes.run('records', () => this.#record([image]));
        return recorded as Image;
      });
    } finally {
      pins.end();
    }
  }

  async push(nameOrID: string, reference?: string, options: PushOptions = {}): Promise<Descriptor> {
    this.#assertOpen();
    const id = this.#resolve(nameOrID);
    const target = reference === undefined ? this.#pushName(nameOrID, id) : parseName(reference);
    if (target.digest !== undefined)
      throw invalidArgument(`${quote(reference ?? nameOrID)} has a digest; an image is pushed to a tag`);
    return pushImage(this.#store, this.#registry, this.#recordOf(id).config, target, options);
  }

  list(): readonly Image[] {
    const names = this.#repositories.byImage();
    return [...this.#records].map(([id, record]) => describeImage(record, names.get(id) ?? [])).sort(compareImages);
  }

  async get(nameOrID: string): Promise<Image> {
    this.#assertOpen();
    return this.#describe(this.#resolve(nameOrID));
  }

  async tag(nameOrID: string, name: string): Promise<void> {
    this.#assertWritable('name an image');
    const parsed = parseNameToGive(name);
    await this.#changes.run('records', async () => {
      const id = this.#resolve(nameOrID);
      await this.#writeNames((names) => names.set(parsed, id));
      await this.#db.writeLastUpdated(id, new Date());
    });
  }

  async remove(nameOrID: string): Promise<LayerMetadata[]> {
    this.#assertWritable('remove an image');
    return this.#changes.run('records', async () => {
      const id = this.#resolve(nameOrID);
      const name = this.#nameFor(nameOrID, id);
      if (name !== undefined && this.#repositories.leftWithout(name)) {
        await this.#writeNames((names) => names.delete(name));
        return [];
      }
      this.#refuseUsed(id);
      await this.#writeNames((names) => names.deleteImage(id));
      return this.#delete(id);
    });
  }

  problems(): readonly string[] {
    return [...this.#problems];
  }

  /** Configurations first, names last: an image is there when its name is, and a crash before leaves one without a name. */
  async #record(images: readonly LoadedImage[]): Promise<Image[]> {
    const added: Digest[] = [];
    try {
      for (const { config, layer, parent } of images) {
        if (this.#records.has(config.id)) continue;
        const size = (await layer?.size()) ?? 0;
        await this.#db.write(config.id, config.raw);
        added.push(config.id);
        if (parent !== undefined && this.#isParent(parent, config)) await this.#db.writeParent(config.id, parent);
        this.#records.set(config.id, { config, layer, size });
      }
      const named = images.filter(({ names }) => names.length > 0);
      if (named.length > 0) {
        await this.#writeNames((editor) => {
          for (const { config, names } of named) for (const name of names) editor.set(name, config.id);
        });
        for (const { config } of named) await this.#db.writeLastUpdated(config.id, new Date());
      }
    } catch (error) {
      // The handles go back to the caller, who releases them: no record may have one, whatever happens to its file.
      for (const id of added) this.#records.delete(id);
      for (const id of added) {
        await this.#db
          .remove(id)
          .catch((left: unknown) => this.#report(`the record of image ${id} is left behind`, left));
      }
      throw error;
    }
    // An image that was there before has its own handle. The records stand: a release that fails is no failure of theirs.
    for (const { config, layer } of images) {
      if (layer !== undefined && this.#records.get(config.id)?.layer !== layer) await releaseAndLog(this.#store, layer);
    }
    return images.map(({ config }) => this.#describe(config.id));
  }

  #isParent(parent: Digest, config: ConfigBlob): boolean {
    const below = this.#records.get(parent)?.config.diffIDs;
    return (
      below !== undefined && parent !== config.id && below.every((diffID, index) => config.diffIDs[index] === diffID)
    );
  }

  /** The record first, then the layers: a crash in between leaves layers that gc finds, never an image without. */
  async #delete(id: Digest): Promise<LayerMetadata[]> {
    const { layer } = this.#recordOf(id);
    const parents = await this.#db.parents([...this.#records.keys()]);
    for (const [child, parent] of parents) if (parent === id) await this.#db.removeParent(child);
    await this.#db.remove(id);
    this.#records.delete(id);
    return layer === undefined ? [] : this.#store.release(layer);
  }

  #refuseUsed(id: Digest): void {
    const chain = topChain(this.#recordOf(id).config);
    const sharesChain = [...this.#records].some(([other, { config }]) => other !== id && topChain(config) === chain);
    if (sharesChain || chain === undefined) return;
    const users = [...this.#store.mounts().values()].filter(({ parent }) => parent === chain).map(({ name }) => name);
    if (users.length === 0) return;
    throw new LayerStoreError(
      'ERR_LAYER_IN_USE',
      `image ${id} is in use by the RW layer ${quote(users[0] as string)}${users.length > 1 ? ` and ${users.length - 1} more` : ''}; release that first`,
    );
  }

  async #readRecord(id: Digest): Promise<ImageRecord | undefined> {
    try {
      const config = readConfig(await this.#db.read(id), LIMITS);
      const chain = topChain(config);
      if (chain === undefined) return { config, layer: undefined, size: 0 };
      const there = this.#store.map().get(chain);
      if (there === undefined) throw noSuchLayer(chain);
      const size = await there.size();
      // A reader keeps nothing alive: what the writer removes is gone for it too.
      return { config, size, layer: this.#store.readOnly ? undefined : await this.#store.get(there.chainID) };
    } catch (error) {
      if (this.#store.closed) throw error;
      this.#report(`image ${id} is left out`, error);
      return undefined;
    }
  }

  #report(what: string, error: unknown): void {
    this.#problems.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }

  async #writeNames(edit: Parameters<Repositories['change']>[0]): Promise<void> {
    if (this.#namesUnreadable !== undefined) throw this.#namesUnreadable;
    await attempt('record the image names', () => makeDirectory(this.#directory, 0o700));
    await this.#repositories.change(edit);
  }

  #describe(id: Digest): Image {
    return describeImage(this.#recordOf(id), this.#repositories.byImage().get(id) ?? []);
  }

  #recordOf(id: Digest): ImageRecord {
    const record = this.#records.get(id);
    if (record === undefined) throw noSuchImage(id);
    return record;
  }

  /** An id whole, then a name, then the beginning of an id: Docker's order. */
  #resolve(nameOrID: string): Digest {
    if (typeof nameOrID !== 'string' || nameOrID === '')
      throw invalidArgument('an image is asked for by a name or an id');
    const hex = nameOrID.replace(/^sha256:/, '');
    if (isSHA256Hex(hex)) return this.#recordOf(parseDigest(`sha256:${hex}`)).config.id;
    const name = tryParseName(nameOrID);
    const named = name === undefined ? undefined : this.#repositories.get(name);
    if (named !== undefined && this.#records.has(named)) return named;
    const matches = HEX_PREFIX.test(hex)
      ? [...this.#records.keys()].filter((id) => id.startsWith(hex, 'sha256:'.length))
      : [];
    if (matches.length > 1)
      throw invalidArgument(`${quote(nameOrID)} is the beginning of ${matches.length} image ids; give more digits`);
    if (matches[0] === undefined) throw noSuchImage(nameOrID);
    return matches[0];
  }

  /** The name by which an image was asked for; undefined where it was by its id. */
  #nameFor(nameOrID: string, id: Digest): ImageName | undefined {
    const name = tryParseName(nameOrID);
    return name !== undefined && this.#repositories.get(name) === id ? name : undefined;
  }

  /** Where an image goes that is pushed without a reference: the name it was asked for by, or its only one. */
  #pushName(nameOrID: string, id: Digest): ImageName {
    const { names } = this.#describe(id);
    const name = this.#nameFor(nameOrID, id) ?? (names.length === 1 ? parseName(names[0] as string) : undefined);
    if (name !== undefined) return name;
    throw invalidArgument(`image ${id} has ${names.length} names; say where to push it`);
  }

  #assertOpen(): void {
    if (this.#store.closed)
      throw new LayerStoreError('ERR_STORE_CLOSED', 'the store of these images is closed; open it again');
  }

  #assertWritable(what: string): void {
    this.#assertOpen();
    if (this.#store.readOnly)
      throw new LayerStoreError('ERR_READ_ONLY', `cannot ${what}: the store is open for reading only`);
  }
}

/** @param names as repositories.json has them: with tags and with digests */
function describeImage({ config, size }: ImageRecord, names: readonly string[]): Image {
  return Object.freeze({
    id: config.id,
    names: Object.freeze(names.filter((name) => !name.includes('@'))),
    digests: Object.freeze(names.filter((name) => name.includes('@'))),
    chainID: topChain(config),
    diffIDs: config.diffIDs,
    config: config.parsed,
    rawConfig: config.raw,
    size,
  });
}

/** In order of first name in byte order; images without one last, by id. */
function compareImages(a: Image, b: Image): number {
  const key = ({ id, names }: Image): string => (names[0] === undefined ? `1${id}` : `0${names[0]}`);
  return key(a) < key(b) ? -1 : 1;
}
