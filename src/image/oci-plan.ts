/**
 * From an OCI layout to a plan: the tree of index.json, the indexes below it and the image manifests at its leaves; which
 * of these are wanted, and what each of them needs. Each step checks digest and size.
 * Shapes: https://github.com/opencontainers/image-spec, image-index.md, manifest.md and descriptor.md; Docker's are the
 * same under other type names.
 */
import { sha256, type Digest } from '../digest.js';
import { digestMismatch, invalidArgument } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { tryParseName, type ImageName } from '../registry/reference.js';
import { quote } from '../util/quote.js';
import { readConfig } from './config.js';
import { badImage, overLimit } from './errors.js';
import type { ImageFiles } from './image-files.js';
import {
  asArray,
  asDigest,
  asObject,
  asSize,
  asString,
  asStringMap,
  optional,
  parseJson,
  type JsonObject,
} from './json.js';
import type { ArchiveLimits } from './limits.js';
import { checkLayerCount, noImage, type Offer, type PlannedImage } from './plan.js';
import { formatPlatform, hostPlatform, platformFit, readPlatform, type Platform } from './platform.js';
import { defined } from '../util/defined.js';

const CONFIG_TYPES = new Set([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
  '',
]);
const LAYER_TYPE = /^application\/vnd\.(?:oci\.image\.layer\.|docker\.image\.rootfs\.)/;

export async function planOci(files: ImageFiles, wanted: Platform | undefined, limits: ArchiveLimits): Promise<Offer> {
  await checkLayoutVersion(files, limits);
  const groups = groupEntries(await readIndex(files, limits));
  if (groups.length > limits.maxImages)
    throw overLimit(`${files.title} with its ${groups.length} images`, 'maxImages', limits.maxImages);
  const images: PlannedImage[] = [];
  const offered = new Set<string>();
  for (const { name, leaves } of groups) {
    if (leaves.length === 0) continue;
    const reader = new ManifestReader(documentsOf(files), limits);
    const chosen = await choose(leaves, wanted, reader, offered);
    if (chosen !== undefined) images.push({ ...(await reader.image(chosen)), names: name === undefined ? [] : [name] });
  }
  return { images, platforms: [...offered] };
}

/** The image of a manifest, or the one of an index that fits best, and its manifest. Its layers' descriptors are known. */
export async function planManifest(
  documents: Documents,
  root: Descriptor,
  wanted: Platform | undefined,
  limits: ArchiveLimits,
): Promise<{ image: PlannedImage; manifest: Descriptor }> {
  const leaves = await new IndexWalk(documents, limits).leaves(root, 1);
  const reader = new ManifestReader(documents, limits);
  const offered = new Set<string>();
  const chosen = await choose(leaves, wanted, reader, offered);
  if (chosen === undefined) throw noImage(documents.title, 'its index', wanted, offered);
  return { image: { ...(await reader.image(chosen)), names: [] }, manifest: chosen.descriptor };
}

async function checkLayoutVersion(files: ImageFiles, limits: ArchiveLimits): Promise<void> {
  // A stream may bring "index.json" first; whoever left the marker out is understood all the same.
  if ((await files.firstOf(['oci-layout', 'index.json'])) !== 'oci-layout') return;
  const bytes = await files.read('oci-layout', limits.maxJsonBytes);
  if (bytes === undefined) return;
  const version = asString(
    asObject(parseJson(bytes, '"oci-layout"', limits), '"oci-layout"')['imageLayoutVersion'],
    '"imageLayoutVersion"',
  );
  if (!version.startsWith('1.'))
    throw badImage(`${files.title} is an OCI layout of version ${quote(version)}; 1.0.0 is known`);
}

interface Group {
  readonly name: ImageName | undefined;
  readonly leaves: Leaf[];
}

/**
 * Entries of one name are one image for several platforms. So are entries without a name whose platforms differ; where
 * one platform comes twice, each of them is an image of its own.
 */
