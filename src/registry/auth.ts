/**
 * Who we are to a registry: nobody, a user by basic authentication, or the bearer of a token with a scope and an end.
 * Sources: distribution, docs/spec/auth (token, oauth, scope); RFC 9110, 11.6.1 for challenges.
 */
import { LayerStoreError } from '../errors.js';
import type { CredentialSource } from './credentials.js';
import { answerError, registryError } from './errors.js';
import type { Endpoint } from './hosts.js';
import type { RegistryCredentials } from './types.js';
import { defined } from '../util/defined.js';

export interface Challenge {
  /** In lower case: `basic`, `bearer`. */
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

/** Every challenge of `WWW-Authenticate`, which may come once or several times. What is malformed is left out. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  const token = /[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/y;
  for (let found = token.exec(header); found !== null && found[0] !== ''; found = token.exec(header)) {
    const [, name = '', quoted, plain] = found;
    const value = quoted?.replaceAll(/\\(.)/g, '$1') ?? plain;
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), parameters: {} });
    else (challenges.at(-1)?.parameters ?? {})[name.toLowerCase()] = value;
  }
  return challenges;
}

/** A request for a token. It goes out without anybody's authorization but the one in `headers`. */
export interface TokenRequest {
  readonly url: URL;
  readonly method: 'GET' | 'POST';
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  readonly endpoint: Endpoint;
}
export type TokenSender = (
  request: TokenRequest,
  signal: AbortSignal | undefined,
) => Promise<{ status: number; body: string; retryAfter: number | undefined }>;

interface Token {
  readonly header: string;
  /** Milliseconds of the monotonic clock. */
  readonly expires: number;
}

/** What the token specification says where a server does not. */
const DEFAULT_LIFE_S = 60;
const CLIENT_ID = 'layerstore';

/** The authorization of every request of one pull or push. Nothing of it is in a message or in an error. */
export class Authenticator {
  readonly #credentials: CredentialSource;
  readonly #repository: string;
  readonly #send: TokenSender;
  readonly #known = new Map<string, Promise<RegistryCredentials | undefined>>();
  /** By endpoint: how it wants to be asked, once it said so. */
  readonly #challenges = new Map<Endpoint, Challenge>();
  /** By endpoint and scope. */
  readonly #tokens = new Map<string, Promise<Token>>();

  constructor(credentials: CredentialSource, repository: string, send: TokenSender) {
    this.#credentials = credentials;
    this.#repository = repository;
    this.#send = send;
  }

  /** The header to send; undefined as long as the endpoint asked for none. */
  async header(endpoint: Endpoint, scope: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const challenge = this.#challenges.get(endpoint);
    if (challenge === undefined) return undefined;
    if (challenge.scheme === 'basic') return this.#basic(endpoint);
    const token = await this.#token(endpoint, challenge, scope, signal);
    if (token.expires > performance.now()) return token.header;
    this.#tokens.delete(key(endpoint, scope));
    return (await this.#token(endpoint, challenge, scope, signal)).header;
  }

  /** After a 401 on `used`: another header to try, or undefined where there is none. */
  async renew(
    endpoint: Endpoint,
    scope: string,
    challenges: readonly Challenge[],
    used: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> {
    const challenge =
      challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters['realm'] !== undefined) ??
      challenges.find(({ scheme }) => scheme === 'basic');
    if (challenge === undefined) return undefined;
    this.#challenges.set(endpoint, challenge);
    if (challenge.scheme === 'bearer' && used !== undefined) {
      const cached = await this.#tokens.get(key(endpoint, scope));
      // A request beside this one may have renewed it already.
      if (cached?.header === used) this.#tokens.delete(key(endpoint, scope));
    }
    const header = await this.header(endpoint, scope, signal);
    return header === used ? undefined : header;
  }

  async #basic(endpoint: Endpoint): Promise<string | undefined> {
    const known = await this.#credentialsOf(endpoint);
    return known !== undefined && 'username' in known ? basicHeader(known) : undefined;
  }

  #credentialsOf({ host }: Endpoint): Promise<RegistryCredentials | undefined> {
    let known = this.#known.get(host);
    if (known === undefined) this.#known.set(host, (known = this.#credentials(host, this.#repository)));
    return known;
  }

  #token(endpoint: Endpoint, challenge: Challenge, scope: string, signal: AbortSignal | undefined): Promise<Token> {
    const name = key(endpoint, scope);
    let token = this.#tokens.get(name);
    if (token === undefined) {
      this.#tokens.set(name, (token = this.#fetchToken(endpoint, challenge, scope, signal)));
      token.catch(() => this.#tokens.delete(name)); // whoever waits hears of it
    }
    return token;
  }

  async #fetchToken(
    endpoint: Endpoint,
    { parameters }: Challenge,
    scope: string,
    signal: AbortSignal | undefined,
  ): Promise<Token> {
    const { host } = endpoint;
    const realm = URL.canParse(parameters['realm'] ?? '') ? new URL(parameters['realm'] ?? '') : undefined;
    if (realm === undefined || !/^https?:$/.test(realm.protocol))
      throw registryError(`${host} names a token server that is no URL`, { host });
    const credentials = await this.#credentialsOf(endpoint);
    if (credentials !== undefined && realm.protocol === 'http:' && endpoint.base.protocol === 'https:') {
      throw new LayerStoreError(
        'ERR_UNAUTHORIZED',
        `${host} names a token server without TLS (${realm.host}); credentials are not sent there`,
        { host },
      );
    }
    const service = parameters['service'];
    const scopes = [...new Set([...scope.split(' '), ...(parameters['scope'] ?? '').split(' ')])].filter(Boolean);
    const answer = await this.#send(tokenRequest(endpoint, realm, service, scopes, credentials), signal);
    if (answer.status !== 200)
      throw answerError(`get a token for ${scopes.join(' ')} from ${realm.host}`, { host, ...answer });
    return readToken(answer.body, realm.host, host);
  }
}

function key(endpoint: Endpoint, scope: string): string {
  return `${endpoint.base.href} ${scope}`;
}

function basicHeader({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function tokenRequest(
  endpoint: Endpoint,
  realm: URL,
  service: string | undefined,
  scopes: readonly string[],
  credentials: RegistryCredentials | undefined,
): TokenRequest {
  if (credentials !== undefined && 'identityToken' in credentials) {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: credentials.identityToken,
      client_id: CLIENT_ID,
      scope: scopes.join(' '),
      ...defined({ service }),
    });
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { endpoint, url: realm, method: 'POST', headers, body: form.toString() };
  }
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  const headers: Record<string, string> = credentials === undefined ? {} : { authorization: basicHeader(credentials) };
  return { endpoint, url, method: 'GET', headers, body: undefined };
}

function readToken(body: string, server: string, host: string): Token {
  let answer: { token?: unknown; access_token?: unknown; expires_in?: unknown } | null;
  try {
    answer = JSON.parse(body) as typeof answer;
  } catch {
    answer = null; // not quoted in the message: it may hold the token
  }
  const token = answer?.token ?? answer?.access_token;
  if (typeof token !== 'string' || token === '' || /[^\x21-\x7e]/.test(token))
    throw registryError(`the token server ${server} answers without a token`, { host });
  const life = typeof answer?.expires_in === 'number' && answer.expires_in > 0 ? answer.expires_in : DEFAULT_LIFE_S;
  // Used to nine tenths, so that it does not end on its way.
  return { header: `Bearer ${token}`, expires: performance.now() + life * 900 };
}
