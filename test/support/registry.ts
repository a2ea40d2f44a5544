/**
 * A registry in memory, by the distribution specification, that can be told to misbehave. What it was asked for is in `log`.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

type Digest = `sha256:${string}`;

export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** What happens to a request in place of its answer, or to its answer's body. */
export interface Fault {
  readonly method?: string;
  /** Of the path and query. */
  readonly path: RegExp;
  /** How often; default once. */
  times?: number;
  readonly answer?: { status: number; headers?: Record<string, string>; body?: string };
  /** Sends so many bytes of the body, then breaks the connection. */
  readonly cutAfter?: number;
  /** Sends so many bytes of the body, then none, and keeps the connection. */
  readonly stallAfter?: number;
  /** Ends the body after so many bytes as if that were all of it. */
  readonly endAfter?: number;
  /** Sends so many bytes too many. */
  readonly extraBytes?: number;
  /** Says another length than it has. */
  readonly length?: number;
  /** Says another range than it sends. */
  readonly contentRange?: string;
  /** Turns the bits of the byte at this place of the blob. */
  readonly flip?: number;
  /** As if ranges were unknown. */
  readonly ignoreRange?: true;
  /** Sends the client elsewhere. */
  readonly redirect?: (url: string) => string;
  /** Takes so many bytes of an upload, then breaks the connection. */
  readonly takeOnly?: number;
}

export interface Logged {
  readonly method: string;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  status: number;
}

export interface Auth {
  readonly kind: 'basic' | 'bearer';
  readonly username: string;
  readonly password: string;
  /** For `bearer`: who gives no credentials gets a token too. */
  readonly anonymous?: boolean;
  /** For `bearer`: requests after which a token is refused. */
  readonly tokenUses?: number;
  readonly identityToken?: string;
}

export class TestRegistry {
  readonly log: Logged[] = [];
  readonly faults: Fault[] = [];
  readonly blobs = new Map<string, Map<Digest, Buffer>>();
  readonly manifests = new Map<string, Map<string, { bytes: Buffer; mediaType: string }>>();
  auth: Auth | undefined;
  /** Bytes a second of each connection. */
  rate = Infinity;
  /** Most bodies that were sent at the same time. */
  mostAtOnce = 0;
  /** Whether a single POST completes an upload; docker-registry's does not. */
  singlePost = false;
  #atOnce = 0;
  #tokens = new Map<string, number>();
  #uploads = new Map<string, Buffer>();
  #states = 0;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }

  static async start(t: Pick<TestContext, 'after'>): Promise<TestRegistry> {
    const registry = new TestRegistry();
    registry.#server.listen(0, '127.0.0.1');
    await once(registry.#server, 'listening');
    t.after(() => {
      registry.#server.closeAllConnections();
      registry.#server.close();
    });
    return registry;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  putBlob(repository: string, bytes: Buffer): Digest {
    const digest = sha256(bytes);
    this.#of(this.blobs, repository).set(digest, bytes);
    return digest;
  }

  putManifest(repository: string, reference: string, mediaType: string, text: string): Digest {
    const bytes = Buffer.from(text);
    const manifests = this.#of(this.manifests, repository);
    manifests.set(reference, { bytes, mediaType });
    manifests.set(sha256(bytes), { bytes, mediaType });
    return sha256(bytes);
  }

  /** `GET blobs/…` and the like of the log. */
  asked(method: string, path: RegExp): Logged[] {
    return this.log.filter((entry) => entry.method === method && path.test(entry.url));
  }

  #of<T>(map: Map<string, Map<string, T>>, repository: string): Map<string, T> {
    const found = map.get(repository) ?? new Map<string, T>();
    map.set(repository, found);
    return found;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/', headers } = request;
    const entry: Logged = {
      method,
      url,
      authorization: headers.authorization,
      range: headers.range,
      ifRange: headers['if-range'] as string | undefined,
      status: 0,
    };
    this.log.push(entry);
    response.once('close', () => (entry.status = response.statusCode));
    const fault = this.#fault(method, url);
    if (fault?.answer !== undefined) {
      request.resume();
      response.writeHead(fault.answer.status, fault.answer.headers);
      response.end(fault.answer.body);
      return;
    }
    if (fault?.redirect !== undefined) {
      request.resume();
      response.writeHead(307, { location: fault.redirect(url) });
      response.end();
      return;
    }
    const { pathname, searchParams } = new URL(url, 'http://registry');
    if (pathname === '/token') return this.#token(request, response, searchParams);
    if (!this.#allowed(request, response, pathname)) {
      request.resume();
      return;
    }
    const match = /^\/v2\/(?:(.+)\/(manifests|blobs)\/(.*))?$/.exec(pathname);
    if (match === null) return fail(response, 404, 'UNSUPPORTED');
    const [, repository, kind, rest = ''] = match;
    if (repository === undefined) response.end('{}');
    else if (kind === 'manifests') await this.#manifest(request, response, repository, rest);
    else if (rest.startsWith('uploads/')) await this.#upload(request, response, repository, rest, searchParams, fault);
    else await this.#blob(request, response, repository, rest as Digest, fault);
  }

  #fault(method: string, url: string): Fault | undefined {
    const found = this.faults.find((fault) => (fault.method ?? method) === method && fault.path.test(url));
    if (found === undefined) return undefined;
    found.times = (found.times ?? 1) - 1;
    if (found.times <= 0) this.faults.splice(this.faults.indexOf(found), 1);
    return found;
  }

