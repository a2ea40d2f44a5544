/**
 * One repository of a registry: manifests and blobs by the distribution protocol.
 * Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
 */
import { sha256, type Digest } from '../digest.js';
import { digestMismatch, invalidArgument, LayerStoreError } from '../errors.js';
import { quote } from '../util/quote.js';
import { connectionError, isCertificateFault, registryError } from './errors.js';
import { endpointsOf, type Capability, type Endpoint } from './hosts.js';
import type { RepositoryLocation } from './reference.js';
import type { RegistrySettings } from './settings.js';
import { readAll, Transport, type Answer, type Body, type Call } from './transport.js';

export const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
] as const;
const SCHEMA_1 = /^application\/vnd\.docker\.distribution\.manifest\.v1\+/;

export interface Manifest {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  readonly digest: Digest;
}

/** Who waits for a request, and hears of its pauses. */
export interface Caller {
  readonly signal: AbortSignal | undefined;
  readonly onRetry: Call['onRetry'];
}

/** Bytes from `start` on; `end`, exclusive, where not all of the rest is wanted. */
export interface ByteRange {
  readonly start: number;
  readonly end: number | undefined;
  /** Of the answer that the bytes before came with: the range counts only as long as it is the same. */
  readonly etag: string | undefined;
}

/** One server's copy of a blob. */
export interface BlobSource {
  readonly host: string;
  /** A 200 with all bytes or a 206; everything else throws. `retries`: of the request. */
  open(range: ByteRange | undefined, retries: number, caller: Caller): Promise<Answer>;
  /** See {@link Transport.pause}. */
  pause(failures: number, failure: LayerStoreError, caller: Caller): Promise<void>;
}

/** A blob to be sent. */
export interface Upload {
  readonly digest: Digest;
  readonly size: number;
  /** Its bytes from an offset on. */
  open(offset: number): Body;
}

type Request = Pick<Call, 'method' | 'url' | 'action'> & Partial<Pick<Call, 'headers' | 'body' | 'scope' | 'retries'>>;

export class Registry implements AsyncDisposable {
  readonly host: string;
  /** Of the repository, as the registry knows it. */
  readonly path: string;
  readonly #settings: RegistrySettings;
  readonly #transport: Transport;
  readonly #scope: string;
  /** The one that answered last comes first. */
  #endpoints: readonly Endpoint[];

  private constructor(
    { host, path }: RepositoryLocation,
    settings: RegistrySettings,
    transport: Transport,
    endpoints: readonly Endpoint[],
    access: 'pull' | 'pull,push',
  ) {
    this.host = host;
    this.path = path;
    this.#settings = settings;
    this.#transport = transport;
    this.#endpoints = endpoints;
    this.#scope = `repository:${path}:${access}`;
  }

  /** `push`: only servers that take images are spoken to. */
  static async open(
    location: RepositoryLocation,
    settings: RegistrySettings,
    access: 'pull' | 'push',
  ): Promise<Registry> {
    const all = await endpointsOf(location.host, settings.hosts, settings.directories);
    const able = all.filter(({ capabilities }) => capabilities.has(access));
    if (able.length === 0) {
      throw invalidArgument(`the settings of ${location.host} allow no ${access}`);
    }
    const transport = await Transport.open(settings.credentials, location.path, settings);
    return new Registry(location, settings, transport, able, access === 'pull' ? 'pull' : 'pull,push');
  }

