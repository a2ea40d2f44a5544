/**
 * Where a registry host is reached: mirrors first, each with its TLS settings. From RegistryOptions.hosts, or from the files
 * that containerd and Docker read.
 * Sources: containerd, docs/hosts.md (hosts.toml); Docker, "Verify repository client with certificates" (certs.d).
 */
import { readdir, readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { invalidArgument, systemError } from '../errors.js';
import { quote } from '../util/quote.js';
import { DOCKER_HUB } from './reference.js';
import { parseToml, type TomlTable, type TomlValue } from './toml.js';
import type { RegistryHost } from './types.js';

/** What a server may be asked for. `resolve`: what a tag means. */
export type Capability = 'pull' | 'resolve' | 'push';

export interface TlsSettings {
  /** PEM; empty: the system's. */
  readonly ca: readonly string[];
  /** PEM of our own certificate and key. */
  readonly client: readonly { readonly cert: string; readonly key: string }[];
  readonly skipVerify: boolean;
}

/** One server that has the images of a host. */
export interface Endpoint {
  /** The root of its API, ending in a slash: `https://registry-1.docker.io/v2/`. */
  readonly base: URL;
  /** The name by which its credentials are known: `docker.io`, `mirror.lan:5000`. */
  readonly host: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly tls: TlsSettings;
  /** Sent with each request to it; may hold secrets. */
  readonly headers: Readonly<Record<string, string>>;
}

const ALL: ReadonlySet<Capability> = new Set(['pull', 'resolve', 'push']);
const SYSTEM_TLS: TlsSettings = { ca: [], client: [], skipVerify: false };
const HUB_SERVER = 'registry-1.docker.io';

/** Where the files lie. */
export interface HostDirectories {
  readonly containerd: string;
  readonly docker: string;
}
export const HOST_DIRECTORIES: HostDirectories = {
  containerd: '/etc/containerd/certs.d',
  docker: '/etc/docker/certs.d',
};

/** In the order in which they are asked. At least one. */
export async function endpointsOf(
  host: string,
  hosts: Readonly<Record<string, RegistryHost>> | undefined,
  directories: HostDirectories,
): Promise<Endpoint[]> {
  if (hosts !== undefined) return fromOptions(host, hosts);
  for (const name of [host, host.replace(/:([0-9]+)$/, '_$1_'), '_default']) {
    const directory = join(directories.containerd, name);
    const text = await readOptional(join(directory, 'hosts.toml'));
    if (text !== undefined) return fromToml(host, parseToml(text, `"${join(directory, 'hosts.toml')}"`), directory);
    const tls = await readCertificates(directory);
    if (tls !== undefined) return [endpoint(defaultURL(host), host, tls)];
  }
  const tls = await readCertificates(join(directories.docker, host));
  return tls === undefined ? withoutSettings(host) : [endpoint(defaultURL(host), host, tls)];
}

async function fromOptions(host: string, hosts: Readonly<Record<string, RegistryHost>>): Promise<Endpoint[]> {
  const own = Object.hasOwn(hosts, host) ? hosts[host] : undefined;
  const endpoints: Endpoint[] = [];
  for (const mirror of own?.mirrors ?? []) {
    const named = mirror.includes('://') ? parseURL(mirror, 'a mirror') : undefined;
    const name = named?.host ?? mirror;
    const settings = Object.hasOwn(hosts, name) ? hosts[name] : undefined;
    const url = named ?? parseURL(`${settings?.plainHTTP === true ? 'http' : 'https'}://${mirror}`, 'a mirror');
    const mirrorEndpoint = endpoint(apiRoot(url), name, await tlsOf(settings));
    endpoints.push({ ...mirrorEndpoint, capabilities: new Set(['pull', 'resolve']) });
  }
  if (own === undefined || (own.plainHTTP === undefined && own.ca === undefined))
    return [...endpoints, ...withoutSettings(host)];
  return [...endpoints, endpoint(defaultURL(host, own.plainHTTP === true ? 'http' : 'https'), host, await tlsOf(own))];
}

async function tlsOf(settings: RegistryHost | undefined): Promise<TlsSettings> {
  const { ca } = settings ?? {};
  if (ca === undefined) return SYSTEM_TLS;
  return { ...SYSTEM_TLS, ca: [ca.includes('-----BEGIN') ? ca : await readNeeded(ca)] };
}

/** A loopback host that nobody configured may well be a test registry without TLS. */
function withoutSettings(host: string): Endpoint[] {
  const secure = endpoint(defaultURL(host), host, SYSTEM_TLS);
  return isLoopback(secure.base.hostname) ? [secure, endpoint(defaultURL(host, 'http'), host, SYSTEM_TLS)] : [secure];
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.[0-9]+\.[0-9]+\.[0-9]+$/.test(hostname);
}

function endpoint(base: URL, host: string, tls: TlsSettings): Endpoint {
  return { base, host, capabilities: ALL, tls, headers: {} };
}

function defaultURL(host: string, scheme: 'http' | 'https' = 'https'): URL {
  return apiRoot(parseURL(`${scheme}://${host === DOCKER_HUB ? HUB_SERVER : host}`, 'a registry'));
}

function parseURL(text: string, what: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '')
    throw invalidArgument(`${quote(text)} cannot be ${what}: give HOST[:PORT], or a URL with http or https`);
  return url;
}