  #basic(): string {
    return `Basic ${Buffer.from(`${this.auth?.username}:${this.auth?.password}`).toString('base64')}`;
  }

  async #token(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): Promise<void> {
    const form = new URLSearchParams((await read(request)).toString());
    const known =
      request.headers.authorization === this.#basic() ||
      (form.get('grant_type') === 'refresh_token' && form.get('refresh_token') === this.auth?.identityToken);
    const anonymous = request.headers.authorization === undefined && form.size === 0 && this.auth?.anonymous === true;
    if (!known && !anonymous) return fail(response, 401, 'UNAUTHORIZED');
    const scope = [...query.getAll('scope'), ...(form.get('scope')?.split(' ') ?? [])].sort().join(' ');
    const token = `token-${this.#tokens.size}-${Buffer.from(scope).toString('hex')}`;
    this.#tokens.set(token, this.auth?.tokenUses ?? Infinity);
    response.end(JSON.stringify({ token, expires_in: 300 }));
  }

  #allowed(request: IncomingMessage, response: ServerResponse, path: string): boolean {
    if (this.auth === undefined) return true;
    const given = request.headers.authorization;
    const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(path)?.[1] ?? '';
    if (this.auth.kind === 'basic') {
      if (given === this.#basic()) return true;
      response.setHeader('www-authenticate', 'Basic realm="test"');
    } else {
      const token = given?.replace(/^Bearer /, '') ?? '';
      const uses = this.#tokens.get(token) ?? 0;
      const scope = Buffer.from(token.split('-')[2] ?? '', 'hex').toString();
      if (uses > 0 && scope.includes(`repository:${repository}:pull`)) {
        this.#tokens.set(token, uses - 1);
        return true;
      }
      response.setHeader(
        'www-authenticate',
        `Bearer realm="http://${this.host}/token",service="test",scope="repository:${repository}:pull"`,
      );
    }
    fail(response, 401, 'UNAUTHORIZED');
    return false;
  }

  async #manifest(
    request: IncomingMessage,
    response: ServerResponse,
    repository: string,
    reference: string,
  ): Promise<void> {
    if (request.method === 'PUT') {
      const text = (await read(request)).toString();
      const digest = this.putManifest(repository, reference, String(request.headers['content-type']), text);
      response.writeHead(201, { 'docker-content-digest': digest, location: `/v2/${repository}/manifests/${digest}` });
      response.end();
      return;
    }
    const found = this.manifests.get(repository)?.get(reference);
    if (found === undefined) return fail(response, 404, 'MANIFEST_UNKNOWN');
    response.writeHead(200, {
      'content-type': found.mediaType,
      'content-length': found.bytes.length,
      'docker-content-digest': reference.startsWith('sha256:') ? reference : sha256(found.bytes),
    });
    response.end(request.method === 'HEAD' ? undefined : found.bytes);
  }

  async #blob(
    request: IncomingMessage,
    response: ServerResponse,
    repository: string,
    digest: Digest,
    fault: Fault | undefined,
  ): Promise<void> {
    const whole = this.blobs.get(repository)?.get(digest);
    if (whole === undefined) return fail(response, 404, 'BLOB_UNKNOWN');
    const etag = `"${digest}"`;
    const asked = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? '');
    const fresh = (request.headers['if-range'] ?? etag) === etag;
    const ranged = asked !== null && fresh && fault?.ignoreRange !== true;
    const start = ranged ? Number(asked[1]) : 0;
    const end = ranged && asked[2] !== '' ? Math.min(whole.length, Number(asked[2]) + 1) : whole.length;
    if (ranged && start >= whole.length) return fail(response, 416, 'RANGE_INVALID');
    let bytes = Buffer.from(whole.subarray(start, end));
    const { flip } = fault ?? {};
    if (flip !== undefined && flip >= start && flip < end) bytes[flip - start] = (bytes[flip - start] as number) ^ 0xff;
    bytes = Buffer.concat([bytes, Buffer.alloc(fault?.extraBytes ?? 0)]);
    response.statusCode = ranged ? 206 : 200;
    response.setHeader('etag', etag);
    if (fault?.ignoreRange !== true) response.setHeader('accept-ranges', 'bytes');
    if (ranged) response.setHeader('content-range', fault?.contentRange ?? `bytes ${start}-${end - 1}/${whole.length}`);
    // Without a length, the end of a body is where it ends.
    if (fault?.endAfter === undefined && fault?.extraBytes === undefined)
      response.setHeader('content-length', fault?.length ?? bytes.length);
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    const { cutAfter, stallAfter, endAfter } = fault ?? {};
    await this.#send(request, response, bytes.subarray(0, cutAfter ?? stallAfter ?? endAfter));
    if (cutAfter !== undefined) response.destroy();
    else if (stallAfter === undefined) response.end();
  }

  async #send(request: IncomingMessage, response: ServerResponse, bytes: Buffer): Promise<void> {
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#atOnce);
    const piece = this.rate === Infinity ? 64 * 1024 : Math.max(1024, Math.floor(this.rate / 100));
    try {
      response.flushHeaders();
      for (let at = 0; at < bytes.length && !request.socket.destroyed; at += piece) {
        await new Promise((resolve) => response.write(bytes.subarray(at, at + piece), resolve));
        if (this.rate !== Infinity) await sleep(10);
      }
    } finally {
      this.#atOnce--;
    }
  }

  async #upload(
    request: IncomingMessage,
    response: ServerResponse,
    repository: string,
    rest: string,
    query: URLSearchParams,
    fault: Fault | undefined,
  ): Promise<void> {
    const id = rest.slice('uploads/'.length);
    const before = this.#uploads.get(id);
    if (request.method === 'POST') {
      const [mount, from] = [query.get('mount') as Digest | null, query.get('from')];
      const there = mount === null ? undefined : this.blobs.get(from ?? '')?.get(mount);
      const body = await read(request);
      const single = query.get('digest');
      if (there !== undefined || (single !== null && this.singlePost)) {
        this.putBlob(repository, there ?? body);
        response.writeHead(201).end();
        return;
      }
      this.#accept(response, repository, `u${++this.#states}`, Buffer.alloc(0), 202);
      return;
    }
    if (before === undefined) return fail(response, 404, 'BLOB_UPLOAD_UNKNOWN');
    if (request.method === 'DELETE') {
      this.#uploads.delete(id);
      response.writeHead(204).end();
      return;
    }
    if (request.method === 'GET') return this.#accept(response, repository, id, before, 204);
    let held = before;
    for await (const chunk of request as AsyncIterable<Buffer>) {
      held = Buffer.concat([held, chunk]);
      if (fault?.takeOnly !== undefined && held.length >= fault.takeOnly) {
        this.#uploads.set(id, held.subarray(0, fault.takeOnly));
        request.socket.destroy();
        return;
      }
    }
    // What it has counts, not what the client says.
    if (request.method === 'PATCH') return this.#accept(response, repository, id, held, 202);
    this.#uploads.delete(id);
    if (sha256(held) !== query.get('digest')) return fail(response, 400, 'DIGEST_INVALID');
    this.putBlob(repository, held);
    response.writeHead(201).end();
  }

  /** The place of an upload changes with each answer, as docker-registry's does. */
  #accept(response: ServerResponse, repository: string, id: string, held: Buffer, status: number): void {
    this.#uploads.delete(id);
    const next = `${id.split('.')[0]}.${++this.#states}`;
    this.#uploads.set(next, held);
    response.writeHead(status, {
      location: `http://${this.host}/v2/${repository}/blobs/uploads/${next}?_state=${this.#states}`,
      range: `0-${Math.max(0, held.length - 1)}`,
      'content-length': 0,
    });
    response.end();
  }
}

function fail(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ errors: [{ code, message: `${code} of the test` }] }));
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}
