/** The pure-JavaScript engine. What it cannot do is listed in docs/js-engine.md. */
import { release } from 'node:os';
import * as zlib from 'node:zlib';
import type { Engine, EngineFeatures } from '../engine.js';
import { assemble, assembleTo, recordedSize } from './assemble.js';
import { runBatch } from './batch.js';
import { changes, diffSize } from './changes.js';
import { commandPath } from './command.js';
import { commitTree } from './commit-tree.js';
import { copyTree } from './copy.js';
import { ingest } from './ingest.js';
import { deferredTeardown, mountOnNewTarget, mountOverlay, readMounts, unmount, unmountAndRemove } from './mount.js';
import { removeTree, usage } from './remove.js';
import { names, readSmallFiles } from './small-files.js';
import { hashFile } from './source.js';
import { lockFile, syncFileSystems } from './sync.js';
import { treeTar } from './tree-tar.js';
import { verifyTree } from './verify.js';

/** Makes an engine that needs no addon. It holds no state: several are as good as one. */
export function createJsEngine(): Engine {
  return {
    name: 'js',
    followsRedirects: false,
    features,
    hashFile,
    ingest,
    assemble,
    assembleTo,
    recordedSize,
    verifyTree,
    changes,
    diffSize,
    treeTar,
    commitTree,
    usage,
    copyTree,
    removeTree,
    mountOverlay,
    unmount,
    mountOnNewTarget,
    unmountAndRemove,
    deferredTeardown,
    mounts: readMounts,
    batch: runBatch,
    readSmallFiles,
    names,
    syncFs: syncFileSystems,
    lock: lockFile,
  };
}

const ONLY_NATIVE = 'no: only the native engine uses it';

/** What the engine found on this machine. */
function features(): EngineFeatures {
  const command = (name: string): string => commandPath(name) ?? `no: there is no command "${name}"`;
  return {
    kernel: release(),
    node: process.version,
    openat2: 'no: components are walked by /proc/self/fd',
    fsopen: ONLY_NATIVE,
    'lowerdir+': ONLY_NATIVE,
    'fsconfig-fd': ONLY_NATIVE,
    isal: ONLY_NATIVE,
    crc64: 'table',
    gzip: 'zlib',
    zstd:
      'createZstdDecompress' in zlib ? 'zlib' : hasFzstd() ? 'fzstd' : 'no: needs Node 22.15 or the package "fzstd"',
    renameat2: 'no: exchanging needs "mv --exchange" of coreutils 9.5, else three renames',
    reflink: 'yes',
    mount: command('mount'),
    umount: command('umount'),
    getfattr: command('getfattr'),
    setfattr: command('setfattr'),
    mknod: command('mknod'),
    mkfifo: command('mkfifo'),
    flock: command('flock'),
    sync: command('sync'),
    touch: command('touch'),
    xargs: command('xargs'),
  };
}

function hasFzstd(): boolean {
  try {
    import.meta.resolve('fzstd');
    return true;
  } catch {
    return false; // not installed: it is optional
  }
}
