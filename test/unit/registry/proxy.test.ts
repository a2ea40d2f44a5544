/** Registries behind a proxy that the environment names. Through TLS: test/registry. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { startProxy, useProxies } from '../../support/proxy.js';
import { TestRegistry } from '../../support/registry.js';
import { credentialsOf, listener, openRegistry, REPOSITORY } from './support.js';

const BLOB = Buffer.from('a blob');
const USER = { username: 'me', password: 'registry-secret' };
const encoded = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;

describe('a proxy of the environment', () => {
  for (const [name, variables] of [
    ['http_proxy', (host: string) => ({ http_proxy: `http://${host}` })],
    ['HTTP_PROXY with a user', (host: string) => ({ HTTP_PROXY: `http://who:proxy-secret@${host}` })],
  ] as const) {
    it(`is asked for everything, ${name}, and both sides hear their own credentials alone`, async (t) => {
      const [server, storage, proxy] = [await TestRegistry.start(t), await TestRegistry.start(t), await startProxy(t)];
      useProxies(t, variables(proxy.host));
      server.auth = { kind: 'basic', ...USER };
      const digest = server.putBlob(REPOSITORY, BLOB);
      storage.putBlob(REPOSITORY, BLOB);
      const registry = await openRegistry(t, server, 'pull', { credentials: credentialsOf(USER) });
      assert.deepEqual(await registry.blob(digest, 100, listener()), BLOB);
      server.faults.push({ path: /\/blobs\//, redirect: (url) => `http://${storage.host}${url}` });
      assert.deepEqual(await registry.blob(digest, 100, listener()), BLOB);

      assert.deepEqual([...new Set(proxy.log.map(({ target }) => target))], [server.host, storage.host]);
      const own = name.includes('user') ? encoded('who:proxy-secret') : undefined;
      assert.deepEqual([...new Set(proxy.log.map((entry) => entry.proxyAuthorization))], [own]);
      for (const { authorization } of [...server.log, ...storage.log])
        assert.ok([undefined, encoded('me:registry-secret')].includes(authorization), authorization);
      assert.ok(storage.log.every(({ authorization }) => authorization === undefined));
    });
  }

  it('is not asked for hosts of NO_PROXY', async (t) => {
    const [server, proxy] = [await TestRegistry.start(t), await startProxy(t)];
    useProxies(t, { http_proxy: `http://${proxy.host}`, NO_PROXY: 'example.org,127.0.0.1' });
    const digest = server.putBlob(REPOSITORY, BLOB);
    const registry = await openRegistry(t, server, 'pull');
    assert.deepEqual(await registry.blob(digest, 100, listener()), BLOB);
    assert.deepEqual(proxy.log, []);
  });

  it('that is not there is an error which tells no secret', async (t) => {
    const server = await TestRegistry.start(t);
    useProxies(t, { http_proxy: 'http://who:proxy-secret@127.0.0.1:1' });
    const heard = listener();
    const registry = await openRegistry(t, server, 'pull', { retries: 1 });
    const error: unknown = await registry.manifest('1', 100, heard).catch((reason: unknown) => reason);
    assert.ok(LayerStoreError.is(error, 'ERR_REGISTRY'), String(error));
    const told = [error.message, error.stack, JSON.stringify(error), JSON.stringify(heard.pauses)];
    for (let at = error.cause; at instanceof Error; at = at.cause) told.push(at.message, at.stack, JSON.stringify(at));
    assert.ok(!/proxy-secret|d2hvOnByb3h5/.test(told.join('\n')), told.join('\n'));
    assert.equal(server.log.length, 0);
  });
});
