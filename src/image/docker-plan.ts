/**
 * From a `docker save` archive to a plan: `manifest.json` (since Docker 1.10), whatever its layers are called, and the
 * older form with `repositories` and a folder for each layer alone.
 * Shapes: https://github.com/moby/docker-image-spec, "Combined Image JSON + Filesystem Changeset Format".
 */
import { isSHA256Hex, sha256, type DiffID, type Digest } from '../digest.js';
import { digestMismatch } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { quote } from '../util/quote.js';
import { cleanName } from './archive-entries.js';
import { readConfig, type ConfigBlob } from './config.js';
import { badImage, noImageArchive, overLimit } from './errors.js';
import type { ImageFiles } from './image-files.js';
import { asArray, asDigest, asObject, asString, optional, parseJson, type JsonObject } from './json.js';
import type { ArchiveLimits } from './limits.js';
import { readDescriptor } from './oci-plan.js';
import { checkLayerCount, type LegacyImage, type Offer, type PlannedImage, type PlannedLayer } from './plan.js';
import { formatPlatform, platformFit, type Platform } from './platform.js';
import { tryParseName, type ImageName } from '../registry/reference.js';
import { defined } from '../util/defined.js';

/**
 * @param known ids of images that an index beside `manifest.json` names. Docker (25 and later) writes an entry of the
 *   index for each name, so an image without a name is in `manifest.json` alone: only such images are taken then.
 */
export async function planDocker(
  files: ImageFiles,
  wanted: Platform | undefined,
  limits: ArchiveLimits,
  known?: ReadonlySet<Digest>,
): Promise<Offer> {
  const bytes = await files.read('manifest.json', limits.maxJsonBytes);
  if (bytes === undefined) throw badImage(`${files.title} has no "manifest.json"`);
  const entries = asArray(parseJson(bytes, '"manifest.json"', limits), '"manifest.json"');
  if (entries.length > limits.maxImages)
    throw overLimit(`${files.title} with its ${entries.length} images`, 'maxImages', limits.maxImages);
  const images: PlannedImage[] = [];
  const offered = new Set<string>();
  for (const [position, value] of entries.entries()) {
    const what = `entry ${position} of "manifest.json"`;
    const entry = asObject(value, what);
    if (known !== undefined && tagsOf(entry, what).length > 0) continue;
    const image = await planEntry(files, entry, what, limits);
    if (known?.has(image.config.id) === true) continue;
    const { platform } = image.config;
    if (platform !== undefined) offered.add(formatPlatform(platform));
    if (wanted === undefined || (platform !== undefined && platformFit(wanted, platform) > 0)) images.push(image);
  }
  return { images, platforms: [...offered] };
}

function tagsOf(entry: JsonObject, what: string): string[] {
  const tags = optional(entry['RepoTags'], asArray, `"RepoTags" of ${what}`) ?? [];
  return tags.map((tag) => asString(tag, `a tag of ${what}`));
}

async function planEntry(
  files: ImageFiles,
  entry: JsonObject,
  what: string,
  limits: ArchiveLimits,
): Promise<PlannedImage> {
  const configName = cleanName(asString(entry['Config'], `"Config" of ${what}`));
  const raw = await files.read(configName, limits.maxJsonBytes);
  if (raw === undefined)
    throw badImage(`the configuration ${quote(configName)} that ${what} names is missing in ${files.title}`);
  const claimed = /^(?:blobs\/sha256\/)?([a-f0-9]{64})(?:\.json)?$/.exec(configName)?.[1];
  if (claimed !== undefined && sha256(raw) !== `sha256:${claimed}`) {
    throw digestMismatch(
      `the digest of the configuration ${quote(configName)}`,
      sha256(raw),
      `sha256:${claimed}`,
      `${files.title} is damaged`,
    );
  }
  const config = readConfig(raw, limits);
  const layerNames = (optional(entry['Layers'], asArray, `"Layers" of ${what}`) ?? []).map((name) =>
    cleanName(asString(name, `a layer of ${what}`)),
  );
  if (layerNames.length > limits.maxLayers)
    throw overLimit(`the image with its ${layerNames.length} layers`, 'maxLayers', limits.maxLayers);
  checkLayerCount(config, layerNames.length);
  const sources = optional(entry['LayerSources'], asObject, `"LayerSources" of ${what}`) ?? {};
  const parent = optional(
    entry['Parent'],
    (value, name) => (value === '' ? undefined : asDigest(value, name)),
    `"Parent" of ${what}`,
  );
  return {
    config,
    names: tagsOf(entry, what).map(archiveName),
    layers: layerNames.map((file, index) => planLayer(config, index, file, sources, what)),
    ...defined({ parent }),
  };
}

