/**
 * Credentials that podman and Docker keep: containers' auth.json and Docker's config.json, with credential helpers.
 * Sources: containers-auth.json(5); docker-cli, "Credential stores" and "Credential helpers"; the protocol of
 * `docker-credential-*`: https://github.com/docker/docker-credential-helpers.
 */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { DOCKER_HUB } from './reference.js';
import type { RegistryCredentials } from './types.js';

/** Asks for what is known of `host` (`docker.io`, `localhost:5000`) and the repository there. */
export type CredentialSource = (host: string, repository: string) => Promise<RegistryCredentials | undefined>;

const HELPER_TIMEOUT_MS = 30_000;
const HELPER_MAX_OUTPUT = 64 * 1024;
/** Docker Hub's key since before repositories had hosts. */
const HUB_KEY = 'https://index.docker.io/v1/';

interface AuthFile {
  readonly auths: Readonly<Record<string, { auth?: unknown; identitytoken?: unknown }>>;
  readonly credHelpers: Readonly<Record<string, unknown>>;
  readonly credsStore: unknown;
}

export function fileCredentials(env: NodeJS.ProcessEnv): CredentialSource {
  return async (host, repository) => {
    for (const path of authFiles(env)) {
      const file = await readAuthFile(path);
      const found = file === undefined ? undefined : await find(file, path, host, repository, env);
      if (found !== undefined) return found;
    }
    return undefined;
  };
}

/** In podman's order; a file that the user named stands alone. */
function authFiles(env: NodeJS.ProcessEnv): string[] {
  const named = env['REGISTRY_AUTH_FILE'];
  if (named !== undefined && named !== '') return [named];
  const home = env['HOME'] ?? homedir();
  const runtime = env['XDG_RUNTIME_DIR'] ?? `/run/containers/${process.getuid?.() ?? 0}`;
  const runtimeFile = env['XDG_RUNTIME_DIR'] === undefined ? 'auth.json' : join('containers', 'auth.json');
  return [
    join(runtime, runtimeFile),
    join(env['XDG_CONFIG_HOME'] ?? join(home, '.config'), 'containers', 'auth.json'),
    join(env['DOCKER_CONFIG'] ?? join(home, '.docker'), 'config.json'),
  ];
}

async function readAuthFile(path: string): Promise<AuthFile | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw systemError(error, 'read the credentials', 'see to its permissions, or set REGISTRY_AUTH_FILE');
  }
  try {
    const value = JSON.parse(text) as Partial<AuthFile> | null;
    return { auths: value?.auths ?? {}, credHelpers: value?.credHelpers ?? {}, credsStore: value?.credsStore };
  } catch {
    // The parser's own message may quote a secret.
    throw invalidArgument(`"${path}" is no JSON; mend it, or log in again`);
  }
}

async function find(
  file: AuthFile,
  path: string,
  host: string,
  repository: string,
  env: NodeJS.ProcessEnv,
): Promise<RegistryCredentials | undefined> {
  const keys = host === DOCKER_HUB ? [HUB_KEY, 'index.docker.io', DOCKER_HUB] : [host];
  for (const key of keys) {
    const helper = Object.hasOwn(file.credHelpers, key) ? file.credHelpers[key] : undefined;
    if (typeof helper === 'string' && helper !== '')
      return askHelper(helper, host === DOCKER_HUB ? HUB_KEY : host, env);
  }
  if (typeof file.credsStore === 'string' && file.credsStore !== '') {
    const found = await askHelper(file.credsStore, host === DOCKER_HUB ? HUB_KEY : host, env);
    if (found !== undefined) return found;
  }
  const entries = Object.entries(file.auths);
  // The most specific first: `quay.io/team/app`, `quay.io/team`, `quay.io`.
  const parts = repository.split('/');
  const scoped = parts.map((_, index) => `${host}/${parts.slice(0, parts.length - index).join('/')}`);
  for (const wanted of [...scoped, ...keys]) {
    const entry = entries.find(([key]) => key === wanted || plainKey(key) === wanted)?.[1];
    if (entry !== undefined) return decode(entry, path);
  }
  return undefined;
}

/** Old files have URLs as keys. Hub's is looked up as it is. */
function plainKey(key: string): string {
  if (!key.includes('://')) return key;
  return key.replace(/^https?:\/\//, '').replace(/\/(?:v[12]\/?)?$/, '');
}

function decode(entry: { auth?: unknown; identitytoken?: unknown }, path: string): RegistryCredentials | undefined {
  if (typeof entry.identitytoken === 'string' && entry.identitytoken !== '')
    return { identityToken: entry.identitytoken };
  if (typeof entry.auth !== 'string' || entry.auth === '') return undefined;
  const text = Buffer.from(entry.auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 1) throw invalidArgument(`an "auth" of "${path}" is not base64 of USER:PASSWORD; log in again`);
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') };
}

/** Runs `docker-credential-NAME get`. Undefined where it has nothing for the host. */
async function askHelper(
  name: string,
  server: string,
  env: NodeJS.ProcessEnv,
): Promise<RegistryCredentials | undefined> {
  const fail = (why: string, cause?: unknown): LayerStoreError =>
    new LayerStoreError(
      'ERR_UNAUTHORIZED',
      `cannot ask the credential helper "docker-credential-${name}" about ${server}: ${why}`,
      { cause },
    );
  // It is looked for in PATH; a name with a slash would be a path.
  if (!/^[A-Za-z0-9_.-]{1,100}$/.test(name)) throw fail('its name in the configuration is not a plain word');
  const child = spawn(`docker-credential-${name}`, ['get'], {
    env,
    stdio: ['pipe', 'pipe', 'ignore'],
    timeout: HELPER_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  child.stdin.on('error', () => undefined); // one that does not read its input tells by its exit code
  child.stdin.end(`${server}\n`);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    if (output.length > HELPER_MAX_OUTPUT) child.kill('SIGKILL');
  });
  const exit = await new Promise<number | null>((resolve, reject) => {
    child.once('error', (error) =>
      reject(fail((error as NodeJS.ErrnoException).code ?? 'it cannot be started', error)),
    );
    child.once('close', (code) => resolve(code));
  });
  if (exit !== 0) {
    if (/not found|no credentials/i.test(output)) return undefined;
    throw fail(exit === null ? 'it did not end in time' : `it ended with status ${exit}`);
  }
  let answer: { Username?: unknown; Secret?: unknown };
  try {
    answer = JSON.parse(output) as typeof answer;
  } catch {
    throw fail('its answer is no JSON'); // which is not quoted: it may be the secret
  }
  const { Username: username, Secret: secret } = answer;
  if (typeof username !== 'string' || typeof secret !== 'string')
    throw fail('its answer has no "Username" and "Secret"');
  // The protocol's word for "the secret is an identity token".
  return username === '<token>' ? { identityToken: secret } : { username, password: secret };
}
