/** Where there is no Linux the package installs, its pure parts work, and stores say why they do not. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { tempDir } from '../support/temp.js';

const top = resolve(import.meta.dirname, '../..');

/** Runs a script in a Node that takes itself for one of another platform. */
function runAs(platform: string, arch: string, directory: string, args: string[], env: NodeJS.ProcessEnv = {}) {
  const preload = join(directory, 'preload.mjs');
  writeFileSync(
    preload,
    `for (const [name, value] of [['platform', '${platform}'], ['arch', '${arch}']])
       Object.defineProperty(process, name, { value });`,
  );
  const { NODE_OPTIONS: _, ...inherited } = process.env;
  return spawnSync(process.execPath, ['--import', pathToFileURL(preload).href, ...args], {
    cwd: top,
    env: { ...inherited, ...env },
    encoding: 'utf8',
    timeout: 600_000,
  });
}

// `layerstore` is the compiled package here: it finds itself by its own name.
const USE = `
  import { createChainID, DIGEST_SHA256_EMPTY_TAR, LayerStoreError, openEngine, openStore } from 'layerstore';
  import * as testing from 'layerstore/testing';
  const [root] = process.argv.slice(1);
  const outcomes = [];
  for (const engine of ['native', 'js', 'auto'])
    for (const driver of ['auto', 'overlay2', 'vfs'])
      for (const readOnly of [false, true])
        outcomes.push(await openStore({ root, engine, driver, readOnly }).then(
          () => 'opened',
          (error) => [error instanceof LayerStoreError, error.code, error.message],
        ));
  const native = await openEngine({ engine: 'native' }).catch((error) => error);
  const empty = createChainID([DIGEST_SHA256_EMPTY_TAR]) === DIGEST_SHA256_EMPTY_TAR;
  console.log(JSON.stringify({ outcomes, native: [native.code, native.message], empty, suites: Object.keys(testing) }));
`;

for (const [platform, arch] of [
  ['darwin', 'arm64'],
  ['win32', 'x64'],
  ['freebsd', 'x64'],
] as const) {
  test(`${platform}: opening says that it needs Linux, and makes nothing`, (t) => {
    const directory = tempDir(t);
    const root = join(directory, 'root');
    const { status, stdout, stderr } = runAs(platform, arch, directory, ['--input-type=module', '-e', USE, root]);
    assert.equal(status, 0, stderr);
    const { outcomes, native, empty, suites } = JSON.parse(stdout) as {
      outcomes: [boolean, string, string][];
      native: [string, string];
      empty: boolean;
      suites: string[];
    };
    assert.equal(outcomes.length, 18);
    for (const [ours, code, message] of outcomes) {
      assert.ok(ours);
      assert.equal(code, 'ERR_NOT_SUPPORTED');
      assert.match(message, new RegExp(`^cannot open a store on ${platform}: .*Linux virtual machine or container$`));
    }
    assert.equal(native[0], 'ERR_NOT_SUPPORTED');
    assert.match(native[1], new RegExp(`needs Linux, and this is ${platform}`));
    assert.ok(empty);
    assert.ok(suites.length > 0);
    assert.equal(existsSync(root), false);
  });

  test(`${platform}: it installs without a build`, (t) => {
    const directory = tempDir(t);
    const called = join(directory, 'called');
    const tool = join(directory, 'tool.mjs');
    // Whatever a build would start leaves a mark.
    writeFileSync(tool, `#!/bin/sh\n: > "${called}"\n`);
    chmodSync(tool, 0o755);
    const env = { npm_config_node_gyp: tool, PATH: directory };
    const { status, stdout, stderr } = runAs(platform, arch, directory, ['scripts/install.mjs'], env);
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`^layerstore: no addon on ${platform}: stores need Linux`));
    assert.equal(stdout.trim().split('\n').length, 1);
    assert.equal(existsSync(called), false);
    assert.deepEqual(readdirSync(directory).sort(), ['preload.mjs', 'tool.mjs']);
  });
}
