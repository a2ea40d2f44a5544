/** Debian's docker-registry on loopback: without and with TLS, users, tokens. Each has a directory and a port of its own. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { createHash, createSign, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { tempDir } from '../support/temp.js';

export const USER = { username: 'me', password: 'secret' };

export interface Server {
  readonly host: string;
  /** PEM of the authority that signed its certificate. */
  readonly ca: string | undefined;
  /** Ends it and begins it again on the same port and data. */
  restart(): Promise<void>;
}

export async function startServer(t: TestContext, kind: 'plain' | 'users' | 'tokens' | 'tls'): Promise<Server> {
  const directory = tempDir(t, 'docker-registry');
  const port = await freePort();
  const lines = [
    'version: 0.1',
    'log: { level: error, accesslog: { disabled: true } }',
    `storage: { filesystem: { rootdirectory: ${join(directory, 'data')} }, delete: { enabled: true } }`,
  ];
  let tls = '';
  let ca: string | undefined;
  if (kind === 'tls' || kind === 'tokens') ca = makeAuthority(directory);
  if (kind === 'tls') tls = `, tls: { certificate: ${directory}/server.crt, key: ${directory}/server.key }`;
  lines.push(`http: { addr: "127.0.0.1:${port}"${tls} }`);
  if (kind === 'users') {
    const users = join(directory, 'htpasswd');
    writeFileSync(users, execFileSync('htpasswd', ['-Bbn', USER.username, USER.password]));
    lines.push(`auth: { htpasswd: { realm: test, path: ${users} } }`);
  }
  if (kind === 'tokens') {
    const realm = await startTokenServer(t, directory);
    lines.push(
      `auth: { token: { realm: "${realm}", service: test, issuer: tester, rootcertbundle: ${directory}/token.crt } }`,
    );
  }
  const config = join(directory, 'config.yml');
  writeFileSync(config, lines.join('\n'));
  let child = await run(config, port);
  t.after(() => end(child));
  return {
    host: `127.0.0.1:${port}`,
    ca: kind === 'tls' ? ca : undefined,
    restart: async () => {
      await end(child);
      child = await run(config, port);
    },
  };
}

async function run(config: string, port: number): Promise<ChildProcess> {
  const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
  for (let waits = 0; waits < 300; waits++) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended with status ${child.exitCode}`);
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (open) return child;
    await sleep(100);
  }
  throw new Error('docker-registry does not listen');
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** An authority, and a certificate of it for loopback. */
function makeAuthority(directory: string): string {
  const openssl = (...args: string[]): Buffer =>
    execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'pipe', 'ignore'] });
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-days',
    '2',
    '-subj',
    '/CN=test authority',
  );
  openssl(
    'req',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'server.key',
    '-out',
    'server.csr',
    '-subj',
    '/CN=localhost',
  );
  writeFileSync(join(directory, 'names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  openssl(
    'x509',
    '-req',
    '-in',
    'server.csr',
    '-CA',
    'ca.crt',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    'names',
    '-out',
    'server.crt',
  );
  return readFileSync(join(directory, 'ca.crt'), 'utf8');
}

/** Gives whoever names the user what was asked for: a token of RS256 whose certificate is in its header, as the registry wants it. */
async function startTokenServer(t: TestContext, directory: string): Promise<string> {
  const openssl = (...args: string[]): Buffer =>
    execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'pipe', 'ignore'] });
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  writeFileSync(join(directory, 'token.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
  openssl('req', '-x509', '-key', 'token.key', '-out', 'token.crt', '-days', '2', '-subj', '/CN=tester');
  const certificate = openssl('x509', '-in', 'token.crt', '-outform', 'DER').toString('base64');
  const expected = `Basic ${Buffer.from(`${USER.username}:${USER.password}`).toString('base64')}`;
  const server = createServer((request, response) => {
    const query = new URL(request.url ?? '/', 'http://token').searchParams;
    if (request.headers.authorization !== expected) {
      response.writeHead(401).end();
      return;
    }
    const access = query
      .getAll('scope')
      .flatMap((scopes) => scopes.split(' '))
      .filter(Boolean)
      .map((scope) => {
        const [type, name, actions = ''] = scope.split(':');
        return { type, name, actions: actions.split(',') };
      });
    // Short, so that a pull outlives one.
    response.end(JSON.stringify({ token: sign(privateKey, certificate, access, 60), expires_in: 1 }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
}

function sign(key: KeyObject, certificate: string, access: object[], seconds: number): string {
  const now = Math.floor(Date.now() / 1000);
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = {
    iss: 'tester',
    aud: 'test',
    sub: USER.username,
    iat: now,
    nbf: now - 5,
    exp: now + seconds,
    jti: createHash('sha256').update(String(Math.random())).digest('hex'),
    access,
  };
  const text = `${encode({ typ: 'JWT', alg: 'RS256', x5c: [certificate] })}.${encode(claims)}`;
  return `${text}.${createSign('RSA-SHA256').update(text).sign(key).toString('base64url')}`;
}