  /**
   * The manifest of a tag or digest, whole and checked. ERR_IMAGE_DOES_NOT_EXIST, ERR_UNAUTHORIZED, ERR_REGISTRY,
   * ERR_DIGEST_MISMATCH; ERR_NOT_SUPPORTED for the manifests of before 2016.
   */
  async manifest(reference: string, maxBytes: number, caller: Caller): Promise<Manifest> {
    const what = `the manifest ${quote(reference)} of ${quote(this.path)}`;
    const byDigest = reference.startsWith('sha256:');
    return this.#first(byDigest ? 'pull' : 'resolve', async (endpoint, retries) => {
      const request: Request = {
        method: 'GET',
        url: this.#url(endpoint, `manifests/${reference}`),
        headers: { accept: MANIFEST_TYPES.join(', ') },
        action: `read ${what}`,
        retries,
      };
      const about = { action: request.action, maxBytes, retries, caller };
      const { answer, bytes } = await this.#whole(endpoint, about, async () => {
        const head = await this.#send(endpoint, request, caller);
        if (head.status === 404) throw await this.#notThere(head, endpoint, reference);
        if (head.status !== 200) throw await this.#transport.failure(head, { endpoint, action: request.action });
        return head;
      });
      const digest = sha256(bytes);
      const claimed = byDigest ? reference : answer.headers['docker-content-digest'];
      if (claimed?.startsWith('sha256:') === true && claimed !== digest)
        throw digestMismatch(`the digest of ${what} from ${endpoint.host}`, digest, claimed);
      return { bytes, digest, mediaType: mediaTypeOf(answer, bytes, what) };
    });
  }

  /** A small blob whole, not checked. */
  async blob(digest: Digest, maxBytes: number, caller: Caller): Promise<Uint8Array> {
    return this.#first('pull', async (endpoint, retries) => {
      const about = { action: `read the blob ${digest}`, maxBytes, retries, caller };
      const open = (): Promise<Answer> => this.#source(endpoint, digest).open(undefined, retries, caller);
      return (await this.#whole(endpoint, about, open)).bytes;
    });
  }

  /** Every server that may have a blob, the likeliest first. */
  blobSources(digest: Digest): BlobSource[] {
    return this.#endpoints
      .filter(({ capabilities }) => capabilities.has('pull'))
      .map((endpoint) => this.#source(endpoint, digest));
  }

  /** Bytes of a blob that the registry has; undefined where it has none. */
  async blobSize(digest: Digest, caller: Caller): Promise<number | undefined> {
    return this.#first('push', async (endpoint, retries) => {
      const action = `ask for the blob ${digest}`;
      const request: Request = { method: 'HEAD', url: this.#url(endpoint, `blobs/${digest}`), action, retries };
      const answer = await this.#send(endpoint, request, caller);
      await answer.body.dump();
      if (answer.status === 404) return undefined;
      if (answer.status !== 200) throw await this.#transport.failure(answer, { endpoint, action });
      const length = Number(answer.headers['content-length'] ?? NaN);
      return Number.isSafeInteger(length) ? length : undefined;
    });
  }

  /** Takes a blob over from another repository of this registry. False where it does not do that. */
  async mount(digest: Digest, from: string, caller: Caller): Promise<boolean> {
    const [endpoint] = this.#endpoints as [Endpoint];
    const url = this.#url(endpoint, 'blobs/uploads/');
    url.searchParams.set('mount', digest);
    url.searchParams.set('from', from);
    const action = `mount the blob ${digest} from ${quote(from)}`;
    const scope = `${this.#scope} repository:${from}:pull`;
    const answer = await this.#send(endpoint, { method: 'POST', url, action, scope }, caller);
    await answer.body.dump();
    if (answer.status === 201) return true;
    const { location } = answer.headers;
    // An upload was begun instead, or we may not read there: it is sent like any other then.
    if (answer.status === 202 && location !== undefined) {
      const session = new URL(location, answer.url);
      await this.#send(endpoint, { method: 'DELETE', url: session, action, retries: 0 }, caller)
        .then((end) => end.body.dump())
        .catch(() => caller.signal?.throwIfAborted()); // a session that stays is the registry's to end
    }
    return false;
  }

  /** Sends a small blob in one request; one that the registry wants in two is sent so. */
  async uploadSmall(digest: Digest, bytes: Uint8Array, caller: Caller): Promise<void> {
    const [endpoint] = this.#endpoints as [Endpoint];
    const url = this.#url(endpoint, 'blobs/uploads/');
    url.searchParams.set('digest', digest);
    const headers = { 'content-type': 'application/octet-stream' };
    const action = `send the blob ${digest}`;
    const answer = await this.#send(endpoint, { method: 'POST', url, headers, body: () => bytes, action }, caller);
    if (answer.status === 201) {
      await answer.body.dump();
      return;
    }
    if (answer.status !== 202) throw await this.#transport.failure(answer, { endpoint, action });
    const session = await sessionOf(answer, endpoint);
    await this.#upload({ digest, size: bytes.length, open: (offset) => bytes.subarray(offset) }, session, caller);
  }

  /** Sends a blob in one streaming request; where that breaks, goes on from what the registry says it has. */
  async upload(blob: Upload, caller: Caller): Promise<void> {
    await this.#upload(blob, undefined, caller);
  }

  async putManifest(reference: string, mediaType: string, bytes: Uint8Array, caller: Caller): Promise<void> {
    const [endpoint] = this.#endpoints as [Endpoint];
    const action = `send the manifest ${quote(reference)} of ${quote(this.path)}`;
    const url = this.#url(endpoint, `manifests/${reference}`);
    const headers = { 'content-type': mediaType };
    const answer = await this.#send(endpoint, { method: 'PUT', url, headers, body: () => bytes, action }, caller);
    if (answer.status !== 201 && answer.status !== 200)
      throw await this.#transport.failure(answer, { endpoint, action });
    await answer.body.dump();
    const stored = answer.headers['docker-content-digest'];
    if (stored?.startsWith('sha256:') === true && stored !== sha256(bytes))
      throw digestMismatch(
        `the digest that ${endpoint.host} gives for the manifest ${quote(reference)}`,
        stored,
        sha256(bytes),
        'push it again',
      );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
  }

  #url(endpoint: Endpoint, rest: string): URL {
    const url = new URL(`${this.path}/${rest}`, endpoint.base);
    // A mirror of several registries is told which one is meant, as containerd does.
    if (endpoint.host !== this.host) url.searchParams.set('ns', this.host);
    return url;
  }

  #send(endpoint: Endpoint, request: Request, { signal, onRetry }: Caller): Promise<Answer> {
    return this.#transport.send({
      endpoint,
      headers: {},
      body: undefined,
      scope: this.#scope,
      retries: this.#settings.retries,
      ...request,
      signal,
      onRetry,
    });
  }

  #source(endpoint: Endpoint, digest: Digest): BlobSource {
    const action = `fetch the blob ${digest}`;
    return {
      host: endpoint.host,
      open: async (range, retries, caller) => {
        const url = this.#url(endpoint, `blobs/${digest}`);
        const headers = { 'accept-encoding': 'identity', ...(range === undefined ? {} : rangeHeaders(range)) };
        const answer = await this.#send(endpoint, { method: 'GET', url, headers, action, retries }, caller);
        if (answer.status === 200 || (answer.status === 206 && range !== undefined)) return answer;
        throw await this.#transport.failure(answer, { endpoint, action });
      },
      pause: (failures, failure, caller) => this.#transport.pause(caller, failures, failure),
    };
  }

  /**
   * Asks one server after the other. Only the last one is asked again; where all fail, its error tells of the others. A
   * loopback host that speaks TLS is not asked without.
   */
  async #first<T>(capability: Capability, ask: (endpoint: Endpoint, retries: number) => Promise<T>): Promise<T> {
    const able = this.#endpoints.filter(({ capabilities }) => capabilities.has(capability));
    const failures: LayerStoreError[] = [];
    for (const [index, endpoint] of able.entries()) {
      const next = able[index + 1];
      try {
        const result = await ask(endpoint, next === undefined ? this.#settings.retries : 0);
        this.#endpoints = [
          endpoint,
          ...this.#endpoints.filter((other) => other !== endpoint && other.host !== endpoint.host),
        ];
        return result;
      } catch (error) {
        if (!(error instanceof LayerStoreError)) throw error;
        failures.push(error);
        const speaksTls = error.status !== undefined || isCertificateFault(error.cause);
        if (next?.host === endpoint.host && speaksTls) break;
      }
    }
    throw lastOf(failures, this.host);
  }

  /** Opens a small document and reads it whole; where it breaks off, once more. */
  async #whole(
    endpoint: Endpoint,
    about: { action: string; maxBytes: number; retries: number; caller: Caller },
    open: () => Promise<Answer>,
  ): Promise<{ answer: Answer; bytes: Uint8Array }> {
    const { action, maxBytes, retries, caller } = about;
    for (let failures = 0; ; failures++) {
      const answer = await open();
      let bytes;
      try {
        bytes = await readAll(answer.body, maxBytes);
      } catch (error) {
        caller.signal?.throwIfAborted();
        const failure = connectionError(action, endpoint.host, error);
        if (failures >= retries) throw failure;
        await this.#transport.pause(caller, failures, failure);
        continue;
      }
      if (bytes !== 'too long') return { answer, bytes };
      throw new LayerStoreError(
        'ERR_LIMIT_EXCEEDED',
        `cannot ${action}: it has more than ${maxBytes} bytes; raise "limits.maxJsonBytes" if you trust it`,
        { host: endpoint.host },
      );
    }
  }

  async #notThere(answer: Answer, endpoint: Endpoint, reference: string): Promise<LayerStoreError> {
    const { registryCode, status } = await this.#transport.failure(answer, { endpoint, action: '' });
    const separator = reference.startsWith('sha256:') ? '@' : ':';
    return new LayerStoreError(
      'ERR_IMAGE_DOES_NOT_EXIST',
      `${endpoint.host} has no image ${quote(`${this.path}${separator}${reference}`)}; check the name and the tag`,
      { host: endpoint.host, status, registryCode },
    );
  }

  async #upload(blob: Upload, begun: URL | undefined, caller: Caller): Promise<void> {
    const [endpoint] = this.#endpoints as [Endpoint];
    const action = `send the blob ${blob.digest}`;
    const { retries } = this.#settings;
    let session = begun ?? (await this.#beginUpload(endpoint, action, caller));
    let offset = 0;
    for (let failures = 0; ; failures++) {
      const outcome = await this.#sendFrom(endpoint, blob, session, offset, action, caller);
      if (outcome === 'done') return;
      const lost = outcome.status !== undefined && outcome.status < 500 && outcome.status !== 429;
      // What was begun anew in one piece and is refused all the same will not get better.
      if (failures >= retries || (lost && offset === 0 && failures > 0)) throw outcome;
      if (outcome.code !== 'ERR_REGISTRY') throw outcome;
      await this.#transport.pause(caller, failures, outcome);
      const known = lost ? undefined : await this.#uploadStatus(endpoint, session, action, caller);
      session = known?.session ?? (await this.#beginUpload(endpoint, action, caller));
      offset = Math.min(known?.offset ?? 0, blob.size);
    }
  }

  /** One request for a blob that is sent whole; two where the registry has its beginning already. */
  async #sendFrom(
    endpoint: Endpoint,
    blob: Upload,
    session: URL,
    offset: number,
    action: string,
    caller: Caller,
  ): Promise<'done' | LayerStoreError> {
    const { digest, size } = blob;
    try {
      let target = session;
      if (offset > 0 && offset < size) {
        const headers = {
          'content-type': 'application/octet-stream',
          'content-length': String(size - offset),
          'content-range': `${offset}-${size - 1}`,
        };
        const body = (): Body => blob.open(offset);
        const part: Request = { method: 'PATCH', url: session, headers, body, action, retries: 0 };
        const answer = await this.#send(endpoint, part, caller);
        if (answer.status !== 202) return await this.#transport.failure(answer, { endpoint, action });
        target = await sessionOf(answer, endpoint);
      }
      const url = new URL(target);
      url.searchParams.set('digest', digest);
      const rest = offset > 0 ? 0 : size;
      const headers = { 'content-type': 'application/octet-stream', 'content-length': String(rest) };
      const body = rest === 0 ? undefined : (): Body => blob.open(0);
      const answer = await this.#send(endpoint, { method: 'PUT', url, headers, body, action, retries: 0 }, caller);
      if (answer.status !== 201 && answer.status !== 204)
        return await this.#transport.failure(answer, { endpoint, action });
      await answer.body.dump();
      return 'done';
    } catch (error) {
      if (LayerStoreError.is(error, 'ERR_REGISTRY')) return error;
      throw error;
    }
  }

  async #beginUpload(endpoint: Endpoint, action: string, caller: Caller): Promise<URL> {
    const url = this.#url(endpoint, 'blobs/uploads/');
    const answer = await this.#send(endpoint, { method: 'POST', url, action }, caller);
    if (answer.status !== 202) throw await this.#transport.failure(answer, { endpoint, action });
    return sessionOf(answer, endpoint);
  }

  /** How much the registry has of an upload: its word counts, never what we sent. Undefined where it has forgotten it. */
  async #uploadStatus(
    endpoint: Endpoint,
    session: URL,
    action: string,
    caller: Caller,
  ): Promise<{ session: URL; offset: number } | undefined> {
    const answer = await this.#send(endpoint, { method: 'GET', url: session, action }, caller);
    await answer.body.dump();
    const range = /^(?:bytes=)?0-([0-9]+)$/.exec(answer.headers['range'] ?? '');
    if (answer.status !== 204 && answer.status !== 202 && answer.status !== 200) return undefined;
    const { location } = answer.headers;
    // "0-0" is what registries say of an upload without a byte.
    const last = Number(range?.[1] ?? 0);
    return {
      session: location === undefined ? session : new URL(location, answer.url),
      offset: last === 0 ? 0 : last + 1,
    };
  }
}

