/** Pull and push with Debian's docker-registry as the server and skopeo as another client: the same digests both ways. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { openImages, type Images, type RegistryOptions } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { startProxy, useProxies } from '../support/proxy.js';
import { tempDir } from '../support/temp.js';
import { oci, sampleConfig, sampleLayers, sha256, tar } from '../unit/image/archives.js';
import { randomData } from './random-data.js';
import { startServer, USER, type Server } from './servers.js';

const run = promisify(execFile);

async function layoutDirectory(t: TestContext): Promise<{ path: string; id: string; manifest: string }> {
  const layers = [...(await sampleLayers()), await tar([['big', randomData(12 * 1024 * 1024)]])];
  const { files, config, manifest } = oci(layers, { gzip: true, config: sampleConfig(layers) });
  const path = join(tempDir(t, 'layout'), 'image');
  mkdirSync(join(path, 'blobs', 'sha256'), { recursive: true });
  for (const [name, content] of files) writeFileSync(join(path, name), content);
  return { path, id: sha256(config), manifest: sha256(manifest) };
}

async function openClient(
  t: TestContext,
  { host, ca }: Server,
  options: RegistryOptions = {},
): Promise<{ store: Store; images: Images }> {
  const store = await openStore({ root: join(tempDir(t, 'real'), 'root'), durability: 'relaxed' });
  t.after(() => store.close());
  const images = await openImages(store, {
    registry: {
      credentials: async () => USER,
      hosts: { [host]: ca === undefined ? { plainHTTP: true } : { ca } },
      ...options,
    },
  });
  return { store, images };
}

/** skopeo's options for one side. */
function flags(side: 'src' | 'dest', { ca }: Server, directory: string): string[] {
  if (ca === undefined) return [`--${side}-tls-verify=false`, `--${side}-creds=${USER.username}:${USER.password}`];
  writeFileSync(join(directory, 'ca.crt'), ca);
  return [`--${side}-cert-dir=${directory}`];
}

describe('docker-registry and skopeo', () => {
  for (const kind of ['plain', 'users', 'tokens', 'tls'] as const) {
    it(`both ways with the same digests: ${kind}`, async (t) => {
      const server = await startServer(t, kind);
      const layout = await layoutDirectory(t);
      const directory = tempDir(t, 'skopeo');
      const there = `${server.host}/team/app:1`;
      await run('skopeo', ['copy', ...flags('dest', server, directory), `oci:${layout.path}`, `docker://${there}`]);

      const { store, images } = await openClient(t, server);
      const image = await images.pull(there);
      assert.equal(image.id, layout.id);
      assert.deepEqual(image.names, [there]);
      assert.ok((await store.verify()).ok);

      const again = `${server.host}/team/again:2`;
      const { digest } = await images.push(there, again);
      const states = new Set<string>();
      assert.equal((await images.push(there, again, { onProgress: ({ state }) => states.add(state) })).digest, digest);
      assert.deepEqual([...states].sort(), ['exists', 'waiting']);
      const copied = join(directory, 'copied');
      await run('skopeo', ['copy', ...flags('src', server, directory), `docker://${again}`, `dir:${copied}`]);
      assert.equal(sha256(await readFile(join(copied, 'manifest.json'))), digest);
      const manifest = JSON.parse(await readFile(join(copied, 'manifest.json'), 'utf8')) as {
        config: { digest: string };
      };
      assert.equal(manifest.config.digest, layout.id);

      // What we compress ourselves is the same image too.
      const zstd = `${server.host}/team/zstd:3`;
      await images.push(there, zstd, { compression: 'zstd' });
      await images.remove(image.id);
      assert.equal(store.map().size, 0);
      assert.equal((await images.pull(zstd)).id, layout.id);
      assert.ok((await store.verify()).ok);
    });
  }

  it('a wrong password is refused, and in no message', async (t) => {
    const server = await startServer(t, 'users');
    const { images } = await openClient(t, server, {
      credentials: async () => ({ username: 'me', password: 'not-the-password' }),
    });
    await assert.rejects(images.pull(`${server.host}/team/app:1`), (error: Error & { code?: string }) => {
      assert.equal(error.code, 'ERR_UNAUTHORIZED');
      return !`${error.message}${error.stack}`.includes('not-the-password');
    });
  });

  it('an authority that is not known is not trusted, and TLS is not given up for it', async (t) => {
    const server = await startServer(t, 'tls');
    const { images } = await openClient(t, server, { hosts: {} });
    await assert.rejects(images.pull(`${server.host}/team/app:1`), {
      code: 'ERR_REGISTRY',
      message: /certificate is not trusted/,
    });
  });

  it('a registry that is killed and comes back is pulled from to the end', async (t) => {
    const server = await startServer(t, 'plain');
    const layout = await layoutDirectory(t);
    const there = `${server.host}/team/app:1`;
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout.path}`, `docker://${there}`]);
    const { store, images } = await openClient(t, server);
    let restarted: Promise<void> | undefined;
    const image = await images.pull(there, {
      onProgress: ({ state }) => {
        if (state === 'downloading') restarted ??= server.restart();
      },
    });
    await restarted;
    assert.equal(image.id, layout.id);
    assert.ok((await store.verify()).ok);
  });

  it('through a tunnel of the proxy that the environment names, with TLS to the registry itself', async (t) => {
    const server = await startServer(t, 'tls');
    const layout = await layoutDirectory(t);
    const directory = tempDir(t, 'skopeo');
    const there = `${server.host}/team/app:1`;
    await run('skopeo', ['copy', ...flags('dest', server, directory), `oci:${layout.path}`, `docker://${there}`]);
    const proxy = await startProxy(t);
    useProxies(t, { https_proxy: `http://${proxy.host}` });
    const { images } = await openClient(t, server);
    assert.equal((await images.pull(there)).id, layout.id);
    const tunnels = [...new Set(proxy.log.map(({ method, target }) => `${method} ${target}`))];
    assert.deepEqual(tunnels, [`CONNECT ${server.host}`]);
  });

  it('the command line', async (t) => {
    const server = await startServer(t, 'plain');
    const layout = await layoutDirectory(t);
    const there = `${server.host}/team/app:1`;
    const root = join(tempDir(t, 'real'), 'root');
    const main = join(import.meta.dirname, '../../dist/cli/main.js');
    const layerstore = async (...args: string[]): Promise<{ stdout: string; stderr: string }> =>
      run(process.execPath, [main, '--root', root, ...args]);
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout.path}`, `docker://${there}`]);
    const pulled = await layerstore('pull', there);
    assert.equal(pulled.stdout.trim(), layout.id);
    assert.equal(pulled.stderr.match(/: Pull complete/g)?.length, 4);
    const pushed = await layerstore('push', there, `${server.host}/team/copy:1`);
    assert.match(pushed.stdout, /^sha256:[0-9a-f]{64}\n$/);
    assert.match((await layerstore('push', there, `${server.host}/team/copy:1`)).stderr, /Already exists/);
    await assert.rejects(
      layerstore('pull', `${server.host}/team/app:2`),
      (error: { code?: number; stderr?: string }) => {
        assert.equal(error.code, 1);
        return /has no image "team\/app:2"/.test(error.stderr ?? '');
      },
    );
  });
});
