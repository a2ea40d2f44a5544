// Packs the package, installs the tarball into an empty project, and uses it there: ESM import, require where Node can
// require ESM, types under both module resolutions, the command, and (on Linux) one layer in and out again. Also shows
// that the tarball holds what is needed and nothing else. Leaves nothing behind.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const top = resolve(import.meta.dirname, '..');
const work = mkdtempSync(join(tmpdir(), 'layerstore-package-'));
const project = join(work, 'project');
const show = (text) => console.log(`check-package: ${text}`);
const env = {
  ...process.env,
  npm_config_audit: 'false',
  npm_config_fund: 'false',
  npm_config_loglevel: 'error',
  NODE_OPTIONS: '',
};
const run = (command, args, cwd = project) =>
  execFileSync(command, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

const ALLOWED =
  /^(dist\/|native\/|prebuilds\/|proto\/[a-z]+\.proto$|report-page\/[a-z-]+\.(js|css)$|scripts\/install\.mjs$|package\.json$|binding\.gyp$|README\.md$|LICENSE$|CHANGELOG\.md$)/;
const REFUSED = /^native\/(test|fuzz)\/|\.test\.|\.tsbuildinfo$/;

try {
  mkdirSync(project);
  const [packed] = JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', work], top));
  const odd = packed.files.map(({ path }) => path).filter((path) => !ALLOWED.test(path) || REFUSED.test(path));
  if (odd.length > 0) throw new Error(`the tarball holds what it should not: ${odd.join(', ')}`);
  show(`${packed.filename}: ${packed.files.length} files, ${(packed.size / 1e6).toFixed(2)} MB packed`);
  const tarball = join(work, packed.filename);
  run(process.execPath, [join(top, 'node_modules/publint/src/cli.js'), 'run', tarball, '--strict'], top);
  show('publint: clean');
  // The package is ESM alone, on purpose: CommonJS gets it by require(esm), which attw's other profiles call an error.
  run(
    process.execPath,
    [
      join(top, 'node_modules/@arethetypeswrong/cli/dist/index.js'),
      tarball,
      '--profile',
      'esm-only',
      '--no-definitely-typed',
    ],
    top,
  );
  show('attw: clean');

  writeFileSync(join(project, 'package.json'), '{ "name": "user", "private": true, "type": "module" }');
  run('npm', ['install', '--omit=dev', tarball]);
  const tree = JSON.parse(run('npm', ['ls', '--all', '--json', '--omit=dev']));
  const names = new Set();
  const collect = (dependencies = {}) => {
    for (const [name, each] of Object.entries(dependencies)) {
      names.add(name);
      collect(each.dependencies);
    }
  };
  collect(tree.dependencies.layerstore.dependencies);
  show(`${names.size} packages below it: ${[...names].sort().join(' ')}`);

  writeFileSync(
    join(project, 'use.mjs'),
    `import { openStore, DIGEST_SHA256_EMPTY_TAR } from 'layerstore';
     import { mkdtemp, rm } from 'node:fs/promises';
     const root = await mkdtemp(${JSON.stringify(join(work, 'root-'))});
     if (process.platform !== 'linux') {
       const error = await openStore({ root }).then(() => undefined, (reason) => reason);
       if (error?.code !== 'ERR_NOT_SUPPORTED') throw new Error('expected ERR_NOT_SUPPORTED, got ' + error);
       console.log('not Linux: ERR_NOT_SUPPORTED');
     } else {
       const store = await openStore({ root, driver: 'vfs' });
       const layer = await store.register((async function* () { yield Buffer.alloc(1024); })());
       if (layer.diffID !== DIGEST_SHA256_EMPTY_TAR) throw new Error(layer.diffID);
       await store.release(layer);
       await store.close();
       console.log('engine ' + store.engineName);
     }
     await rm(root, { recursive: true });`,
  );
  show(`ESM: ${run(process.execPath, ['use.mjs']).trim()}`);
  writeFileSync(
    join(project, 'containerd.mjs'),
    `import { openStore } from 'layerstore';
     import { serveContainerd } from 'layerstore/containerd';
     import { mkdtemp, rm } from 'node:fs/promises';
     const root = await mkdtemp(${JSON.stringify(join(work, 'root-'))});
     const store = await openStore({ root, driver: 'vfs' });
     const error = await serveContainerd({ store, address: root + '/s' }).then(() => undefined, (reason) => reason);
     await store.close();
     await rm(root, { recursive: true });
     if (error?.code !== 'ERR_NOT_SUPPORTED') throw new Error('expected ERR_NOT_SUPPORTED without gRPC, got ' + error);
     console.log(error.message);`,
  );
  if (process.platform === 'linux')
    show(`containerd without gRPC: ${run(process.execPath, ['containerd.mjs']).trim()}`);
  writeFileSync(
    join(project, 'use.cjs'),
    `const { parseDigest } = require('layerstore'); console.log(typeof parseDigest);`,
  );
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19))
    show(`CommonJS: ${run(process.execPath, ['use.cjs']).trim()}`);
  show(`command: ${run(join(project, 'node_modules/.bin/layerstore'), ['--version']).trim()}`);

  writeFileSync(
    join(project, 'worker.mjs'),
    `import { isMainThread, Worker } from 'node:worker_threads';
     if (isMainThread) {
       const ends = [0, 1, 2].map(() => new Promise((done, failed) => new Worker(new URL(import.meta.url)).on('error', failed).on('exit', done)));
       const codes = await Promise.all(ends);
       if (codes.some((code) => code !== 0)) throw new Error('a worker ended with ' + codes);
       console.log('three side by side');
     } else await import('./use.mjs');`,
  );
  show(`worker threads: ${run(process.execPath, ['worker.mjs']).trim().split('\n').join(', ')}`);

  for (const platform of ['darwin', 'win32']) {
    const preload = join(project, `${platform}.mjs`);
    writeFileSync(preload, `Object.defineProperty(process, 'platform', { value: '${platform}' });`);
    const elsewhere = (...args) => run(process.execPath, ['--import', pathToFileURL(preload).href, ...args]).trim();
    elsewhere('node_modules/layerstore/scripts/install.mjs');
    show(`as if on ${platform}: it installs; ${elsewhere('use.mjs')}`);
  }

  // The compiler is this checkout's: a user's project has one of its own.
  mkdirSync(join(project, 'node_modules/@types'), { recursive: true });
  for (const name of ['typescript', '@types/node', 'undici-types'])
    symlinkSync(join(top, 'node_modules', name), join(project, 'node_modules', name));
  writeFileSync(
    join(project, 'types.ts'),
    `import { openStore, type Store } from 'layerstore';
     import { serveContainerd } from 'layerstore/containerd';
     import { metadataStoreSuite } from 'layerstore/testing';
     export async function open(root: string): Promise<Store> { return openStore({ root, durability: 'relaxed' }); }
     export { metadataStoreSuite, serveContainerd };`,
  );
  for (const [module, moduleResolution] of [
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ]) {
    run(process.execPath, [
      'node_modules/typescript/bin/tsc',
      '--noEmit',
      '--strict',
      '--target',
      'es2023',
      '--lib',
      'es2023,esnext.disposable',
      '--types',
      'node',
      '--module',
      module,
      '--moduleResolution',
      moduleResolution,
      '--skipLibCheck',
      'false',
      'types.ts',
    ]);
    show(`types resolve under ${moduleResolution}`);
  }
  const { version } = JSON.parse(readFileSync(join(top, 'package.json'), 'utf8'));
  show(`layerstore ${version} on Node ${process.version}: fine`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
