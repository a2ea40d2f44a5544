/**
 * Real layers for tests: those that the environment names, else one made of this machine's own files. There is always
 * at least one, so that no test has a reason to skip.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export interface Corpus {
  /** Plain tars of one image, base first. */
  layers: string[];
  /** A `docker save` archive and OCI layouts of the same image, where the corpus has them. */
  dockerArchive?: string;
  ociLayouts: string[];
}

/** `LAYERSTORE_CORPUS` is a directory with `layers/N-NAME.tar`, or one that has such directories as `small/` and `full/`. */
export function corpus(directory: string, size: 'small' | 'full' = 'small'): Corpus {
  const named = process.env['LAYERSTORE_CORPUS'];
  if (named !== undefined && named !== '') {
    const base = existsSync(join(named, 'layers')) ? named : join(named, size);
    const layers = readdirSync(join(base, 'layers')).filter((name) => name.endsWith('.tar'));
    layers.sort((a, b) => parseInt(a, 10) - parseInt(b, 10));
    if (layers.length === 0) throw new Error(`LAYERSTORE_CORPUS: no tar in "${join(base, 'layers')}"`);
    const archive = join(base, 'image.docker.tar');
    return {
      layers: layers.map((name) => join(base, 'layers', name)),
      ...(existsSync(archive) ? { dockerArchive: archive } : {}),
      ociLayouts: ['oci-gzip', 'oci-zstd'].map((name) => join(base, name)).filter((path) => existsSync(path)),
    };
  }
  return { layers: [machineLayer(directory)], ociLayouts: [] };
}

/** Some megabytes of what every Debian has: links, modes, odd names, many small files and a few large ones. */
export function machineLayer(directory: string): string {
  const path = join(directory, 'machine.tar');
  const wanted = ['etc', 'usr/share/zoneinfo', 'usr/sbin', 'var/lib/dpkg/info'];
  const there = wanted.filter((name) => existsSync(join('/', name)));
  // Files may change while they are read here: GNU tar says so by status 1 and the archive is whole all the same.
  const command =
    'tar --format=posix --one-file-system --ignore-failed-read -C / -cf "$0" -- "$@" 2>/dev/null || [ $? -eq 1 ]';
  execFileSync('/bin/sh', ['-c', command, path, ...there]);
  return path;
}
