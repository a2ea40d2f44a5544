/** From an OCI layout to a plan: which manifests are wanted, and what each of them needs. */
import type { Descriptor } from '../metadata/metadata-store.js';
import { readConfig } from './config.js';
import { badImage, invalidArgument, overLimit, quote } from './errors.js';
import type { ImageFiles } from './image-files.js';
import { asArray, asObject, asString, optional, parseJson } from './json.js';
import type { ArchiveLimits } from './limits.js';
import {
  blobName,
  documentsOf,
  IndexWalk,
  readBlob,
  readDescriptor,
  readIndex,
  refuseBoth,
  type Documents,
  type IndexEntry,
  type Leaf,
} from './oci-index.js';
import { checkLayerCount, noImage, type Offer, type PlannedImage } from './plan.js';
import { formatPlatform, hostPlatform, platformFit, type Platform } from './platform.js';
import { tryParseName, type ImageName } from '../registry/reference.js';

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

/** The image of a manifest, or the one of an index that fits best. Its layers' descriptors are known. */
export async function planManifest(
  documents: Documents,
  root: Descriptor,
  wanted: Platform | undefined,
  limits: ArchiveLimits,
): Promise<PlannedImage> {
  const leaves = await new IndexWalk(documents, limits).leaves(root, 1);
  const reader = new ManifestReader(documents, limits);
  const offered = new Set<string>();
  const chosen = await choose(leaves, wanted, reader, offered);
  if (chosen === undefined) throw noImage(documents.title, 'its index', wanted, offered);
  return { ...(await reader.image(chosen)), names: [] };
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
    else group.leaves.push(...entry.leaves);
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

/** The leaf that fits best; undefined where `wanted` is not offered. ERR_INVALID_ARGUMENT where nobody said which and none is this machine's. */
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
        `${what} is no container image: its configuration is of type ${quote(configDescriptor.mediaType)}`,
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
    throw badImage(`${what} is of type ${quote(layer.mediaType)}, which is no layer of files`);
  return layer;
}