function planLayer(config: ConfigBlob, index: number, file: string, sources: JsonObject, what: string): PlannedLayer {
  const diffID = config.diffIDs[index] as DiffID;
  const source = optional(sources[diffID], readDescriptor, `"LayerSources" of ${what}`);
  const hex = /^blobs\/sha256\/([a-f0-9]{64})$/.exec(file)?.[1];
  // LayerSources may also tell of a registry's blob that is not the one in the archive: then the diff id alone is checked.
  const descriptor: Descriptor | undefined =
    source !== undefined && source.digest === `sha256:${hex}` ? source : undefined;
  return { diffID, file, ...defined({ descriptor }) };
}

function archiveName(text: string): ImageName {
  const name = tryParseName(text);
  if (name?.tag === undefined)
    throw badImage(`the archive calls an image ${quote(text)}, which is not a name with a tag`);
  return name;
}

/** The form without `manifest.json`: `repositories` names top layers, each folder's `json` its parent. */
export async function planLegacy(files: ImageFiles, limits: ArchiveLimits): Promise<LegacyImage[]> {
  const bytes = await files.read('repositories', limits.maxJsonBytes);
  if (bytes === undefined) throw noImageArchive(files.title);
  const tops = new Map<string, ImageName[]>();
  for (const [repository, tags] of Object.entries(
    asObject(parseJson(bytes, '"repositories"', limits), '"repositories"'),
  )) {
    for (const [tag, id] of Object.entries(asObject(tags, `${quote(repository)} of "repositories"`))) {
      const top = legacyID(id, `${quote(`${repository}:${tag}`)} of "repositories"`);
      tops.set(top, [...(tops.get(top) ?? []), archiveName(`${repository}:${tag}`)]);
    }
  }
  if (tops.size === 0) throw badImage(`${files.title} holds no image: its "repositories" names none`);
  if (tops.size > limits.maxImages)
    throw overLimit(`${files.title} with its ${tops.size} images`, 'maxImages', limits.maxImages);
  const images: LegacyImage[] = [];
  for (const [top, names] of tops) images.push({ names, layers: await legacyLayers(files, top, limits) });
  return images;
}

async function legacyLayers(files: ImageFiles, top: string, limits: ArchiveLimits): Promise<LegacyImage['layers']> {
  const layers: { json: JsonObject; file: string }[] = [];
  for (let id: string | undefined = top; id !== undefined;) {
    if (layers.length >= limits.maxLayers)
      throw overLimit('the number of layers of the image', 'maxLayers', limits.maxLayers);
    const bytes = await files.read(`${id}/json`, limits.maxJsonBytes);
    if (bytes === undefined) throw badImage(`"${id}/json" is missing in ${files.title}`);
    const json = asObject(parseJson(bytes, `"${id}/json"`, limits), `"${id}/json"`);
    layers.unshift({ json, file: `${id}/layer.tar` });
    const parent: string | undefined = optional(json['parent'], asString, `"parent" of "${id}/json"`);
    id = parent === undefined || parent === '' ? undefined : legacyID(parent, `"parent" of "${id}/json"`);
  }
  return layers;
}

function legacyID(value: unknown, what: string): string {
  const id = asString(value, what);
  if (!isSHA256Hex(id)) throw badImage(`${what} is ${quote(id)}, which is not an id`);
  return id;
}
