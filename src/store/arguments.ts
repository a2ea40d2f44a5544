/** Checks the arguments and options of openStore and of every operation. Drivers and engines check what only they know. */
import { type ChainID, parseChainID, parseDiffID, parseDigest } from '../digest.js';
import type { TarSource } from '../engine/engine.js';
import { validateLimits } from '../engine/limits.js';
import { invalidArgument } from '../errors.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import { isPlainName, PLAIN_NAME_RULE } from '../util/plain-name.js';
import { formatValue } from '../util/quote.js';
import type {
  ChainLink,
  CreateRWLayerOptions,
  ExportOptions,
  RegisterOptions,
  StoreOptions,
  VerifyOptions,
} from './types.js';

/** Checks that `options` is an object with no keys but `known`. */
export function checkOptions(options: unknown, what: string, known: readonly string[]): void {
  if (options === undefined) return;
  if (options === null || typeof options !== 'object' || Array.isArray(options)) {
    throw invalidArgument(`${what} must be an object, not ${formatValue(options)}`);
  }
  const unknown = Object.keys(options).find((key) => !known.includes(key));
  if (unknown !== undefined)
    throw invalidArgument(`${what} have no "${unknown}": use ${known.map((key) => `"${key}"`).join(', ')}`);
}

export function checkParent(parent: unknown): ChainID | undefined {
  return parent === undefined ? undefined : parseChainID(parent as string);
}

export function checkFunction(value: unknown, what: string): void {
  if (value !== undefined && typeof value !== 'function')
    throw invalidArgument(`${what} must be a function, not ${formatValue(value)}`);
}

export function checkBoolean(value: unknown, what: string): void {
  if (value !== undefined && typeof value !== 'boolean')
    throw invalidArgument(`${what} must be true or false, not ${formatValue(value)}`);
}

export function checkText(value: unknown, what: string): void {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) {
    throw invalidArgument(`${what} must be a string that is not empty and holds no NUL, not ${formatValue(value)}`);
  }
}

export function checkSignal(value: unknown): void {
  if (value !== undefined && !(value instanceof AbortSignal)) {
    throw invalidArgument(`"signal" must be an AbortSignal, not ${formatValue(value)}`);
  }
}

const REGISTER_OPTIONS = ['signal', 'onProgress', 'diffID', 'limits', 'verifyExisting'] as const;

/** The options of register, commit and applyDiff; `more` are keys of one of them alone. */
export function checkRegisterOptions(options: unknown, what: string, more: readonly string[] = []): RegisterOptions {
  checkOptions(options, `options of ${what}`, [...REGISTER_OPTIONS, ...more]);
  const given = (options ?? {}) as RegisterOptions;
  checkSignal(given.signal);
  checkFunction(given.onProgress, '"onProgress"');
  if (given.limits !== undefined) validateLimits(given.limits);
  checkBoolean(given.verifyExisting, '"verifyExisting"');
  if (given.diffID !== undefined) parseDiffID(given.diffID);
  return given;
}

/** Something that a tar can be read from. */
export function checkSource(tar: unknown, what = 'the tar'): TarSource {
  if (typeof tar === 'object' && tar !== null) {
    const source = tar as Record<PropertyKey, unknown>;
    if (typeof source[Symbol.asyncIterator] === 'function' || typeof source['getReader'] === 'function') {
      return tar as TarSource;
    }
    if ('path' in source) {
      checkOptions(source, `a tar's path`, ['path', 'offset', 'length']);
      checkText(source['path'], `${what}'s "path"`);
      checkRange(source['offset'], source['length']);
      return tar as TarSource;
    }
  }
  throw invalidArgument(
    `${what} must be a readable stream, an async iterable of bytes or { path }, not ${formatValue(tar)}`,
  );
}

function checkRange(offset: unknown, length: unknown): void {
  if (offset === undefined && length === undefined) return;
  if (![offset, length].every((value) => Number.isSafeInteger(value) && (value as number) >= 0)) {
    throw invalidArgument('"offset" and "length" of a tar\'s path are counts of bytes and come together');
  }
}

