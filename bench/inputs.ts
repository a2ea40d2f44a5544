/**
 * What the trials work on: the layers of a real image where LAYERSTORE_CORPUS names one (a directory with
 * layers/N-NAME.tar, base first), else tars made out of what is on this machine: many small files, a few big ones, a mix.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { copyFile, mkdir, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

export interface Input {
  name: string;
  plain: string;
  gzip: string;
  zstd: string;
  bytes: number;
}

export async function findInputs(scratch: string, corpus: string | undefined): Promise<Input[]> {
  const folder = join(scratch, 'inputs');
  await mkdir(folder, { recursive: true });
  const plain = corpus === undefined ? await fromThisMachine(folder) : fromCorpus(corpus);
  const inputs: Input[] = [];
  for (const [name, path] of plain) {
    const gzip = join(folder, `${name}.tar.gz`);
    const zstd = join(folder, `${name}.tar.zst`);
    await execute('sh', ['-c', `gzip -6 -c "$1" >"$2" && zstd -q -3 -f "$1" -o "$3"`, 'sh', path, gzip, zstd]);
    inputs.push({ name, plain: path, gzip, zstd, bytes: (await stat(path)).size });
  }
  return inputs;
}

function fromCorpus(corpus: string): [string, string][] {
  const layers = join(corpus, 'layers');
  return readdirSync(layers)
    .sort()
    .map((file) => [file.replace(/^\d+-|\.tar$/g, ''), resolve(layers, file)]);
}

async function fromThisMachine(folder: string): Promise<[string, string][]> {
  const top = resolve(import.meta.dirname, '..');
  const tar = async (name: string, directory: string, paths: readonly string[]): Promise<[string, string]> => {
    const file = join(folder, `${name}.tar`);
    await execute('tar', ['--xattrs', '--sort=name', '-cf', file, '-C', directory, ...paths]);
    return [name, file];
  };
  const big = join(folder, 'big');
  await mkdir(big, { recursive: true });
  await copyFile(process.execPath, join(big, 'node'));
  await copyFile(process.execPath, join(big, 'node-again'));
  const mixed = ['lib/python3', 'lib/python3.11', 'share/perl', 'share/zoneinfo', 'share/doc', 'include'].filter(
    (path) => existsSync(join('/usr', path)),
  );
  const made = [
    await tar('small-files', top, ['node_modules']),
    await tar('big-files', big, ['node', 'node-again']),
    await tar('mixed', '/usr', mixed),
  ];
  await rm(big, { recursive: true });
  return made;
}
