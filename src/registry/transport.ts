/**
 * One request to a registry until there is an answer: authorization, redirects, further tries with growing pauses.
 * Credentials go to the host that asked for them alone; a redirect to another one drops them.
 */
import { rootCertificates } from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import type * as undici from 'undici';
import { LayerStoreError } from '../errors.js';
import { Authenticator, parseChallenges, type TokenRequest } from './auth.js';
import type { CredentialSource } from './credentials.js';
import { answerError, connectionError, isPermanent, registryError } from './errors.js';
import type { Endpoint, TlsSettings } from './hosts.js';
import { defined } from '../util/defined.js';

export type Body = Uint8Array | AsyncIterable<Uint8Array>;

export interface Call {
  readonly endpoint: Endpoint;
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Asked for anew at each try. */
  readonly body: (() => Body) | undefined;
  /** What the token must allow: `repository:library/debian:pull`; several with a blank between. */
  readonly scope: string;
  /** What is tried, for messages: `read the manifest of "debian:12"`. */
  readonly action: string;
  /** Further tries. */
  readonly retries: number;
  readonly signal: AbortSignal | undefined;
  /** Told before each pause. */
  readonly onRetry: (wait: { inMs: number; reason: string }) => void;
}

/** An answer of any status but those that are tried again. Its body must be read or dumped. */
export interface Answer {
  readonly status: number;
  /** Names in lower case; of one that comes several times, all with commas between. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Where it came from, after redirects. */
  readonly url: URL;
  readonly body: undici.Dispatcher.ResponseData['body'];
}

export interface TransportOptions {
  readonly noProgressTimeout: number;
  /** The first pause; each further one is twice as long. */
  readonly backoffMs: number;
}

