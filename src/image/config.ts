/** The configuration of an image: its bytes, its id, and the few fields a layer store needs. */
import { createHash } from 'node:crypto';
import { createChainID, type ChainID, type DiffID, type Digest } from '../digest.js';
import { badImage, overLimit } from './errors.js';
import { asArray, asDigest, asObject, asString, optional, parseJson } from './json.js';
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

export function sha256(bytes: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Checks the shape of OCI image-spec, config.md, "Properties": `rootfs` with its list of diff ids. */
export function readConfig(raw: Uint8Array, limits: ArchiveLimits): ConfigBlob {
  const parsed = asObject(parseJson(raw, 'the image configuration', limits), 'the image configuration');
  if (parsed['rootfs'] === undefined)
    throw badImage('the image configuration has no "rootfs": it is no image, or one of a format before 2015');
  const rootfs = asObject(parsed['rootfs'], '"rootfs" of the image configuration');
  const type = optional(rootfs['type'], asString, '"rootfs.type" of the image configuration');
  if (type !== undefined && type !== 'layers')
    throw badImage(`"rootfs.type" of the image configuration is ${JSON.stringify(type)}; only "layers" is known`);
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

/** The chain ids of every layer of an image, base first. */
export function chainIDs(diffIDs: readonly DiffID[]): ChainID[] {
  const chains: ChainID[] = [];
  for (const diffID of diffIDs) chains.push(createChainID([diffID], chains.at(-1)) as ChainID);
  return chains;
}
