/** Where hosts are reached and what is known of them: files as containerd, Docker and podman write them. */
import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { fileCredentials } from '../../../src/registry/credentials.js';
import { endpointsOf } from '../../../src/registry/hosts.js';
import { registrySettings } from '../../../src/registry/settings.js';
import { parseToml } from '../../../src/registry/toml.js';
import type { RegistryOptions } from '../../../src/registry/types.js';
import { tempDir } from '../../support/temp.js';

async function files(t: TestContext, contents: Record<string, string>): Promise<string> {
  const directory = tempDir(t, 'registry');
  for (const [name, content] of Object.entries(contents)) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), content);
  }
  return directory;
}

describe('TOML', () => {
  it('as hosts.toml has it', () => {
    const text = `# a comment
server = "https://registry-1.docker.io" # another
capabilities = ["pull", 'resolve',
  "push", # the last
]
skip_verify = true
"quoted key" = "tab\\t and \\u00e9"
[host."https://mirror.lan:5000"]
  client = [["a.cert", "a.key"], ["both.pem"]]
  dial_timeout = 1_0
[host."https://mirror.lan:5000".header]
  x-token = ["one", "two"]
`;
    assert.deepEqual(JSON.parse(JSON.stringify(parseToml(text, 'the file'))), {
      server: 'https://registry-1.docker.io',
      capabilities: ['pull', 'resolve', 'push'],
      skip_verify: true,
      'quoted key': 'tab\t and é',
      host: {
        'https://mirror.lan:5000': {
          client: [['a.cert', 'a.key'], ['both.pem']],
          dial_timeout: 10,
          header: { 'x-token': ['one', 'two'] },
        },
      },
    });
  });
  for (const text of [
    'a',
    'a = ',
    'a = "x',
    'a = 1\na = 2',
    '[[a]]',
    'a = """x"""',
    'a = 1 b = 2',
    'a = [1',
    'a = 1.5',
    '[a',
    'a=1\n[a]\n',
  ])
    it(`refuses ${JSON.stringify(text)}`, () =>
      assert.throws(() => parseToml(text, 'the file'), { code: 'ERR_INVALID_ARGUMENT', message: /the file, line \d/ }));
});

