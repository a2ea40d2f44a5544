/**
 * Image names in the forms Docker uses: any spelling comes in, the short ("familiar") form goes into records.
 * Grammar: https://github.com/distribution/reference, `reference.go` and `normalize.go`.
 */
import { type Digest, isDigest, isSHA256Hex, parseDigest } from '../digest.js';
import { invalidArgument } from '../errors.js';
import { quote } from '../util/quote.js';

export interface ImageName {
  /** `debian`, `ghcr.io/a/b`: without `docker.io/` and `library/`. */
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const HOST =
  /^(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])(?:\.(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*(?::[0-9]+)?$|^\[[a-fA-F0-9:]+\](?::[0-9]+)?$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/** Parses a name; without tag and digest, the tag is `latest`. `undefined` where it is none. */
export function tryParseName(text: string): ImageName | undefined {
  if (text.length > 512 || isSHA256Hex(text)) return undefined;
  let rest = text;
  let digest: Digest | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    if (!isDigest(rest.slice(at + 1))) return undefined;
    digest = parseDigest(rest.slice(at + 1));
    rest = rest.slice(0, at);
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) return undefined;
  }
  const repository = familiarRepository(rest);
  if (repository === undefined) return undefined;
  if (digest === undefined) return { repository, tag: tag ?? 'latest' };
  return tag === undefined ? { repository, digest } : { repository, tag, digest };
}

function familiarRepository(text: string): string | undefined {
  const slash = text.indexOf('/');
  const first = slash < 0 ? '' : text.slice(0, slash);
  // What comes before the first slash is a host only where it looks like one; else it is a part of a Docker Hub name.
  const hasHost = slash >= 0 && (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase());
  let host = hasHost ? first : 'docker.io';
  if (!HOST.test(host)) return undefined;
  if (host === 'index.docker.io') host = 'docker.io';
  let path = hasHost ? text.slice(slash + 1) : text;
  if (path.length > 255 || !path.split('/').every((component) => COMPONENT.test(component))) return undefined;
  if (host !== 'docker.io') return `${host}/${path}`;
  if (path.startsWith('library/') && path.indexOf('/', 8) < 0) path = path.slice(8);
  // A short name of 64 hex digits would be taken for an id.
  return isSHA256Hex(path) ? undefined : path;
}

/** {@link tryParseName}, or ERR_INVALID_ARGUMENT. */
export function parseName(text: string): ImageName {
  const name = typeof text === 'string' ? tryParseName(text) : undefined;
  if (name === undefined) {
    throw invalidArgument(
      `${quote(String(text))} is not an image name: write [HOST[:PORT]/]REPOSITORY[:TAG], the repository in lower case`,
    );
  }
  return name;
}

/** {@link parseName} of a name that an image can be given: one with a tag and no digest. */
export function parseNameToGive(text: string): ImageName {
  const name = parseName(text);
  if (name.digest === undefined) return name;
  throw invalidArgument(`${quote(text)} has a digest; a name that is given must have a tag`);
}

/** The key of a name in repositories.json: `debian:12`, or `debian@sha256:…` for a name with a digest. */
export function formatName(name: ImageName): string {
  return name.digest === undefined ? `${name.repository}:${name.tag ?? 'latest'}` : `${name.repository}@${name.digest}`;
}

/** Docker Hub's name in references, and in what users say of its credentials and mirrors. */
export const DOCKER_HUB = 'docker.io';

/** Where a name lives: `debian` is `library/debian` at `docker.io`. */
export interface RepositoryLocation {
  /** `host[:port]` as the reference has it. */
  readonly host: string;
  /** The path that the registry knows. */
  readonly path: string;
}

export function locationOf({ repository }: ImageName): RepositoryLocation {
  const slash = repository.indexOf('/');
  const first = slash < 0 ? '' : repository.slice(0, slash);
  const hasHost = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  if (hasHost) return { host: first, path: repository.slice(slash + 1) };
  return { host: DOCKER_HUB, path: slash < 0 ? `library/${repository}` : repository };
}

/** The full form that OCI annotations carry: `docker.io/library/debian:12`. */
export function fullName(name: ImageName): string {
  const { host, path } = locationOf(name);
  return formatName({ ...name, repository: `${host}/${path}` });
}
