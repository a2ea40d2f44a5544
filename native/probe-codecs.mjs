// Says how to link the optional codecs, for binding.gyp and CMakeLists.txt: `node native/probe-codecs.mjs isal|zstd`
// prints one linker argument, or nothing where the library cannot be used. What is printed was linked into a shared
// object before. A static archive comes first: its symbols can be hidden, and the addon then needs no package at run time.
// libzstd is taken as a static archive only, since newer Node executables export a zstd of their own.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';

const CODECS = {
  isal: {
    source: '#include <isa-l/crc64.h>\n#include <isa-l/igzip_lib.h>\nint probe(void) { isal_inflate_init(0); return (int)crc64_iso_refl(0, 0, 0); }\n',
    archive: 'libisal.a',
    shared: '-lisal',
  },
  zstd: {
    source: '#include <zstd.h>\nint probe(void) { return ZSTD_createDStream() != 0; }\n',
    archive: 'libzstd.a',
    shared: undefined,
  },
};

const compiler = (process.env.CC ?? 'cc').split(' ').filter(Boolean);

function run(args) {
  const [command, ...first] = compiler;
  return execFileSync(command, [...first, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}

function links(directory, source, library) {
  const file = join(directory, 'probe.c');
  writeFileSync(file, source);
  try {
    run(['-shared', '-fPIC', file, '-o', join(directory, 'probe.so'), '-Wl,-z,defs', library]);
    return true;
  } catch {
    // No header, no library, an archive built without -fPIC, or no compiler at all: the addon is built without it.
    return false;
  }
}

const codec = CODECS[process.argv[2]];
if (codec === undefined) {
  console.error('usage: node native/probe-codecs.mjs isal|zstd');
  process.exit(2);
}
if (process.env[`LAYERSTORE_WITHOUT_${process.argv[2].toUpperCase()}`] !== '1') {
  const directory = mkdtempSync(join(tmpdir(), 'layerstore-probe-'));
  try {
    let archive;
    try {
      archive = run([`-print-file-name=${codec.archive}`]);
    } catch {
      archive = ''; // no compiler: the build itself will say so
    }
    const candidates = [isAbsolute(archive) && existsSync(archive) ? archive : undefined, codec.shared];
    const usable = candidates.find((library) => library !== undefined && links(directory, codec.source, library));
    if (usable !== undefined) console.log(usable);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
