/** Who asks, and how long: authorization, redirects, pauses; containerd's and go-containerregistry's scenarios as tables. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { parseChallenges } from '../../../src/registry/auth.js';
import { Registry } from '../../../src/registry/registry.js';
import { parseRetryAfter } from '../../../src/registry/transport.js';
import { TestRegistry, type Auth } from '../../support/registry.js';
import { credentialsOf, listener, openRegistry, REPOSITORY, testSettings } from './support.js';

const TYPE = 'application/vnd.oci.image.manifest.v1+json';
const TEXT = JSON.stringify({ schemaVersion: 2, mediaType: TYPE });
const MAX = 1024 * 1024;
const USER = { username: 'me', password: 'secret:with colon' };
const MANIFESTS = /\/manifests\//;

async function withManifest(t: TestContext): Promise<TestRegistry> {
  const server = await TestRegistry.start(t);
  server.putManifest(REPOSITORY, '1', TYPE, TEXT);
  return server;
}

/** Everything an error tells, its causes included. */
function everything(error: unknown): string {
  const parts: string[] = [];
  for (let at = error; at instanceof Error; at = at.cause) parts.push(at.message, at.stack ?? '', JSON.stringify(at));
  return parts.join('\n');
}

describe('who asks a registry', () => {
  const challenges: [header: string, schemes: { scheme: string; parameters: Record<string, string> }[]][] = [
    ['Basic realm="x"', [{ scheme: 'basic', parameters: { realm: 'x' } }]],
    [
      'Bearer realm="https://a/token",service="r, \\"q\\"",scope="repository:x:pull,push"',
      [
        {
          scheme: 'bearer',
          parameters: { realm: 'https://a/token', service: 'r, "q"', scope: 'repository:x:pull,push' },
        },
      ],
    ],
    [
      'Negotiate, BASIC Realm=plain , bearer realm="b"',
      [
        { scheme: 'negotiate', parameters: {} },
        { scheme: 'basic', parameters: { realm: 'plain' } },
        { scheme: 'bearer', parameters: { realm: 'b' } },
      ],
    ],
    ['', []],
    ['"', []],
  ];
  for (const [header, expected] of challenges)
    it(`reads ${JSON.stringify(header)}`, () => assert.deepEqual(parseChallenges(header), expected));

  const cases: {
    name: string;
    auth: Auth;
    credentials: Parameters<typeof credentialsOf>[0];
    /** Authorization schemes of the requests for manifests. */
    schemes: (string | undefined)[];
  }[] = [
    {
      name: 'basic',
      auth: { kind: 'basic', ...USER },
      credentials: USER,
      schemes: [undefined, 'Basic', 'Basic', 'Basic'],
    },
    {
      name: 'a token for a user',
      auth: { kind: 'bearer', ...USER },
      credentials: USER,
      schemes: [undefined, 'Bearer', 'Bearer', 'Bearer'],
    },
    {
      name: 'a token for anybody',
      auth: { kind: 'bearer', ...USER, anonymous: true },
      credentials: undefined,
      schemes: [undefined, 'Bearer', 'Bearer', 'Bearer'],
    },
    {
      name: 'a token by an identity token',
      auth: { kind: 'bearer', ...USER, identityToken: 'long lived' },
      credentials: { identityToken: 'long lived' },
      schemes: [undefined, 'Bearer', 'Bearer', 'Bearer'],
    },
    {
      name: 'a token that ends in the middle',
      auth: { kind: 'bearer', ...USER, tokenUses: 1 },
      credentials: USER,
      schemes: [undefined, 'Bearer', 'Bearer', 'Bearer', 'Bearer', 'Bearer'],
    },
  ];
  for (const { name, auth, credentials, schemes } of cases) {
    it(name, async (t) => {
      const server = await withManifest(t);
      server.auth = auth;
      const source = credentialsOf(credentials);
      const registry = await openRegistry(t, server, 'pull', { credentials: source });
      for (let count = 0; count < 3; count++)
        assert.equal((await registry.manifest('1', MAX, listener())).mediaType, TYPE);
      assert.deepEqual(
        server.asked('GET', MANIFESTS).map(({ authorization }) => authorization?.split(' ')[0]),
        schemes,
      );
      assert.deepEqual(source.hosts, [server.host], 'credentials are asked for once');
    });
  }

  for (const [name, auth, credentials] of [
    ['nobody where a user is wanted', { kind: 'basic', ...USER }, undefined],
    ['a wrong password', { kind: 'basic', ...USER }, { username: 'me', password: 'wrong-secret' }],
    ['a wrong password for a token', { kind: 'bearer', ...USER }, { username: 'me', password: 'wrong-secret' }],
    ['a wrong identity token', { kind: 'bearer', ...USER }, { identityToken: 'wrong-secret' }],
    ['an identity token where none can be used', { kind: 'basic', ...USER }, { identityToken: 'wrong-secret' }],
  ] as const) {
    it(`refuses ${name}, and tells no secret`, async (t) => {
      const server = await withManifest(t);
      server.auth = auth;
      const heard = listener();
      const registry = await openRegistry(t, server, 'pull', { credentials: credentialsOf(credentials) });
      const error: unknown = await registry.manifest('1', MAX, heard).catch((reason: unknown) => reason);
      assert.ok(LayerStoreError.is(error, 'ERR_UNAUTHORIZED'), String(error));
      assert.deepEqual([error.status, error.host, error.registryCode], [401, server.host, 'UNAUTHORIZED']);
      const told = everything(error) + JSON.stringify(heard.pauses);
      for (const secret of ['wrong-secret', Buffer.from('me:wrong-secret').toString('base64')])
        assert.ok(!told.includes(secret), told);
    });
  }

  it('sends credentials to no other host, and follows where a blob is', async (t) => {
    const server = await withManifest(t);
    const storage = await TestRegistry.start(t);
    const bytes = Buffer.from('a blob');
    const digest = server.putBlob(REPOSITORY, bytes);
    storage.putBlob(REPOSITORY, bytes);
    server.auth = { kind: 'basic', ...USER };
    const registry = await openRegistry(t, server, 'pull', { credentials: credentialsOf(USER) });
    await registry.manifest('1', MAX, listener());
    server.faults.push({ path: /\/blobs\//, redirect: (url) => `http://${storage.host}${url}?signature=s3cret` });
    assert.deepEqual(await registry.blob(digest, MAX, listener()), bytes);
    assert.equal(storage.log.length, 1);
    assert.equal(storage.log[0]?.authorization, undefined);
    assert.ok(server.asked('GET', /\/blobs\//)[0]?.authorization !== undefined);

    // A storage that wants to know who asks is not told, and its signature is in no error.
    storage.auth = { kind: 'basic', ...USER };
    server.faults.push({ path: /\/blobs\//, redirect: (url) => `http://${storage.host}${url}?signature=s3cret` });
    const error: unknown = await registry.blob(digest, MAX, listener()).catch((reason: unknown) => reason);
    assert.ok(LayerStoreError.is(error, 'ERR_UNAUTHORIZED'));
    assert.ok(!everything(error).includes('s3cret'));
    assert.deepEqual([...new Set(storage.log.map(({ authorization }) => authorization))], [undefined]);
  });

  it('ends a circle of redirects', async (t) => {
    const server = await withManifest(t);
    server.faults.push({ path: MANIFESTS, times: 100, redirect: (url) => url });
    const registry = await openRegistry(t, server, 'pull');
    await assert.rejects(registry.manifest('1', MAX, listener()), { code: 'ERR_REGISTRY', message: /redirects more/ });
  });
});

describe('how long a registry is asked', () => {
  const shapes: [header: string | undefined, seconds: number | undefined][] = [
    [undefined, undefined],
    ['', undefined],
    ['7', 7],
    [' 0 ', 0],
    ['1.5', 1.5],
    ['soon', undefined],
    ['-5', undefined],
    [new Date(Date.now() - 5000).toUTCString(), 0],
  ];
  for (const [header, seconds] of shapes)
    it(`takes Retry-After ${JSON.stringify(header)} as ${seconds}`, () =>
      assert.equal(parseRetryAfter(header), seconds));
  it('takes a date', () => {
    const wait = parseRetryAfter(new Date(Date.now() + 30_000).toUTCString());
    assert.ok(wait !== undefined && wait > 27 && wait <= 30, String(wait));
  });

  it('tells each pause, and that of Retry-After is obeyed', async (t) => {
    const server = await withManifest(t);
    const body = JSON.stringify({ errors: [{ code: 'TOOMANYREQUESTS', message: 'slow down' }] });
    server.faults.push({ path: MANIFESTS, answer: { status: 429, headers: { 'retry-after': '0.05' }, body } });
    server.faults.push({ path: MANIFESTS, answer: { status: 503 } });
    const heard = listener();
    const registry = await openRegistry(t, server, 'pull');
    await registry.manifest('1', MAX, heard);
    assert.equal(heard.pauses[0]?.inMs, 50);
    assert.match(heard.pauses[0]?.reason ?? '', /too many requests.*slow down/);
    assert.equal(heard.pauses.length, 2);
  });

  it('says at once when it would take too long', async (t) => {
    const server = await withManifest(t);
    const body = JSON.stringify({ errors: [{ code: 'TOOMANYREQUESTS', message: '' }] });
    const date = new Date(Date.now() + 3_600_000).toUTCString();
    server.faults.push({ path: MANIFESTS, answer: { status: 429, headers: { 'retry-after': date }, body } });
    const registry = await openRegistry(t, server, 'pull');
    const error: unknown = await registry.manifest('1', MAX, listener()).catch((reason: unknown) => reason);
    assert.ok(LayerStoreError.is(error, 'ERR_REGISTRY'));
    assert.deepEqual([error.status, error.registryCode, error.host], [429, 'TOOMANYREQUESTS', server.host]);
    assert.ok(error.retryAfter !== undefined && error.retryAfter > 3500);
    assert.equal(server.log.length, 1);
  });

  it('gives up after the tries that it has', async (t) => {
    const server = await withManifest(t);
    server.faults.push({ path: MANIFESTS, times: 100, answer: { status: 500 } });
    const registry = await openRegistry(t, server, 'pull', { retries: 2 });
    await assert.rejects(registry.manifest('1', MAX, listener()), { code: 'ERR_REGISTRY', status: 500 });
    assert.equal(server.log.length, 3);
  });

  it('stops in the middle of a pause', async (t) => {
    const server = await withManifest(t);
    server.faults.push({ path: MANIFESTS, answer: { status: 429, headers: { 'retry-after': '50' } } });
    const controller = new AbortController();
    const reason = new Error('enough');
    const heard = { ...listener(controller.signal), onRetry: () => controller.abort(reason) };
    const registry = await openRegistry(t, server, 'pull');
    await assert.rejects(registry.manifest('1', MAX, heard), reason);
  });
});

describe('manifests', () => {
  it('of an image that is not there', async (t) => {
    const server = await withManifest(t);
    const registry = await openRegistry(t, server, 'pull');
    await assert.rejects(registry.manifest('2', MAX, listener()), {
      code: 'ERR_IMAGE_DOES_NOT_EXIST',
      status: 404,
      registryCode: 'MANIFEST_UNKNOWN',
      message: /"team\/app:2"/,
    });
  });

  it('are checked against the digest that was asked for, and the one that is claimed', async (t) => {
    const server = await withManifest(t);
    const digest = server.putManifest(REPOSITORY, 'other', TYPE, `${TEXT} `);
    server.manifests.get(REPOSITORY)?.set(digest, { bytes: Buffer.from(TEXT), mediaType: TYPE });
    const registry = await openRegistry(t, server, 'pull');
    await assert.rejects(registry.manifest(digest, MAX, listener()), { code: 'ERR_DIGEST_MISMATCH' });
    server.faults.push({
      path: MANIFESTS,
      answer: { status: 200, headers: { 'content-type': TYPE, 'docker-content-digest': digest }, body: TEXT },
    });
    await assert.rejects(registry.manifest('1', MAX, listener()), { code: 'ERR_DIGEST_MISMATCH' });
  });

  it('have a limit, and a schema of after 2016', async (t) => {
    const server = await withManifest(t);
    const registry = await openRegistry(t, server, 'pull');
    await assert.rejects(registry.manifest('1', 10, listener()), { code: 'ERR_LIMIT_EXCEEDED' });
    const type = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
    server.putManifest(REPOSITORY, 'old', type, '{"schemaVersion":1}');
    await assert.rejects(registry.manifest('old', MAX, listener()), { code: 'ERR_NOT_SUPPORTED', message: /schema 1/ });
  });

  it('come from a mirror, and from the host where that fails', async (t) => {
    const server = await withManifest(t);
    const mirror = await withManifest(t);
    const hosts = {
      [server.host]: { plainHTTP: true, mirrors: ['127.0.0.1:1', mirror.host] },
      [mirror.host]: { plainHTTP: true },
    };
    for (const [name, prepare] of [
      ['', () => undefined],
      ['no such image there', () => mirror.manifests.clear()],
    ] as const) {
      prepare();
      const registry = await openRegistry(t, server, 'pull', { hosts });
      await registry.manifest('1', MAX, listener());
      assert.equal(server.log.length, name === '' ? 0 : 1, name);
    }
    assert.match(mirror.log[0]?.url ?? '', /ns=127/, 'a mirror is told whose image is meant');
    server.manifests.clear();
    const registry = await openRegistry(t, server, 'pull', { hosts });
    await assert.rejects(registry.manifest('1', MAX, listener()), {
      code: 'ERR_IMAGE_DOES_NOT_EXIST',
      message: /before that: .*127\.0\.0\.1:1.*/,
    });
  });

  it('of a loopback host without settings come without TLS', async (t) => {
    const server = await withManifest(t);
    const location = { host: server.host, path: REPOSITORY };
    await using registry = await Registry.open(location, testSettings(), 'pull');
    assert.equal((await registry.manifest('1', MAX, listener())).mediaType, TYPE);
  });
});
