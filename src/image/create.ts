/**
 * Making an image: the configuration of a new one, out of a base's, what the caller gives, and the layers it stands on.
 * Shape: https://github.com/opencontainers/image-spec/blob/main/config.md. Members come in byte order at every level, so
 * that the same content has the same bytes, and the image the same id, whatever order it was given in.
 */
import { invalidArgument, LayerStoreError } from '../errors.js';
import type { DiffID } from '../digest.js';
import { quote } from '../util/quote.js';
import { readConfig, type ConfigBlob } from './config.js';
import { isObject } from './json.js';
import type { ArchiveLimits } from './limits.js';
import { formatPlatform, hostPlatform, parsePlatform } from './platform.js';
import type { ContainerConfig, CreateImageOptions, HistoryEntry, ImageConfig } from './types.js';
import { defined } from '../util/defined.js';

/** Members of a base's configuration that tell how the base was built. Docker's builder and its `commit` write them. */
const OF_THE_BASE = new Set([
  'container',
  'container_config',
  'docker_version',
  'id',
  'moby.buildkit.buildinfo.v1',
  'moby.buildkit.cache.v0',
  'parent',
  'throwaway',
]);

type Check = (value: unknown) => boolean;

const isText: Check = (value) => typeof value === 'string' && !value.includes('\0');
const isTextList: Check = (value) => Array.isArray(value) && value.every(isText);
const isSet: Check = (value) => isObject(value) && Object.values(value).every(isObject);

/** What each member of a container's configuration has to be, and how that is said. */
const MEMBERS: Readonly<Record<string, readonly [Check, string]>> = {
  Env: [
    (value) => isTextList(value) && (value as string[]).every((entry) => /^[^=]+=/.test(entry)),
    'a list of "NAME=VALUE"',
  ],
  Cmd: [isTextList, 'a list of strings'],
  Entrypoint: [isTextList, 'a list of strings'],
  WorkingDir: [isText, 'a string'],
  User: [isText, 'a string'],
  Labels: [(value) => isObject(value) && Object.values(value).every(isText), 'an object of strings'],
  ExposedPorts: [isSet, 'an object with an empty object for each port'],
  Volumes: [isSet, 'an object with an empty object for each path'],
  StopSignal: [isText, 'a string'],
};

/** The shape of what has to be looked at before the layers are; {@link newConfig} checks the rest. */
export function checkCreateOptions(options: unknown): void {
  if (!isObject(options)) throw invalidArgument('an image is made from an object of options');
  if (options['names'] !== undefined && !Array.isArray(options['names']))
    throw invalidArgument('"names" must be a list of image names');
}

/**
 * @param diffIDs of the new image, base first; they begin with those of `base`
 * @returns the configuration as it will be recorded; ERR_INVALID_ARGUMENT where the options are wrong
 */
export function newConfig(
  options: CreateImageOptions,
  base: ConfigBlob | undefined,
  diffIDs: readonly DiffID[],
  limits: ArchiveLimits,
): ConfigBlob {
  const created = timestamp(options.created);
  const inherited = Object.entries(base?.parsed ?? {}).filter(([member]) => !OF_THE_BASE.has(member));
  const config: ImageConfig = {
    ...Object.fromEntries(inherited),
    ...platform(options.platform, base),
    created,
    config: { ...base?.parsed.config, ...checkedConfig(options.config) },
    rootfs: { type: 'layers', diff_ids: diffIDs },
    history: history(options.comment, created, base, diffIDs),
  };
  let text: string;
  try {
    text = JSON.stringify(sorted(config));
  } catch (error) {
    throw invalidArgument(`"config" cannot be written as JSON: ${(error as Error).message}`);
  }
  return readConfig(Buffer.from(text), limits);
}

/** RFC 3339 as Go writes it: no fraction where it is zero. */
function timestamp(created: Date = new Date()): string {
  if (!(created instanceof Date) || Number.isNaN(created.getTime()))
    throw invalidArgument('"created" must be a valid Date');
  return created.toISOString().replace('.000Z', 'Z');
}

/** The members that say for which platform: the base's as they are, unless another one is asked for. */
function platform(wanted: string | undefined, base: ConfigBlob | undefined): Partial<ImageConfig> {
  if (wanted === undefined && base?.platform !== undefined) return {};
  const { os, architecture, variant } = wanted === undefined ? hostPlatform() : parsePlatform(wanted);
  if (os !== 'linux')
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `an image for ${quote(formatPlatform({ os, architecture }))} cannot be made; only Linux images are kept here`,
    );
  // An undefined member is left out of the JSON, so a variant of the base's goes.
  return { os, architecture, variant } as Partial<ImageConfig>;
}

function checkedConfig(config: unknown): ContainerConfig {
  if (config === undefined) return {};
  if (!isObject(config)) throw invalidArgument('"config" must be an object of members like "Cmd" and "Env"');
  const given = Object.entries(config).filter(([, value]) => value !== undefined);
  for (const [member, value] of given) {
    const [check, shape] = MEMBERS[member] ?? [];
    if (check?.(value) === false) throw invalidArgument(`"config.${member}" must be ${String(shape)}`);
  }
  return Object.fromEntries(given);
}

/**
 * The base's history and an entry for each new layer. Without a new layer a comment goes into an entry that says so.
 * A base whose history tells of fewer layers than it has gets the missing entries, so that each later one is about its layer.
 */
function history(
  comment: string | undefined,
  created: string,
  base: ConfigBlob | undefined,
  diffIDs: readonly DiffID[],
): HistoryEntry[] {
  if (comment !== undefined && typeof comment !== 'string') throw invalidArgument('"comment" must be a string');
  const before = Array.isArray(base?.parsed.history) ? (base.parsed.history as readonly HistoryEntry[]) : [];
  const told = before.filter((entry) => isObject(entry) && entry.empty_layer !== true).length;
  const baseLayers = base?.diffIDs.length ?? 0;
  const missing = Array.from({ length: Math.max(0, baseLayers - told) }, (): HistoryEntry => ({}));
  const entry: HistoryEntry = { created, created_by: 'layerstore', ...defined({ comment }) };
  const added = Array.from({ length: diffIDs.length - baseLayers }, () => entry);
  if (added.length === 0 && comment !== undefined) added.push({ ...entry, empty_layer: true });
  return [...before, ...missing, ...added];
}

/** The same value with the members of every object in byte order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(members.map(([member, content]) => [member, sorted(content)]));
}
