/** RegistryOptions made complete and checked. */
import { invalidArgument } from '../errors.js';
import { fileCredentials, type CredentialSource } from './credentials.js';
import { HOST_DIRECTORIES, type HostDirectories } from './hosts.js';
import type { RegistryHost, RegistryOptions } from './types.js';

export interface RegistrySettings {
  readonly credentials: CredentialSource;
  readonly hosts: Readonly<Record<string, RegistryHost>> | undefined;
  readonly directories: HostDirectories;
  readonly concurrency: number;
  readonly noProgressTimeout: number;
  readonly retries: number;
  /** The first pause before another try. */
  readonly backoffMs: number;
  readonly ranges: RangeSettings;
}

/** When a blob is fetched by several connections. */
export interface RangeSettings {
  /** Bytes of one range. */
  readonly rangeBytes: number;
  /** Connections for one blob. */
  readonly connections: number;
  /** The first connection's rate is measured for so long. */
  readonly probeMs: number;
  /** Bytes a second below which a connection is slow. */
  readonly slowRate: number;
}

const RANGES: RangeSettings = { rangeBytes: 8 * 1024 * 1024, connections: 6, probeMs: 400, slowRate: 32 * 1024 * 1024 };

/** ERR_INVALID_ARGUMENT for a value that makes no sense. */
export function registrySettings(options: RegistryOptions): RegistrySettings {
  const { credentials, hosts } = options;
  return {
    credentials: credentials === undefined ? fileCredentials(process.env) : credentials,
    hosts,
    directories: HOST_DIRECTORIES,
    concurrency: wholeNumber(options.concurrency, 'concurrency', 1, 4),
    noProgressTimeout: wholeNumber(options.noProgressTimeout, 'noProgressTimeout', 1, 30_000),
    retries: wholeNumber(options.retries, 'retries', 0, 5),
    backoffMs: 250,
    ranges: RANGES,
  };
}

function wholeNumber(value: number | undefined, name: string, least: number, standard: number): number {
  if (value === undefined) return standard;
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw invalidArgument(`registry.${name} must be a whole number of ${least} or more`);
}
