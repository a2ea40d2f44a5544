// The Debian packages that a checkout uses, by what they are for, and their installation. Nothing is installed without
// saying so first, and nothing at all where LAYERSTORE_NO_APT=1, without root, or where there is no apt.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

/** Group -> package -> what it is used for. `tests` is the default suite; each other group but `build` is a suite in `test/GROUP/`. */
export const GROUPS = {
  build: {
    'g++': 'compiles the addon',
    make: 'compiles the addon',
    python3: 'runs node-gyp',
    'libisal-dev': 'fast gzip in the addon',
    'libzstd-dev': 'zstd in the addon',
  },
  tests: {
    attr: 'extended attributes',
    acl: 'POSIX ACLs',
    'libarchive-tools': 'bsdtar, to compare archives with',
    xfsprogs: 'crash tests on XFS',
    'btrfs-progs': 'crash tests on btrfs',
    e2fsprogs: 'crash tests on ext4',
    'libcap2-bin': 'file capabilities',
    uidmap: 'user namespaces without being root',
    zstd: 'makes zstd layers',
    pigz: 'makes gzip layers',
    jq: 'reads image configurations',
    zsh: 'completion of the command line',
    fish: 'completion of the command line',
  },
  peers: {
    'docker.io': 'reads and writes the same root',
    podman: 'reads our archives, writes archives for us',
    buildah: 'reads our archives, writes archives for us',
    skopeo: 'copies our archives and layouts',
    umoci: 'unpacks our layouts',
    containerd: 'imports and exports our archives; runs on our snapshots',
    'golang-github-containerd-containerd-dev': "containerd's own snapshotter suite",
    'golang-go': 'compiles that suite',
    runc: 'runs containers on our snapshots',
    'docker-registry': 'is pulled from by containerd',
    'libarchive-tools': 'bsdtar, to compare archives with',
  },
  registry: {
    'docker-registry': 'the registry that is pulled from and pushed to',
    skopeo: 'another client of it',
    'apache2-utils': "htpasswd, for the registry's users",
    openssl: 'certificates of an authority of our own',
  },
  browser: {
    chromium: 'shows the pages of `layerstore report`',
  },
};

/** Names of the suites, the default one first. */
export const SUITES = Object.keys(GROUPS).filter((name) => name !== 'build');

/** Names of the installed packages, out of the text of dpkg's status file. */
export function installedPackages(status) {
  return new Set(
    status
      .split('\n\n')
      .filter((block) => /^Status: .* installed$/m.test(block))
      .map((block) => /^Package: (.*)$/m.exec(block)?.[1]),
  );
}

/** What is missing of the groups, as package -> reason. */
export function missingPackages(groups, installed) {
  return new Map(groups.flatMap((group) => Object.entries(GROUPS[group])).filter(([name]) => !installed.has(name)));
}

/** One block that says what is about to be installed, and why. */
export function announcement(missing) {
  const width = Math.max(...[...missing.keys()].map((name) => name.length));
  return [
    'About to install these Debian packages (apt-get install; LAYERSTORE_NO_APT=1 prevents it):',
    ...[...missing].map(([name, reason]) => `  ${name.padEnd(width)}  ${reason}`),
  ].join('\n');
}

/** Installs what is missing of the groups, after saying so. A failure is told, and left to what needs the package. */
export function installPackages(groups) {
  if (process.env.LAYERSTORE_NO_APT === '1' || process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return;
  const missing = missingPackages(groups, installedPackages(readFileSync('/var/lib/dpkg/status', 'utf8')));
  if (missing.size === 0) return;
  console.log(announcement(missing));
  const apt = (...words) =>
    spawnSync('/usr/bin/apt-get', ['-qq', ...words], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'ignore', 'inherit'],
    }).status === 0;
  apt('update');
  if (!apt('install', '-y', '--no-install-recommends', ...missing.keys()))
    console.error('Some packages could not be installed; what needs them will say so.');
}