describe('where a host is reached', () => {
  const none = { containerd: '/nonexistent', docker: '/nonexistent' };
  const cases: [host: string, hosts: RegistryOptions['hosts'], expected: string[]][] = [
    ['docker.io', undefined, ['docker.io https://registry-1.docker.io/v2/ pull,resolve,push']],
    ['ghcr.io', {}, ['ghcr.io https://ghcr.io/v2/ pull,resolve,push']],
    [
      'reg.lan:5000',
      { 'reg.lan:5000': { plainHTTP: true } },
      ['reg.lan:5000 http://reg.lan:5000/v2/ pull,resolve,push'],
    ],
    [
      'docker.io',
      { 'docker.io': { mirrors: ['mirror.lan', 'http://cache:81/hub'] }, 'mirror.lan': { plainHTTP: true } },
      [
        'mirror.lan http://mirror.lan/v2/ pull,resolve',
        'cache:81 http://cache:81/hub/v2/ pull,resolve',
        'docker.io https://registry-1.docker.io/v2/ pull,resolve,push',
      ],
    ],
    [
      'localhost:5000',
      undefined,
      [
        'localhost:5000 https://localhost:5000/v2/ pull,resolve,push',
        'localhost:5000 http://localhost:5000/v2/ pull,resolve,push',
      ],
    ],
    [
      'localhost:5000',
      { 'localhost:5000': { plainHTTP: false } },
      ['localhost:5000 https://localhost:5000/v2/ pull,resolve,push'],
    ],
  ];
  for (const [host, hosts, expected] of cases) {
    it(`${host} with ${JSON.stringify(hosts)}`, async () => {
      const endpoints = await endpointsOf(host, hosts, none);
      assert.deepEqual(
        endpoints.map(({ host: name, base, capabilities }) => `${name} ${base.href} ${[...capabilities].join(',')}`),
        expected,
      );
    });
  }

  it('as hosts.toml says', async (t) => {
    const containerd = await files(t, {
      'reg.lan:5000/hosts.toml': `server = "https://reg.lan:5000"
ca = "own.crt"
[host."http://mirror.lan"]
  capabilities = ["pull"]
[host."https://odd.lan/path"]
  override_path = true
  skip_verify = true
  client = [["me.cert", "me.key"]]
[host."https://odd.lan/path".header]
  x-secret = "s"
`,
      'reg.lan:5000/own.crt': 'CA',
      'reg.lan:5000/me.cert': 'CERT',
      'reg.lan:5000/me.key': 'KEY',
    });
    const endpoints = await endpointsOf('reg.lan:5000', undefined, { ...none, containerd });
    assert.deepEqual(
      endpoints.map(({ host, base, capabilities, tls, headers }) => [host, base.href, [...capabilities], tls, headers]),
      [
        ['mirror.lan', 'http://mirror.lan/v2/', ['pull'], { ca: [], client: [], skipVerify: false }, {}],
        [
          'odd.lan',
          'https://odd.lan/path/',
          ['pull', 'resolve', 'push'],
          { ca: [], client: [{ cert: 'CERT', key: 'KEY' }], skipVerify: true },
          { 'x-secret': 's' },
        ],
        [
          'reg.lan:5000',
          'https://reg.lan:5000/v2/',
          ['pull', 'resolve', 'push'],
          { ca: ['CA'], client: [], skipVerify: false },
          {},
        ],
      ],
    );
  });

  it('as a directory of certificates says', async (t) => {
    const directory = await files(t, {
      'reg.lan/a.crt': 'A',
      'reg.lan/b.crt': 'B',
      'reg.lan/me.cert': 'CERT',
      'reg.lan/me.key': 'KEY',
      'half.lan/me.cert': 'CERT',
    });
    const [endpoint] = await endpointsOf('reg.lan', undefined, { ...none, docker: directory });
    assert.deepEqual(endpoint?.tls, { ca: ['A', 'B'], client: [{ cert: 'CERT', key: 'KEY' }], skipVerify: false });
    const half = endpointsOf('half.lan', undefined, { ...none, docker: directory });
    await assert.rejects(half, { code: 'ERR_INVALID_ARGUMENT', message: /me\.key/ });
  });

  for (const mirrors of [['ftp://x'], ['http://user:pass@x'], ['a b']])
    it(`refuses the mirror ${mirrors[0]}`, () =>
      assert.rejects(endpointsOf('a.lan', { 'a.lan': { mirrors } }, none), { code: 'ERR_INVALID_ARGUMENT' }));

  for (const options of [{ concurrency: 0 }, { retries: -1 }, { noProgressTimeout: 1.5 }])
    it(`refuses ${JSON.stringify(options)}`, () =>
      assert.throws(() => registrySettings(options), { code: 'ERR_INVALID_ARGUMENT' }));
});

