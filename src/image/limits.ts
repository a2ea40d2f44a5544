/** {@link ImageLimits} with their defaults, how much memory, disk and time an archive may take; and the check of free space. */
import { statfs } from 'node:fs/promises';
import type { UnpackLimits } from '../engine/engine.js';
import { checkLimit, defaultMinFreeBytes } from '../engine/limits.js';
import { LayerStoreError } from '../errors.js';
import { attempt } from './errors.js';
import type { ImageLimits } from './types.js';

export interface ArchiveLimits {
  readonly maxJsonBytes: number;
  readonly maxJsonDepth: number;
  readonly maxLayers: number;
  readonly maxImages: number;
  readonly maxArchiveEntries: number;
  readonly maxSpoolBytes: number;
  /** Undefined: the smaller of 1 GiB and 5 % of the file system. */
  readonly minFreeBytes: number | undefined;
}

const DEFAULTS = {
  maxJsonBytes: 8 * 1024 * 1024,
  maxJsonDepth: 100,
  maxLayers: 1_000,
  maxImages: 1_000,
  maxArchiveEntries: 100_000,
  maxSpoolBytes: Infinity,
} as const;

/** The limits of one load. Throws ERR_INVALID_ARGUMENT for a value that is no limit. */
export function archiveLimits(limits: ImageLimits = {}): ArchiveLimits {
  const pick = (key: keyof typeof DEFAULTS): number => checkLimit(key, limits[key] ?? DEFAULTS[key]);
  return {
    maxJsonBytes: pick('maxJsonBytes'),
    maxJsonDepth: pick('maxJsonDepth'),
    maxLayers: pick('maxLayers'),
    maxImages: pick('maxImages'),
    maxArchiveEntries: pick('maxArchiveEntries'),
    maxSpoolBytes: pick('maxSpoolBytes'),
    minFreeBytes: limits.minFreeBytes,
  };
}

/** The limits that are each layer's: the store refuses names that it does not know. */
export function layerLimits(limits: ImageLimits): UnpackLimits {
  return Object.fromEntries(Object.entries(limits).filter(([key]) => !(key in DEFAULTS)));
}

/** ERR_LIMIT_EXCEEDED where `bytes` more would leave less than the reserve. @param what takes the bytes: `fetching 5 bytes` */
export async function checkFreeSpace(
  directory: string,
  bytes: number,
  minFreeBytes: number | undefined,
  what: string,
): Promise<void> {
  const reserve = minFreeBytes ?? (await defaultMinFreeBytes(directory));
  const { bsize, bavail } = await attempt('measure free space', () => statfs(directory));
  if (bavail * bsize - bytes >= reserve) return;
  throw new LayerStoreError(
    'ERR_LIMIT_EXCEEDED',
    `${what} would leave less than the reserve of ${reserve} bytes free below "${directory}"; make room, or lower "limits.minFreeBytes"`,
  );
}
