/** Checks the options of `openStore`; what a driver or an engine knows better is left to it. */
import { checkBoolean, checkLimits, checkOptions, checkText, invalid } from './arguments.js';
import type { StoreOptions } from './types.js';
import { formatValue } from '../util/quote.js';

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
  if (options === undefined) throw invalid('openStore() needs options: give at least { root }');
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
    throw invalid(`"maxDepth" must be a whole number of 1 or more, not ${formatValue(maxDepth)}`);
  }
  checkLimits(given.limits);
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
    throw invalid(
      `the driver's "name" becomes a directory's: use 1 to 64 of a-z, 0-9, "_", "." and "-", not ${formatValue(name)}`,
    );
  }
  if (typeof capabilities !== 'object' || capabilities === null) throw invalid('the driver has no "capabilities"');
}

function checkDriverOptions(options: unknown): void {
  if (options === undefined) return;
  if (options === null || typeof options !== 'object' || Array.isArray(options)) {
    throw invalid(`"driverOptions" must be an object of strings, not ${formatValue(options)}`);
  }
  for (const [key, value] of Object.entries(options as Record<string, unknown>)) {
    if (typeof value !== 'string')
      throw invalid(`"driverOptions": ${formatValue(key)} must be a string, not ${formatValue(value)}`);
  }
}

function checkChoice(value: unknown, what: string, choices: readonly string[]): void {
  if (value === undefined || choices.includes(value as string)) return;
  throw invalid(`${what} must be ${choices.map((choice) => `"${choice}"`).join(', ')}, not ${formatValue(value)}`);
}

function checkMethods(value: unknown, what: string, methods: readonly string[]): void {
  if (typeof value !== 'object' || value === null)
    throw invalid(`${what} must be an object, not ${formatValue(value)}`);
  const missing = methods.find((name) => typeof (value as Record<string, unknown>)[name] !== 'function');
  if (missing !== undefined) throw invalid(`${what} has no method "${missing}": it needs ${methods.join(', ')}`);
}
