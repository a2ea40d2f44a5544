/**
 * The configuration of an image: its bytes, its id, and the few fields that a layer store needs. For an image from before
 * there were configurations one is made.
 */
import { createChainID, sha256, type ChainID, type DiffID, type Digest } from '../digest.js';
import { formatValue } from '../util/quote.js';
import { badImage, overLimit } from './errors.js';
import { asArray, asDigest, asObject, asString, isObject, optional, parseJson, type JsonObject } from './json.js';
import type { ArchiveLimits } from './limits.js';
import { readPlatform, type Platform } from './platform.js';
import type { ImageConfig } from './types.js';

/** A configuration whose `rootfs` was checked. */
export interface ConfigBlob {
  readonly id: Digest;
  readonly raw: Uint8Array;
  readonly parsed: ImageConfig;
  readonly diffIDs: readonly DiffID[];
  readonly platform: Platform | undefined;
}

/** Checks the shape of OCI image-spec, config.md, "Properties": `rootfs` with its list of diff ids. */
export function readConfig(raw: Uint8Array, limits: ArchiveLimits): ConfigBlob {
  const parsed = asObject(parseJson(raw, 'the image configuration', limits), 'the image configuration');
  if (parsed['rootfs'] === undefined)
    throw badImage('the image configuration has no "rootfs": it is not an image, or one of a format before 2015');
  const rootfs = asObject(parsed['rootfs'], '"rootfs" of the image configuration');
  const type = optional(rootfs['type'], asString, '"rootfs.type" of the image configuration');
  if (type !== undefined && type !== 'layers')
    throw badImage(`"rootfs.type" of the image configuration is ${formatValue(type)}; only "layers" is known`);
  const ids = optional(rootfs['diff_ids'], asArray, '"rootfs.diff_ids" of the image configuration') ?? [];
  if (ids.length > limits.maxLayers)
    throw overLimit(`the image with its ${ids.length} layers`, 'maxLayers', limits.maxLayers);
  return {
    id: sha256(raw),
    raw,
    parsed: parsed as unknown as ImageConfig,
    diffIDs: ids.map((id, index) => asDigest(id, `diff id ${index} of the image configuration`) as DiffID),
    platform: readPlatform(parsed),
  };
}

/** The chain id of the top layer; undefined where an image has no layers. */
export function topChain(config: ConfigBlob): ChainID | undefined {
  return createChainID(config.diffIDs);
}

/** The chain ids of every layer of an image, base first. */
export function chainIDs(diffIDs: readonly DiffID[]): ChainID[] {
  const chains: ChainID[] = [];
  for (const diffID of diffIDs) chains.push(createChainID([diffID], chains.at(-1)) as ChainID);
  return chains;
}

const OF_THE_LAYER = new Set(['id', 'parent', 'Size', 'parent_id', 'layer_id', 'throwaway']);

/**
 * A configuration for an image from before there were any, made as Docker makes it (moby, image/v1 `MakeConfigFromV1Config`):
 * the top layer's own JSON without what belongs to the layer, keys in byte order, `rootfs` and `history` added.
 */
export function legacyConfig(layers: readonly JsonObject[], diffIDs: readonly DiffID[]): Uint8Array {
  const config: Record<string, unknown> = {
    ...Object.fromEntries(Object.entries(layers.at(-1) ?? {}).filter(([key]) => !OF_THE_LAYER.has(key))),
    rootfs: { type: 'layers', diff_ids: diffIDs },
    history: layers.map(history),
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  return Buffer.from(escapeLikeGo(JSON.stringify(sorted)));
}

function history(layer: JsonObject): JsonObject {
  const command = isObject(layer['container_config']) ? layer['container_config']['Cmd'] : undefined;
  return {
    ...text('created', layer['created']),
    ...text('author', layer['author']),
    ...text('created_by', Array.isArray(command) ? command.join(' ') : undefined),
    ...text('comment', layer['comment']),
  };
}

function text(key: string, value: unknown): JsonObject {
  return typeof value === 'string' && value !== '' ? { [key]: value } : {};
}

/** Go's encoder writes these so; they occur only inside of strings. */
function escapeLikeGo(json: string): string {
  return json.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