/** The API lies below `/v2/`, which most leave out. */
function apiRoot(url: URL): URL {
  const path = url.pathname.replace(/\/+$/, '');
  return new URL(path.endsWith('/v2') ? `${path}/` : `${path}/v2/`, url);
}

/** containerd's file: hosts in their order, then `server`. */
async function fromToml(host: string, top: TomlTable, directory: string): Promise<Endpoint[]> {
  const endpoints: Endpoint[] = [];
  for (const [name, table] of Object.entries(top['host'] ?? {}))
    endpoints.push(await tomlEndpoint(name, table as TomlTable, host, directory));
  const server = textOf(top['server']) ?? '';
  endpoints.push(await tomlEndpoint(server === '' ? defaultURL(host).href : server, top, host, directory));
  return endpoints;
}

async function tomlEndpoint(name: string, table: TomlTable, host: string, directory: string): Promise<Endpoint> {
  const url = parseURL(name.includes('://') ? name : `https://${name}`, 'a registry');
  const ca = await Promise.all(textsOf(table['ca']).map((path) => readNeeded(below(directory, path))));
  const client = await Promise.all(
    clientPairs(table['client']).map(async ([cert, key]) => ({
      cert: await readNeeded(below(directory, cert)),
      key: await readNeeded(below(directory, key)),
    })),
  );
  const capabilities = textsOf(table['capabilities']) as Capability[];
  const headers: Record<string, string> = {};
  for (const [key, value] of Object.entries(table['header'] ?? {}))
    headers[key] = textsOf(value as TomlValue).join(', ');
  const base = table['override_path'] === true ? new URL(url.href.replace(/\/*$/, '/')) : apiRoot(url);
  const own = base.host === defaultURL(host).host;
  return {
    base,
    host: own ? host : url.host,
    capabilities: table['capabilities'] === undefined ? ALL : new Set(capabilities),
    tls: { ca, client, skipVerify: table['skip_verify'] === true },
    headers,
  };
}

/** One file for both, a list of such files, or a list of pairs. */
function clientPairs(value: TomlValue | undefined): [cert: string, key: string][] {
  if (value === undefined) return [];
  return (Array.isArray(value) ? value : [value]).map((entry) => {
    const [cert = '', key = cert] = textsOf(entry);
    return [cert, key];
  });
}

function textOf(value: TomlValue | undefined): string | undefined {
  if (value === undefined || typeof value === 'string') return value;
  throw invalidArgument('a setting of hosts.toml that must be a string is none');
}

function textsOf(value: TomlValue | undefined): string[] {
  if (value === undefined) return [];
  return (Array.isArray(value) ? value : [value]).map((entry) => textOf(entry) as string);
}

function below(directory: string, path: string): string {
  return isAbsolute(path) ? path : join(directory, path);
}

/** Docker's directory: `*.crt` are authorities, `NAME.cert` with `NAME.key` is who we are. Undefined where there is nothing. */
async function readCertificates(directory: string): Promise<TlsSettings | undefined> {
  let names: string[];
  try {
    names = (await readdir(directory)).sort();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw systemError(error, 'read the certificates of a registry');
  }
  const read = (name: string): Promise<string> => readNeeded(join(directory, name));
  const ca = await Promise.all(names.filter((name) => name.endsWith('.crt')).map(read));
  const client = await Promise.all(
    names
      .filter((name) => name.endsWith('.cert'))
      .map(async (name) => ({ cert: await read(name), key: await read(name.replace(/cert$/, 'key')) })),
  );
  return ca.length + client.length === 0 ? undefined : { ca, client, skipVerify: false };
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw systemError(error, 'read the settings of a registry');
  }
}

async function readNeeded(path: string): Promise<string> {
  const text = await readOptional(path);
  if (text !== undefined) return text;
  throw invalidArgument(`the certificate "${path}" of a registry is not there`);
}

function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR';
}
