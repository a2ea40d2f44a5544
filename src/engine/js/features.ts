/** What the JavaScript engine found on this machine. */
import { release } from 'node:os';
import * as zlib from 'node:zlib';
import type { EngineFeatures } from '../engine.js';
import { commandPath } from './command.js';

const ONLY_NATIVE = 'no: only the native engine uses it';

/** See {@link Engine.features}. */
export function jsFeatures(): EngineFeatures {
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
