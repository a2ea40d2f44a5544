// Makes prebuilds/linux-<arch>[-musl]/layerstore.node for this machine's platform: a release build with the codecs linked
// in, so that it needs no library but libc and what Node itself brings. Run as root on Debian it builds ISA-L as a static
// archive from Debian's own source package (Debian ships only the shared one); elsewhere put an `isa-l` with static
// archive in place first, or the binary uses zlib's slower inflate.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const top = resolve(import.meta.dirname, '..');
const musl = process.report?.getReport().header.glibcVersionRuntime === undefined;
const platform = `${process.platform}-${process.arch}${musl ? '-musl' : ''}`;

function run(command, args, options = {}) {
  const { status, error, stderr } = spawnSync(command, args, {
    cwd: top,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  if (error || status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr}`);
}

/** A directory that holds libisal.a, made from Debian's source package. */
function staticIsal(work) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const sources = '/etc/apt/sources.list.d/debian.sources';
  if (process.getuid?.() !== 0 || !existsSync(sources)) return undefined;
  run(
    'apt-get',
    [
      'install',
      '-y',
      '-qq',
      '--no-install-recommends',
      'nasm',
      'autoconf',
      'automake',
      'libtool',
      'make',
      'gcc',
      'libisal-dev',
      'libzstd-dev',
      'xz-utils',
    ],
    { env },
  );
  // Package sources are looked up in lists of our own: the machine's configuration stays as it is.
  const parts = join(work, 'parts');
  for (const folder of [parts, join(work, 'lists/partial'), join(work, 'cache/archives/partial')])
    mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(parts, 'debian.sources'),
    readFileSync(sources, 'utf8').replaceAll(/^Types: .*$/gm, 'Types: deb-src'),
  );
  const apt = [
    '-o',
    'Dir::Etc::sourcelist=/dev/null',
    '-o',
    `Dir::Etc::sourceparts=${parts}`,
    '-o',
    `Dir::State::lists=${join(work, 'lists')}`,
    '-o',
    `Dir::Cache=${join(work, 'cache')}`,
  ];
  run('apt-get', [...apt, 'update', '-qq'], { env });
  run('apt-get', [...apt, 'source', '-qq', '--download-only', 'libisal'], { env, cwd: work });
  const archive = readdirSync(work).find((name) => name.endsWith('.orig.tar.xz'));
  if (archive === undefined) throw new Error('the source package of libisal holds no .orig.tar.xz');
  mkdirSync(join(work, 'isal'));
  run('tar', ['-xf', archive, '-C', 'isal', '--strip-components=1'], { cwd: work });
  const cwd = join(work, 'isal');
  run('./autogen.sh', [], { cwd });
  run('./configure', ['--enable-static', '--disable-shared', '--with-pic', 'CFLAGS=-O2 -fPIC'], { cwd });
  run('make', ['-j2', 'libisal.la'], { cwd });
  return join(cwd, '.libs');
}

const work = mkdtempSync(join(tmpdir(), 'layerstore-prebuild-'));
try {
  const isal = process.arch === 'x64' && !musl ? staticIsal(work) : undefined;
  const prefix = isal === undefined ? '' : ` -B${isal}`;
  const nodedir = resolve(process.execPath, '../..');
  const local = existsSync(join(nodedir, 'include/node/node_api.h')) ? ['--nodedir', nodedir] : [];
  const gyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
  run(process.execPath, [gyp, 'rebuild', ...local], {
    env: { ...process.env, CC: `cc${prefix}`, CXX: `c++${prefix}` },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const target = join(top, 'prebuilds', platform);
  mkdirSync(target, { recursive: true });
  const binary = join(target, 'layerstore.node');
  copyFileSync(join(top, 'build/Release/layerstore.node'), binary);
  run('strip', ['--strip-unneeded', binary]);
  const addon = createRequire(import.meta.url)(binary);
  console.log(`${binary}: ${JSON.stringify(addon.features())}`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