function groupEntries(entries: readonly IndexEntry[]): Group[] {
  const platforms = entries
    .filter((entry) => entryName(entry.annotations) === undefined && hasPlatforms(entry))
    .flatMap(({ leaves }) => leaves.map(({ platform }) => formatPlatform(platform as Platform)));
  const oneImage = new Set(platforms).size === platforms.length;
  const groups = new Map<string, Group>();
  entries.forEach((entry, position) => {
    const name = entryName(entry.annotations);
    const joined = oneImage && hasPlatforms(entry) ? 'platforms' : `entry ${position}`;
    const key = name === undefined ? joined : `name ${JSON.stringify(name)}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { name, leaves: [...entry.leaves] });
    else for (const leaf of entry.leaves) group.leaves.push(leaf);
  });
  return [...groups.values()];
}

function hasPlatforms({ leaves }: IndexEntry): boolean {
  return leaves.length > 0 && leaves.every(({ platform }) => platform !== undefined);
}

/** A lone word in `ref.name` is a tag without a repository, so it names nothing here. */
function entryName(annotations: Readonly<Record<string, string>>): ImageName | undefined {
  const full = annotations['io.containerd.image.name'];
  if (full !== undefined) return tryParseName(full);
  const ref = annotations['org.opencontainers.image.ref.name'];
  return ref !== undefined && /[/:@]/.test(ref) ? tryParseName(ref) : undefined;
}

/** The leaf that fits best; undefined where `wanted` is not offered. ERR_INVALID_ARGUMENT where no platform was asked for and none fits this machine. */
async function choose(
  leaves: readonly Leaf[],
  wanted: Platform | undefined,
  reader: ManifestReader,
  offered: Set<string>,
): Promise<Leaf | undefined> {
  if (wanted === undefined && leaves.length === 1) return leaves[0];
  const target = wanted ?? hostPlatform();
  let best: { leaf: Leaf; fit: number } | undefined;
  for (const leaf of leaves) {
    const platform = leaf.platform ?? (await reader.platform(leaf));
    if (platform !== undefined) offered.add(formatPlatform(platform));
    const fit = platform === undefined ? 0 : platformFit(target, platform);
    if (fit > (best?.fit ?? 0)) best = { leaf, fit };
  }
  if (best !== undefined || wanted !== undefined) return best?.leaf;
  throw invalidArgument(
    `the image is there for ${[...offered].join(', ')} but not for ${formatPlatform(target)}; say which with "platform"`,
  );
}

class ManifestReader {
  readonly #documents: Documents;
  readonly #limits: ArchiveLimits;

  constructor(documents: Documents, limits: ArchiveLimits) {
    this.#documents = documents;
    this.#limits = limits;
  }

  /** What the configuration says, for a leaf whose descriptor says nothing. */
  async platform(leaf: Leaf): Promise<Platform | undefined> {
    return (await this.image(leaf)).config.platform;
  }

  async image({ descriptor }: Leaf): Promise<Omit<PlannedImage, 'names'>> {
    const what = `the manifest ${descriptor.digest}`;
    const manifest = asObject(
      parseJson(await readBlob(this.#documents, descriptor, what, this.#limits), what, this.#limits),
      what,
    );
    refuseBoth(manifest, what);
    const mediaType = optional(manifest['mediaType'], asString, `"mediaType" of ${what}`);
    if (mediaType !== undefined && mediaType !== descriptor.mediaType) {
      throw badImage(`${what} calls itself ${quote(mediaType)}, but its descriptor ${quote(descriptor.mediaType)}`);
    }
    const configDescriptor = readDescriptor(manifest['config'], `"config" of ${what}`);
    if (!CONFIG_TYPES.has(configDescriptor.mediaType)) {
      throw badImage(
        `${what} is not a container image: its configuration is of type ${quote(configDescriptor.mediaType)}`,
      );
    }
    const entries = optional(manifest['layers'], asArray, `"layers" of ${what}`) ?? [];
    if (entries.length > this.#limits.maxLayers)
      throw overLimit(`the image with its ${entries.length} layers`, 'maxLayers', this.#limits.maxLayers);
    const descriptors = entries.map((entry, index) => readLayer(entry, `layer ${index} of ${what}`));
    const config = readConfig(
      await readBlob(this.#documents, configDescriptor, `the configuration ${configDescriptor.digest}`, this.#limits),
      this.#limits,
    );
    checkLayerCount(config, descriptors.length);
    const layers = config.diffIDs.map((diffID, index) => {
      const layer = descriptors[index] as Descriptor;
      return { diffID, file: blobName(layer.digest), descriptor: layer };
    });
    return { config, layers };
  }
}

function readLayer(entry: unknown, what: string): Descriptor {
  const layer = readDescriptor(entry, what);
  if (!LAYER_TYPE.test(layer.mediaType))
    throw badImage(`${what} is of type ${quote(layer.mediaType)}, which is not a layer of files`);
  return layer;
}

const INDEX_TYPES = new Set([
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
]);
const MANIFEST_TYPES = new Set([
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]);
const MAX_NESTING = 8;

/** A leaf: one image manifest for one platform. */
export interface Leaf {
  readonly descriptor: Descriptor;
  readonly platform: Platform | undefined;
}

/** One entry of index.json and the leaves below it. */
export interface IndexEntry {
  readonly annotations: Readonly<Record<string, string>>;
  readonly leaves: readonly Leaf[];
}

export function blobName(digest: Digest): string {
  return `blobs/sha256/${digest.slice('sha256:'.length)}`;
}

/** Where manifests, indexes and configurations are read from: a layout, an archive, a registry. */
export interface Documents {
  /** What it is called in errors. */
  readonly title: string;
  /** A small blob whole, not checked; undefined where it is missing. ERR_LIMIT_EXCEEDED over `maxBytes`. */
  read(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array | undefined>;
}

export function documentsOf(files: ImageFiles): Documents {
  return { title: files.title, read: ({ digest }, maxBytes) => files.read(blobName(digest), maxBytes) };
}

export async function readIndex(files: ImageFiles, limits: ArchiveLimits): Promise<IndexEntry[]> {
  const bytes = await files.read('index.json', limits.maxJsonBytes);
  if (bytes === undefined) throw badImage(`${files.title} has no "index.json"`);
  const walk = new IndexWalk(documentsOf(files), limits);
  const entries: IndexEntry[] = [];
  for (const descriptor of walk.children(parseJson(bytes, '"index.json"', limits), '"index.json"')) {
    entries.push({ annotations: descriptor.annotations ?? {}, leaves: await walk.leaves(descriptor, 1) });
  }
  return entries;
}

export class IndexWalk {
  readonly #documents: Documents;
  readonly #limits: ArchiveLimits;
  #descriptors = 0;

  constructor(documents: Documents, limits: ArchiveLimits) {
    this.#documents = documents;
    this.#limits = limits;
  }

  children(value: unknown, what: string): Descriptor[] {
    const index = asObject(value, what);
    refuseBoth(index, what);
    const list = optional(index['manifests'], asArray, `"manifests" of ${what}`) ?? [];
    this.#descriptors += list.length;
    if (this.#descriptors > this.#limits.maxArchiveEntries) {
      throw overLimit('the number of descriptors in the indexes', 'maxArchiveEntries', this.#limits.maxArchiveEntries);
    }
    return list.map((entry, position) => readDescriptor(entry, `entry ${position} of ${what}`));
  }

  /** Image manifests below a descriptor. What is no image (attestations, signatures, charts) is left out. */
  async leaves(descriptor: Descriptor, depth: number): Promise<Leaf[]> {
    if (isAttestation(descriptor)) return [];
    if (MANIFEST_TYPES.has(descriptor.mediaType)) return [{ descriptor, platform: readPlatform(descriptor.platform) }];
    if (!INDEX_TYPES.has(descriptor.mediaType)) return [];
    if (depth > MAX_NESTING)
      throw badImage(`the indexes of ${this.#documents.title} lie more than ${MAX_NESTING} deep in each other`);
    const what = `the index ${descriptor.digest}`;
    const bytes = await readBlob(this.#documents, descriptor, what, this.#limits);
    const found: Leaf[] = [];
    for (const child of this.children(parseJson(bytes, what, this.#limits), what))
      for (const leaf of await this.leaves(child, depth + 1)) found.push(leaf);
    return found;
  }
}

/** Docker's builder puts attestations beside the images of an index, for a platform that does not exist. */
function isAttestation({ annotations, platform }: Descriptor): boolean {
  const known = readPlatform(platform);
  return (
    annotations?.['vnd.docker.reference.type'] !== undefined ||
    (known?.os === 'unknown' && known.architecture === 'unknown')
  );
}

/** A document that could be read as an index and as a manifest says two things (CVE-2021-41190). */
export function refuseBoth(document: JsonObject, what: string): void {
  const has = (member: string): boolean => document[member] !== undefined && document[member] !== null;
  if (has('manifests') && (has('layers') || has('config'))) {
    throw badImage(`${what} is an index and a manifest at once`);
  }
}

export function readDescriptor(value: unknown, what: string): Descriptor {
  const fields = asObject(value, what);
  const urls = optional(fields['urls'], asArray, `"urls" of ${what}`)?.map((url) => asString(url, `a URL of ${what}`));
  const annotations = optional(fields['annotations'], asStringMap, `"annotations" of ${what}`);
  return {
    mediaType: optional(fields['mediaType'], asString, `"mediaType" of ${what}`) ?? '',
    digest: asDigest(fields['digest'], `"digest" of ${what}`),
    size: asSize(fields['size'], `"size" of ${what}`),
    ...defined({ urls, annotations, platform: fields['platform'] ?? undefined }),
  };
}

/** A small blob whole, its size and digest checked. */
export async function readBlob(
  documents: Documents,
  descriptor: Descriptor,
  what: string,
  limits: ArchiveLimits,
): Promise<Uint8Array> {
  const { digest, size } = descriptor;
  if (size > limits.maxJsonBytes)
    throw overLimit(`${what} with its ${size} bytes`, 'maxJsonBytes', limits.maxJsonBytes);
  const bytes = await documents.read(descriptor, limits.maxJsonBytes);
  if (bytes === undefined)
    throw badImage(`${what} is missing in ${documents.title}: it should lie at ${quote(blobName(digest))}`);
  if (bytes.length !== size) throw digestMismatch(`the size of ${what} in bytes`, bytes.length, size);
  const found = sha256(bytes);
  if (found !== digest) throw digestMismatch(`the digest of ${what}`, found, digest, `${documents.title} is damaged`);
  return bytes;
}
