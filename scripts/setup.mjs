// Makes a checkout ready, whatever state it is in: npm packages, addon, compiled TypeScript; with --tests also the Debian
// packages that the tests use (as root on Debian; LAYERSTORE_NO_APT=1 prevents it). Needs Node and npm alone. Does
// nothing where nothing is to do, so `npm start` and `npm test` call it first.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const top = resolve(import.meta.dirname, '..');
const forTests = process.argv.includes('--tests');

/** Debian packages the tests use, each with what it is used for. */
const TEST_PACKAGES = {
  attr: 'extended attributes in tests',
  acl: 'POSIX ACLs in tests',
  'libarchive-tools': 'bsdtar, to compare archives with',
  xfsprogs: 'XFS under the store in crash tests',
  'btrfs-progs': 'btrfs under the store in crash tests',
  e2fsprogs: 'ext4 on a loop device in crash tests',
  'libcap2-bin': 'file capabilities in tests',
  zstd: 'zstd sources',
  pigz: 'gzip sources',
  jq: 'reading image configurations',
  'docker.io': "Docker's own store",
  podman: 'a peer',
  buildah: 'a peer',
  skopeo: 'a peer',
  umoci: 'a peer',
  containerd: 'a peer',
};

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: top, stdio: ['ignore', 'inherit', 'inherit'], ...options });
  if (error) throw error;
  return status;
}

function must(what, command, args) {
  const status = run(command, args);
  if (status !== 0) {
    console.error(`setup: ${what} failed (${command} ${args.join(' ')} exited with ${status})`);
    process.exit(1);
  }
}

function newest(...places) {
  let latest = 0;
  for (const place of places) {
    const path = join(top, place);
    if (!existsSync(path)) continue;
    const names = statSync(path).isDirectory()
      ? readdirSync(path, { recursive: true }).map((name) => join(path, name))
      : [path];
    for (const name of names) latest = Math.max(latest, statSync(name).mtimeMs);
  }
  return latest;
}

/** Runs `work` unless `stamp` is newer than all of `inputs`. */
function unlessFresh(stamp, inputs, work) {
  const path = join(top, stamp);
  if (existsSync(path) && statSync(path).mtimeMs > newest(...inputs)) return;
  work();
  writeFileSync(path, '');
}

function installPackages() {
  if (process.env.LAYERSTORE_NO_APT === '1' || process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return;
  const installed = readFileSync('/var/lib/dpkg/status', 'utf8')
    .split('\n\n')
    .filter((block) => /^Status: .* installed$/m.test(block))
    .map((block) => /^Package: (.*)$/m.exec(block)?.[1]);
  const missing = Object.keys(TEST_PACKAGES).filter((name) => !installed.includes(name));
  if (missing.length === 0) return;
  console.log(`setup: installing Debian packages for the tests: ${missing.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  run('apt-get', ['update', '-qq'], { env, stdio: 'ignore' });
  const status = run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (status !== 0) console.error('setup: some packages could not be installed; the tests that need them will say so');
}

if (forTests) installPackages();
unlessFresh('node_modules/.layerstore-packages', ['package-lock.json'], () => {
  must('installing npm packages', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  // npm's install script has built the addon.
  writeFileSync(join(top, 'node_modules/.layerstore-addon'), '');
});
unlessFresh('node_modules/.layerstore-addon', ['native', 'binding.gyp', 'scripts/install.mjs'], () => {
  must('building the addon', process.execPath, ['scripts/install.mjs']);
});
unlessFresh(
  'node_modules/.layerstore-dist',
  ['src', 'tsconfig.json', 'tsconfig.build.json', 'node_modules/.layerstore-packages'],
  () => {
    must('compiling TypeScript', process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json']);
  },
);