describe('what is known of a host', () => {
  const auth = (text: string): { auth: string } => ({ auth: Buffer.from(text).toString('base64') });
  const cases: {
    name: string;
    files: Record<string, object>;
    env?: Record<string, string>;
    ask: string;
    expected: unknown;
  }[] = [
    {
      name: "Docker's file",
      files: { '.docker/config.json': { auths: { 'ghcr.io': auth('me:pa:ss') } } },
      ask: 'ghcr.io/a/b',
      expected: { username: 'me', password: 'pa:ss' },
    },
    {
      name: 'an old key with a URL',
      files: { '.docker/config.json': { auths: { 'https://reg.lan:5000/v1/': auth('me:x') } } },
      ask: 'reg.lan:5000/a',
      expected: { username: 'me', password: 'x' },
    },
    {
      name: 'Docker Hub',
      files: { '.docker/config.json': { auths: { 'https://index.docker.io/v1/': auth('hub:x') } } },
      ask: 'docker.io/library/debian',
      expected: { username: 'hub', password: 'x' },
    },
    {
      name: 'an identity token',
      files: { '.docker/config.json': { auths: { 'a.lan': { ...auth('00:'), identitytoken: 'T' } } } },
      ask: 'a.lan/x',
      expected: { identityToken: 'T' },
    },
    {
      name: "podman's file before Docker's",
      files: {
        'run/containers/auth.json': { auths: { 'a.lan': auth('podman:x') } },
        '.docker/config.json': { auths: { 'a.lan': auth('docker:x') } },
      },
      ask: 'a.lan/x',
      expected: { username: 'podman', password: 'x' },
    },
    {
      name: 'the most specific key',
      files: { '.config/containers/auth.json': { auths: { 'q.io': auth('host:x'), 'q.io/team': auth('team:x') } } },
      ask: 'q.io/team/app',
      expected: { username: 'team', password: 'x' },
    },
    {
      name: 'a file that was named, alone',
      files: { 'own.json': { auths: {} }, '.docker/config.json': { auths: { 'a.lan': auth('docker:x') } } },
      env: { REGISTRY_AUTH_FILE: 'own.json' },
      ask: 'a.lan/x',
      expected: undefined,
    },
    {
      name: "a host's helper before the store of all",
      files: { '.docker/config.json': { credHelpers: { 'a.lan': 'one' }, credsStore: 'two' } },
      ask: 'a.lan/x',
      expected: { username: 'one', password: 'a.lan' },
    },
    {
      name: 'the store of all',
      files: { '.docker/config.json': { credHelpers: { 'b.lan': 'one' }, credsStore: 'two' } },
      ask: 'docker.io/library/x',
      expected: { username: 'two', password: 'https://index.docker.io/v1/' },
    },
    {
      name: 'the identity token of a helper',
      files: { '.docker/config.json': { credsStore: 'token' } },
      ask: 'a.lan/x',
      expected: { identityToken: 'a.lan' },
    },
    {
      name: 'nothing where the helper has nothing',
      files: { '.docker/config.json': { credsStore: 'none' } },
      ask: 'a.lan/x',
      expected: undefined,
    },
  ];

  async function ask(t: TestContext, contents: Record<string, object>, env: Record<string, string>, name: string) {
    const texts = Object.fromEntries(Object.entries(contents).map(([path, value]) => [path, JSON.stringify(value)]));
    const answer = (user: string): string =>
      `#!/bin/sh\nread host\n[ "$1" = get ] || exit 2\nprintf '{"ServerURL":"x","Username":"%s","Secret":"%s"}' '${user}' "$host"\n`;
    const helpers = {
      'bin/docker-credential-one': answer('one'),
      'bin/docker-credential-two': answer('two'),
      'bin/docker-credential-token': answer('<token>'),
      'bin/docker-credential-none': '#!/bin/sh\necho credentials not found in native keychain\nexit 1\n',
      'bin/docker-credential-broken': '#!/bin/sh\necho top-secret-output\nexit 3\n',
      'bin/docker-credential-chatty': '#!/bin/sh\necho top-secret-output\n',
    };
    const home = await files(t, { ...texts, ...helpers });
    for (const path of Object.keys(helpers)) await chmod(join(home, path), 0o755);
    const named = env['REGISTRY_AUTH_FILE'];
    const [host = '', ...path] = name.split('/');
    return fileCredentials({
      HOME: home,
      PATH: `${join(home, 'bin')}:/usr/bin:/bin`,
      XDG_RUNTIME_DIR: join(home, 'run'),
      ...(named === undefined ? {} : { REGISTRY_AUTH_FILE: join(home, named) }),
    })(host, path.join('/'));
  }

  for (const { name, files: contents, env = {}, ask: asked, expected } of cases)
    it(name, async (t) => assert.deepEqual(await ask(t, contents, env, asked), expected));

  for (const helper of ['broken', 'chatty', 'missing', '../bin/one', '/bin/sh']) {
    it(`says nothing of what the helper ${helper} says`, async (t) => {
      const error: unknown = await ask(t, { '.docker/config.json': { credsStore: helper } }, {}, 'a.lan/x').catch(
        (reason: unknown) => reason,
      );
      assert.ok(LayerStoreError.is(error, 'ERR_UNAUTHORIZED'), String(error));
      assert.ok(!JSON.stringify([error.message, error.stack]).includes('top-secret-output'));
    });
  }

  it('does not quote a file that is no JSON', async (t) => {
    const home = await files(t, { '.docker/config.json': '{"auths": "top-secret"' });
    await assert.rejects(fileCredentials({ HOME: home, XDG_RUNTIME_DIR: home })('a.lan', 'x'), (error) => {
      assert.ok(LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'));
      return !error.message.includes('top-secret');
    });
  });
});