const MAX_REDIRECTS = 10;
const MAX_PAUSE_MS = 10_000;
/** A registry that wants longer pauses is not waited for. */
const MAX_RETRY_AFTER_S = 60;
const TRANSIENT = new Set([408, 429, 500, 502, 503, 504]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_ERROR_BODY = 64 * 1024;
const TOKEN_RETRIES = 2;
const USER_AGENT = 'layerstore';

type Undici = typeof undici;

/** The connections of one pull or push. */
export class Transport implements AsyncDisposable {
  readonly #undici: Undici;
  readonly #options: TransportOptions;
  readonly #authenticator: Authenticator;
  /** By TLS settings. */
  readonly #dispatchers = new Map<string, undici.Dispatcher>();

  private constructor(library: Undici, credentials: CredentialSource, repository: string, options: TransportOptions) {
    this.#undici = library;
    this.#options = options;
    this.#authenticator = new Authenticator(credentials, repository, (request, signal) =>
      this.#sendForToken(request, signal),
    );
  }

  static async open(credentials: CredentialSource, repository: string, options: TransportOptions): Promise<Transport> {
    return new Transport(await import('undici'), credentials, repository, options);
  }

  /** ERR_REGISTRY where there is no answer, or only ones that are worth another try until the last; ERR_UNAUTHORIZED. */
  async send(call: Call): Promise<Answer> {
    return this.#persist(call, () => this.#authorized(call));
  }

  async #persist(call: Call, attempt: () => Promise<Answer>): Promise<Answer> {
    for (let failures = 0; ; failures++) {
      const outcome = await this.#try(call, attempt);
      if (!(outcome instanceof LayerStoreError)) return outcome;
      const last = outcome.cause !== undefined && isPermanent(outcome.cause);
      if (last || failures >= call.retries || (outcome.retryAfter ?? 0) > MAX_RETRY_AFTER_S) throw outcome;
      await this.pause(call, failures, outcome);
    }
  }

  /** Waits as long as `failure` says, else longer with each failure. */
  async pause(call: Pick<Call, 'signal' | 'onRetry'>, failures: number, failure: LayerStoreError): Promise<void> {
    const { retryAfter } = failure;
    const growing = Math.min(MAX_PAUSE_MS, this.#options.backoffMs * 2 ** failures) * (0.5 + Math.random() / 2);
    const inMs = Math.round(retryAfter === undefined ? growing : retryAfter * 1000);
    call.onRetry({ inMs, reason: failure.message });
    try {
      await sleep(inMs, undefined, defined({ signal: call.signal }));
    } catch (error) {
      call.signal?.throwIfAborted();
      throw error;
    }
  }

  /** What a failed answer means; reads its body. */
  async failure(answer: Answer, { action, endpoint }: Pick<Call, 'action' | 'endpoint'>): Promise<LayerStoreError> {
    return answerError(action, {
      host: endpoint.host,
      status: answer.status,
      body: await readText(answer.body, MAX_ERROR_BODY),
      retryAfter: parseRetryAfter(answer.headers['retry-after']),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#dispatchers.values()].map((dispatcher) => dispatcher.destroy()));
  }

  /** One try: an answer, or an error that may be worth another. What is none throws. */
  async #try(call: Call, attempt: () => Promise<Answer>): Promise<Answer | LayerStoreError> {
    call.signal?.throwIfAborted();
    let answer: Answer;
    try {
      answer = await attempt();
    } catch (error) {
      call.signal?.throwIfAborted();
      if (error instanceof LayerStoreError) throw error;
      return connectionError(call.action, call.endpoint.host, error);
    }
    return TRANSIENT.has(answer.status) ? this.failure(answer, call) : answer;
  }

  async #authorized(call: Call): Promise<Answer> {
    const { endpoint, scope, signal } = call;
    const used = await this.#authenticator.header(endpoint, scope, signal);
    const answer = await this.#follow(call, endpoint.base.origin, used);
    if (answer.status !== 401 || answer.url.origin !== endpoint.base.origin) return answer;
    const challenges = parseChallenges(answer.headers['www-authenticate'] ?? '');
    const renewed = await this.#authenticator.renew(endpoint, scope, challenges, used, signal);
    if (renewed === undefined) return answer;
    await answer.body.dump();
    return this.#follow(call, endpoint.base.origin, renewed);
  }

  /** @param origin the only one that sees `authorization` and the endpoint's own headers */
  async #follow(call: Call, origin: string, authorization: string | undefined): Promise<Answer> {
    const { endpoint } = call;
    let { url, method, body } = call;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const own = url.origin === origin;
      const headers: Record<string, string> = {
        'user-agent': USER_AGENT,
        ...(own ? endpoint.headers : {}),
        ...call.headers,
        ...(own && authorization !== undefined ? { authorization } : {}),
      };
      // Nothing that proves who we are leaves for another host, also no certificate.
      const tls = own ? endpoint.tls : { ...endpoint.tls, client: [], skipVerify: false };
      const answer = await this.#request(url, method, headers, body?.(), tls, call.signal);
      const location = answer.headers['location'];
      if (!REDIRECTS.has(answer.status) || location === undefined) return answer;
      await answer.body.dump();
      if (!URL.canParse(location, url.href) || !/^https?:$/.test(new URL(location, url).protocol))
        throw registryError(`cannot ${call.action}: ${endpoint.host} redirects to something that is no URL`, {
          host: endpoint.host,
          status: answer.status,
        });
      url = new URL(location, url);
      if (answer.status === 303) [method, body] = ['GET', undefined];
    }
    throw registryError(`cannot ${call.action}: ${endpoint.host} redirects more than ${MAX_REDIRECTS} times`, {
      host: endpoint.host,
    });
  }

  async #request(
    url: URL,
    method: Call['method'],
    headers: Record<string, string>,
    body: Body | undefined,
    tls: TlsSettings,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const { noProgressTimeout } = this.#options;
    const streams = body !== undefined && !(body instanceof Uint8Array);
    // undici counts the time until the answer from the request's beginning, also while a body is sent: a watch of our own then.
    using watch = streams ? watchBody(body, noProgressTimeout, signal) : undefined;
    const given = watch?.signal ?? signal;
    const response = await this.#undici.request(url, {
      method,
      headers,
      ...(body === undefined ? {} : { body: (watch?.body ?? body) as Uint8Array }),
      dispatcher: this.#dispatcher(tls),
      headersTimeout: streams ? 0 : noProgressTimeout,
      bodyTimeout: noProgressTimeout,
      ...defined({ signal: given }),
    });
    const lower: Record<string, string | undefined> = {};
    for (const [name, value] of Object.entries(response.headers))
      lower[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
    // A body that is given up ends with an error that nobody waits for; whoever reads one hears of its own.
    response.body.on('error', () => undefined);
    return { status: response.statusCode, headers: lower, url, body: response.body };
  }

  #dispatcher(tls: TlsSettings): undici.Dispatcher {
    const name = JSON.stringify(tls);
    const before = this.#dispatchers.get(name);
    if (before !== undefined) return before;
    const connect = {
      timeout: this.#options.noProgressTimeout,
      ...(tls.ca.length === 0 ? {} : { ca: [...rootCertificates, ...tls.ca] }),
      ...(tls.client.length === 0
        ? {}
        : { cert: tls.client.map(({ cert }) => cert), key: tls.client.map(({ key }) => key) }),
      rejectUnauthorized: !tls.skipVerify,
    };
    const dispatcher = new this.#undici.EnvHttpProxyAgent({ connect, requestTls: connect, allowH2: false });
    this.#dispatchers.set(name, dispatcher);
    return dispatcher;
  }

  async #sendForToken(
    request: TokenRequest,
    signal: AbortSignal | undefined,
  ): Promise<{ status: number; body: string; retryAfter: number | undefined }> {
    const { url, method, headers, body, endpoint } = request;
    const { authorization, ...others } = headers;
    const call: Call = {
      endpoint: { ...endpoint, headers: {} },
      url,
      method,
      headers: others,
      body: body === undefined ? undefined : () => Buffer.from(body),
      scope: '',
      action: `get a token from ${url.host}`,
      retries: TOKEN_RETRIES,
      signal,
      onRetry: () => undefined,
    };
    const answer = await this.#persist(call, () => this.#follow(call, url.origin, authorization));
    return {
      status: answer.status,
      body: await readText(answer.body, 1024 * 1024),
      retryAfter: parseRetryAfter(answer.headers['retry-after']),
    };
  }
}

