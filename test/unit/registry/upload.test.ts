/** A blob on its way up, whatever breaks. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { sha256, TestRegistry, type Fault } from '../../support/registry.js';
import { credentialsOf, listener, openRegistry, REPOSITORY } from './support.js';

const BLOB = randomBytes(1024 * 1024);
const UPLOADS = /\/blobs\/uploads\//;

function chunks(bytes: Buffer): (offset: number) => AsyncIterable<Uint8Array> {
  return async function* (offset) {
    for (let at = offset; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
  };
}

describe('an upload', () => {
  const cases: { name: string; faults?: Fault[]; methods: string[] }[] = [
    { name: 'is one streaming request', methods: ['POST', 'PUT'] },
    {
      name: 'goes on from what the registry says it has',
      faults: [{ method: 'PUT', path: UPLOADS, takeOnly: 300_000 }],
      methods: ['POST', 'PUT', 'GET', 'PATCH', 'PUT'],
    },
    {
      name: 'goes on after two breaks',
      faults: [
        { method: 'PUT', path: UPLOADS, takeOnly: 300_000 },
        { method: 'PATCH', path: UPLOADS, takeOnly: 700_000 },
      ],
      methods: ['POST', 'PUT', 'GET', 'PATCH', 'GET', 'PATCH', 'PUT'],
    },
    {
      name: 'begins again where the registry has nothing of it',
      faults: [{ method: 'PUT', path: UPLOADS, takeOnly: 0 }],
      methods: ['POST', 'PUT', 'GET', 'PUT'],
    },
    {
      name: 'begins again where the registry has forgotten it',
      faults: [{ method: 'PUT', path: UPLOADS, answer: { status: 404 } }],
      methods: ['POST', 'PUT', 'POST', 'PUT'],
    },
    {
      name: 'waits for a registry that is overloaded',
      faults: [
        { method: 'POST', path: UPLOADS, answer: { status: 503 } },
        { method: 'PUT', path: UPLOADS, answer: { status: 503 } },
      ],
      methods: ['POST', 'POST', 'PUT', 'GET', 'PUT'],
    },
  ];
  for (const { name, faults = [], methods } of cases) {
    it(name, async (t) => {
      const server = await TestRegistry.start(t);
      server.faults.push(...faults);
      const registry = await openRegistry(t, server, 'push');
      await registry.upload({ digest: sha256(BLOB), size: BLOB.length, open: chunks(BLOB) }, listener());
      assert.deepEqual(server.blobs.get(REPOSITORY)?.get(sha256(BLOB)), BLOB);
      assert.deepEqual(
        server.log.map(({ method }) => method),
        methods,
      );
    });
  }

  it('of other bytes than promised is refused, twice', async (t) => {
    const server = await TestRegistry.start(t);
    const registry = await openRegistry(t, server, 'push');
    const wrong = { digest: sha256('something else'), size: BLOB.length, open: chunks(BLOB) };
    await assert.rejects(registry.upload(wrong, listener()), { code: 'ERR_REGISTRY', registryCode: 'DIGEST_INVALID' });
    assert.equal(server.asked('PUT', UPLOADS).length, 2);
  });

  it('of which nobody takes a byte counts as broken', async (t) => {
    const server = await TestRegistry.start(t);
    const registry = await openRegistry(t, server, 'push', { noProgressTimeout: 100, retries: 1 });
    let tries = 0;
    const open = async function* (): AsyncGenerator<Uint8Array> {
      tries++;
      yield BLOB.subarray(0, 10);
      await new Promise(() => undefined);
    };
    const stuck = registry.upload({ digest: sha256(BLOB), size: BLOB.length, open }, listener());
    await assert.rejects(stuck, { code: 'ERR_REGISTRY', message: /ETIMEDOUT/ });
    assert.equal(tries, 2);
  });

  for (const singlePost of [true, false]) {
    it(`of a small blob is one request, and is completed where that is not enough (${singlePost})`, async (t) => {
      const server = await TestRegistry.start(t);
      server.singlePost = singlePost;
      const small = Buffer.from('{}');
      const registry = await openRegistry(t, server, 'push');
      await registry.uploadSmall(sha256(small), small, listener());
      assert.deepEqual(server.blobs.get(REPOSITORY)?.get(sha256(small)), small);
      assert.deepEqual(
        server.log.map(({ method }) => method),
        singlePost ? ['POST'] : ['POST', 'PUT'],
      );
    });
  }

  it('is not needed where another repository has the blob', async (t) => {
    const server = await TestRegistry.start(t);
    server.auth = { kind: 'bearer', username: 'me', password: 'secret' };
    const digest = server.putBlob('other/place', BLOB);
    const credentials = credentialsOf({ username: 'me', password: 'secret' });
    const registry = await openRegistry(t, server, 'push', { credentials });
    assert.equal(await registry.blobSize(digest, listener()), undefined);
    assert.equal(await registry.mount(digest, 'other/place', listener()), true);
    assert.equal(await registry.blobSize(digest, listener()), BLOB.length);
    assert.equal(await registry.mount(sha256('never seen'), 'other/place', listener()), false);
    assert.equal(server.log.at(-1)?.method, 'DELETE', 'the upload that was begun instead is ended');
  });
});