function rangeHeaders({ start, end, etag }: ByteRange): Record<string, string> {
  // A weak validator compares nothing byte for byte.
  const strong = etag !== undefined && !etag.startsWith('W/');
  return { range: `bytes=${start}-${end === undefined ? '' : end - 1}`, ...(strong ? { 'if-range': etag } : {}) };
}

async function sessionOf(answer: Answer, endpoint: Endpoint): Promise<URL> {
  await answer.body.dump();
  const { location } = answer.headers;
  if (location === undefined || !URL.canParse(location, answer.url.href)) {
    throw registryError(`${endpoint.host} has begun an upload without saying where`, {
      host: endpoint.host,
      status: answer.status,
    });
  }
  return new URL(location, answer.url);
}

/** From the header; where a server calls everything JSON, from the document. */
function mediaTypeOf(answer: Answer, bytes: Uint8Array, what: string): string {
  const header = (answer.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  if (SCHEMA_1.test(header)) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `${what} is of Docker's schema 1, which registries gave up in 2022; push the image again with a current tool`,
    );
  }
  if ((MANIFEST_TYPES as readonly string[]).includes(header)) return header;
  try {
    const { mediaType } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { mediaType?: unknown };
    return typeof mediaType === 'string' ? mediaType : header;
  } catch {
    return header; // whoever reads the document says what is wrong with it
  }
}

function lastOf(failures: readonly LayerStoreError[], host: string): LayerStoreError {
  const last = failures.at(-1);
  if (last === undefined) return invalidArgument(`the settings of ${host} name no server for that`);
  if (failures.length === 1) return last;
  const others = failures.slice(0, -1).map(({ message }) => message);
  const { code, status, registryCode, retryAfter, cause } = last;
  return new LayerStoreError(code, `${last.message} (before that: ${others.join('; ')})`, {
    cause,
    host: last.host,
    status,
    registryCode,
    retryAfter,
  });
}