/** Seconds: as they are, or until an HTTP date. Undefined where nothing, or nothing that can be read, was said. */
export function parseRetryAfter(header: string | undefined): number | undefined {
  const text = header?.trim() ?? '';
  if (/^[0-9]{1,9}(?:\.[0-9]+)?$/.test(text)) return Number(text);
  // A date of HTTP begins with the day of the week.
  const date = /^[A-Z][a-z]{2}/.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}

/** At most `limit` bytes of a body as text; the rest is not waited for, and neither is one that breaks. */
async function readText(body: Answer['body'], limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length >= limit) break;
    }
  } catch {
    // What came is enough for a message.
  }
  return Buffer.concat(chunks).subarray(0, limit).toString('utf8');
}

/** A whole body of at most `limit` bytes. */
export async function readAll(body: Answer['body'], limit: number): Promise<Buffer | 'too long'> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > limit) return 'too long';
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** A registry may store a large blob elsewhere before it answers. */
const ANSWER_PATIENCE = 10;

/** Ends a request whose body nobody has taken a chunk of for `timeout`, or whose answer does not come. */
function watchBody(
  body: AsyncIterable<Uint8Array>,
  timeout: number,
  signal: AbortSignal | undefined,
): { body: AsyncIterable<Uint8Array>; signal: AbortSignal; [Symbol.dispose](): void } {
  const stalled = new AbortController();
  let last = performance.now();
  let patience = timeout;
  const timer = setInterval(
    () => {
      if (performance.now() - last > patience)
        stalled.abort(Object.assign(new Error('no byte was taken for too long'), { code: 'ETIMEDOUT' }));
    },
    Math.max(10, timeout / 4),
  );
  timer.unref();
  async function* watched(): AsyncGenerator<Uint8Array> {
    for await (const chunk of body) {
      last = performance.now();
      yield chunk;
    }
    last = performance.now();
    patience = timeout * ANSWER_PATIENCE;
  }
  return {
    body: watched(),
    signal: signal === undefined ? stalled.signal : AbortSignal.any([signal, stalled.signal]),
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