export function checkDescriptor(descriptor: unknown): Descriptor {
  checkOptions(descriptor, 'a descriptor', ['mediaType', 'digest', 'size', 'urls', 'annotations', 'platform']);
  if (descriptor === undefined) throw invalidArgument('the descriptor is missing: give { mediaType, digest, size }');
  const { mediaType, digest, size, urls, annotations } = descriptor as Descriptor;
  if (typeof mediaType !== 'string')
    throw invalidArgument(`a descriptor's "mediaType" must be a string, not ${formatValue(mediaType)}`);
  parseDigest(digest);
  if (!Number.isSafeInteger(size) || size < 0) {
    throw invalidArgument(`a descriptor's "size" must be a count of bytes, not ${formatValue(size)}`);
  }
  if (urls !== undefined && !(Array.isArray(urls) && urls.every((url) => typeof url === 'string'))) {
    throw invalidArgument(`a descriptor's "urls" must be an array of strings, not ${formatValue(urls)}`);
  }
  if (annotations !== undefined) {
    const texts = typeof annotations === 'object' && annotations !== null && !Array.isArray(annotations);
    if (!texts || !Object.values(annotations).every((text) => typeof text === 'string')) {
      throw invalidArgument(
        `a descriptor's "annotations" must be an object of strings, not ${formatValue(annotations)}`,
      );
    }
  }
  return descriptor as Descriptor;
}

export function checkRWName(name: unknown): string {
  if (isPlainName(name)) return name;
  throw invalidArgument(`${formatValue(name)} is not a valid name for an RW layer: use ${PLAIN_NAME_RULE}`);
}

