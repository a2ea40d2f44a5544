/**
 * The tree of an OCI layout: index.json, indexes below it, and the image manifests at its leaves. Each step checks digest
 * and size. Nothing below a leaf is read here.
 * Shapes: https://github.com/opencontainers/image-spec, image-index.md and descriptor.md; Docker's are the same under other type names.
 */
import type { Digest } from '../digest.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { sha256 } from './config.js';
import { badImage, digestMismatch, overLimit, quote } from './errors.js';
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
import { readPlatform, type Platform } from './platform.js';

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
      found.push(...(await this.leaves(child, depth + 1)));
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
    ...(urls === undefined ? {} : { urls }),
    ...(annotations === undefined ? {} : { annotations }),
    ...(fields['platform'] === undefined || fields['platform'] === null ? {} : { platform: fields['platform'] }),
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
  if (bytes.length !== size) throw digestMismatch(`${what} has ${bytes.length} bytes; its descriptor says ${size}`);
  const found = sha256(bytes);
  if (found !== digest) throw digestMismatch(`${what} has the digest ${found}: ${documents.title} is damaged`);
  return bytes;
}