export function checkMountLabel(label: unknown): string | undefined {
  if (label === undefined || label === '') return undefined;
  if (typeof label !== 'string' || /[\0"\n]/.test(label)) {
    throw invalidArgument(`a mount label must be a string without quotes and line ends, not ${formatValue(label)}`);
  }
  return label;
}

export function checkCreateOptions(options: unknown): CreateRWLayerOptions {
  checkOptions(options, 'options of createRWLayer', ['mountLabel', 'initFunc', 'storageOpt']);
  const given = { ...(options as CreateRWLayerOptions | undefined) };
  const label = checkMountLabel(given.mountLabel);
  delete given.mountLabel;
  if (label !== undefined) given.mountLabel = label;
  checkFunction(given.initFunc, '"initFunc"');
  if (given.storageOpt !== undefined) {
    checkOptions(given.storageOpt, '"storageOpt"', ['size']);
    if (given.storageOpt['size'] !== undefined) checkText(given.storageOpt['size'], '"storageOpt.size"');
  }
  return given;
}

export function checkExportOptions(options: unknown): ExportOptions {
  checkOptions(options, 'options of an export', ['compression', 'signal', 'onProgress']);
  const given = (options ?? {}) as ExportOptions;
  checkSignal(given.signal);
  checkFunction(given.onProgress, '"onProgress"');
  if (given.compression !== undefined && given.compression !== 'gzip' && given.compression !== 'zstd')
    throw invalidArgument(`"compression" must be "gzip" or "zstd", not ${formatValue(given.compression)}`);
  return given;
}

export function checkVerifyOptions(options: unknown): VerifyOptions {
  checkOptions(options, 'options of verify', ['signal', 'concurrency', 'bytesPerSecond']);
  const given = (options ?? {}) as VerifyOptions;
  checkSignal(given.signal);
  const { concurrency, bytesPerSecond } = given;
  if (concurrency !== undefined && !(Number.isSafeInteger(concurrency) && concurrency >= 1)) {
    throw invalidArgument(`"concurrency" must be a whole number of 1 or more, not ${formatValue(concurrency)}`);
  }
  if (bytesPerSecond !== undefined && !(typeof bytesPerSecond === 'number' && bytesPerSecond > 0)) {
    throw invalidArgument(`"bytesPerSecond" must be a number above 0, not ${formatValue(bytesPerSecond)}`);
  }
  return given;
}

export function checkChainOptions(options: unknown): RegisterOptions {
  const given = checkRegisterOptions(options, 'registerChain');
  if (given.diffID !== undefined)
    throw invalidArgument('"diffID" belongs to each layer of registerChain(), not to its options');
  return given;
}

/** Returns a copy, so that later changes of the caller's array have no effect. */
export function checkLinks(layers: unknown): ChainLink[] {
  if (!Array.isArray(layers))
    throw invalidArgument(`the layers must be an array of { tar, diffID }, not ${formatValue(layers)}`);
  return layers.map((link: unknown, index) => {
    const what = `layer ${index}`;
    if (link === undefined || link === null)
      throw invalidArgument(`${what} must be { tar, diffID }, not ${formatValue(link)}`);
    checkOptions(link, `keys of ${what}`, ['tar', 'diffID', 'descriptor', 'onProgress']);
    const { tar, diffID, descriptor, onProgress } = link as ChainLink;
    checkSource(tar, `the tar of ${what}`);
    parseDiffID(diffID);
    if (descriptor !== undefined) checkDescriptor(descriptor);
    checkFunction(onProgress, `"onProgress" of ${what}`);
    return { ...(link as ChainLink) };
  });
}

const KEYS = [
  'root',
  'driver',
  'driverOptions',
  'metadataStore',
  'engine',
  'durability',
  'maxDepth',
  'limits',
  'readOnly',
  'logger',
  'allowWritableRoot',
  'acceptVolatile',
] as const;

const DRIVER_METHODS = [
  'create',
  'createReadWrite',
  'applyDiff',
  'get',
  'put',
  'diff',
  'changes',
  'diffSize',
  'diffGetter',
  'exists',
  'list',
  'remove',
  'metadata',
  'status',
  'cleanup',
  'close',
];

const METADATA_METHODS = [
  'startTransaction',
  'getSize',
  'getParent',
  'getDiffID',
  'getCacheID',
  'getDescriptor',
  'tarSplitReader',
  'setMountID',
  'setInitID',
  'setMountParent',
  'getMountID',
  'getInitID',
  'getMountParent',
  'list',
  'remove',
  'removeMount',
];

export function checkStoreOptions(options: unknown): StoreOptions {
  if (options === undefined) throw invalidArgument('openStore() needs options: give at least { root }');
  checkOptions(options, 'options of openStore', KEYS);
  const given = options as StoreOptions;
  checkText(given.root, '"root"');
  checkDriver(given.driver);
  checkDriverOptions(given.driverOptions);
  if (given.metadataStore !== undefined) checkMethods(given.metadataStore, '"metadataStore"', METADATA_METHODS);
  checkChoice(given.engine, '"engine"', ['native', 'js', 'auto']);
  checkChoice(given.durability, '"durability"', ['strict', 'relaxed']);
  const { maxDepth } = given;
  if (maxDepth !== undefined && !(Number.isSafeInteger(maxDepth) && maxDepth >= 1)) {
    throw invalidArgument(`"maxDepth" must be a whole number of 1 or more, not ${formatValue(maxDepth)}`);
  }
  if (given.limits !== undefined) validateLimits(given.limits);
  checkBoolean(given.readOnly, '"readOnly"');
  checkBoolean(given.allowWritableRoot, '"allowWritableRoot"');
  checkBoolean(given.acceptVolatile, '"acceptVolatile"');
  if (given.logger !== undefined) checkMethods(given.logger, '"logger"', ['debug', 'info', 'warn', 'error']);
  return given;
}

function checkDriver(driver: unknown): void {
  if (typeof driver !== 'object' || driver === null) {
    checkChoice(driver, '"driver"', ['overlay2', 'vfs', 'auto']);
    return;
  }
  checkMethods(driver, '"driver"', DRIVER_METHODS);
  const { name, capabilities } = driver as { name?: unknown; capabilities?: unknown };
  if (typeof name !== 'string' || !/^[a-z0-9][a-z0-9_.-]{0,63}$/.test(name)) {
    throw invalidArgument(
      `the driver's "name" becomes a directory's: use 1 to 64 of a-z, 0-9, "_", "." and "-", not ${formatValue(name)}`,
    );
  }
  if (typeof capabilities !== 'object' || capabilities === null)
    throw invalidArgument('the driver has no "capabilities"');
}

function checkDriverOptions(options: unknown): void {
  if (options === undefined) return;
  if (options === null || typeof options !== 'object' || Array.isArray(options)) {
    throw invalidArgument(`"driverOptions" must be an object of strings, not ${formatValue(options)}`);
  }
  for (const [key, value] of Object.entries(options as Record<string, unknown>)) {
    if (typeof value !== 'string')
      throw invalidArgument(`"driverOptions": ${formatValue(key)} must be a string, not ${formatValue(value)}`);
  }
}

function checkChoice(value: unknown, what: string, choices: readonly string[]): void {
  if (value === undefined || choices.includes(value as string)) return;
  throw invalidArgument(
    `${what} must be ${choices.map((choice) => `"${choice}"`).join(', ')}, not ${formatValue(value)}`,
  );
}

function checkMethods(value: unknown, what: string, methods: readonly string[]): void {
  if (typeof value !== 'object' || value === null)
    throw invalidArgument(`${what} must be an object, not ${formatValue(value)}`);
  const missing = methods.find((name) => typeof (value as Record<string, unknown>)[name] !== 'function');
  if (missing !== undefined)
    throw invalidArgument(`${what} has no method "${missing}": it needs ${methods.join(', ')}`);
}
