/**
 * What the trials work on: the layers of a real image where LAYERSTORE_CORPUS names one (a directory with
 * layers/N-NAME.tar, base first), else tars made out of what is on this machine, each about 50 to 80 MB: many small
 * files, a few big ones, a mix. Nothing is made before it is asked for, and nothing twice.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { writeOciLayout } from './oci-layout.js';

const execute = promisify(execFile);
const MIB = 2 ** 20;

export type Form = 'plain' | 'gzip' | 'zstd' | 'oci';

/** A file that is there, or what makes it. */
type Source = string | ((path: string) => Promise<void>);

export class Input {
  readonly name: string;
  /** Many small files, so that what an entry costs shows. */
  readonly small: boolean;
  /** Where each form is or will be; `oci` is an OCI layout with the gzip layer alone, tagged `layer`. */
  readonly paths: Readonly<Record<Form, string>>;
  readonly #folder: string;
  readonly #pack: (path: string) => Promise<void>;
  readonly #made = new Map<Form, Promise<void>>();

  /** @param ready files of forms that are there already */
  constructor(name: string, folder: string, source: Source, ready: Partial<Record<Form, string>> = {}) {
    this.name = name;
    this.#folder = folder;
    this.small = /node_modules|small/.test(name);
    this.#pack = typeof source === 'string' ? () => Promise.resolve() : source;
    this.paths = {
      plain: typeof source === 'string' ? source : join(folder, `${name}.tar`),
      gzip: join(folder, `${name}.tar.gz`),
      zstd: join(folder, `${name}.tar.zst`),
      oci: join(folder, `${name}.oci`),
      ...ready,
    };
    for (const form of Object.keys(ready) as Form[]) this.#made.set(form, Promise.resolve());
  }

  /** Makes the file of a form, once. */
  async make(form: Form): Promise<void> {
    let made = this.#made.get(form);
    if (made === undefined) this.#made.set(form, (made = this.#make(form)));
    return made;
  }

  /** Bytes of the plain tar. */
  async bytes(): Promise<number> {
    await this.make('plain');
    return (await stat(this.paths.plain)).size;
  }

  async #make(form: Form): Promise<void> {
    const { plain, gzip, zstd, oci } = this.paths;
    await mkdir(this.#folder, { recursive: true });
    if (form === 'plain') return this.#pack(plain);
    await this.make('plain');
    if (form === 'gzip') await execute('sh', ['-c', 'gzip -6 -n -c "$1" >"$2"', 'sh', plain, gzip]);
    else if (form === 'zstd') await execute('zstd', ['-q', '-3', '-f', plain, '-o', zstd]);
    else {
      await this.make('gzip');
      await writeOciLayout(oci, plain, gzip);
    }
  }
}

/** The inputs, none of them made yet. */
export function describeInputs(scratch: string, corpus: string | undefined): Input[] {
  const folder = join(scratch, 'inputs');
  const described = corpus === undefined ? fromThisMachine(folder) : fromCorpus(corpus);
  return described.map(([name, source, ready]) => new Input(name, folder, source, ready));
}

type Described = readonly [name: string, source: Source, ready?: Partial<Record<Form, string>>];

function fromCorpus(corpus: string): Described[] {
  const layers = join(corpus, 'layers');
  const gzip = layoutBlobs(join(corpus, 'oci-gzip'));
  const zstd = layoutBlobs(join(corpus, 'oci-zstd'));
  return readdirSync(layers)
    .sort()
    .map((file, i) => [
      file.replace(/^\d+-|\.tar$/g, ''),
      resolve(layers, file),
      { ...(gzip[i] === undefined ? {} : { gzip: gzip[i] }), ...(zstd[i] === undefined ? {} : { zstd: zstd[i] }) },
    ]);
}

/** The layer blobs of the only image in an OCI layout, base first; none where there is no such layout. */
function layoutBlobs(layout: string): string[] {
  if (!existsSync(join(layout, 'index.json'))) return [];
  const blob = (digest: string): string => resolve(layout, 'blobs', ...digest.split(':'));
  const json = (path: string): Record<string, { digest: string }[]> =>
    JSON.parse(readFileSync(path, 'utf8')) as Record<string, { digest: string }[]>;
  const [manifest] = json(join(layout, 'index.json'))['manifests'] ?? [];
  if (manifest === undefined) return [];
  return (json(blob(manifest.digest))['layers'] ?? []).map(({ digest }) => blob(digest));
}

function fromThisMachine(folder: string): Described[] {
  const pack = async (path: string, directory: string, names: readonly string[]): Promise<void> => {
    await execute('tar', ['--xattrs', '--sort=name', '-cf', path, '-C', directory, '--', ...names]);
  };
  return [
    ['small-files', async (path) => pack(path, MODULES, await packagesUpTo(48 * MIB))],
    [
      'big-files',
      async (path) => {
        const big = join(folder, 'big');
        await mkdir(big, { recursive: true });
        const names = await slices(process.execPath, big, 4, 16 * MIB);
        await pack(path, big, names);
        await rm(big, { recursive: true });
      },
    ],
    [
      'mixed',
      (path) =>
        pack(
          path,
          '/usr',
          ['lib/python3.11', 'share/perl', 'share/zoneinfo', 'include/linux'].filter((name) =>
            existsSync(join('/usr', name)),
          ),
        ),
    ],
  ];
}

const MODULES = resolve(import.meta.dirname, '..', 'node_modules');

/** Packages in order of name until their files are `limit` bytes; what is larger than a third of it is left out. */
async function packagesUpTo(limit: number): Promise<string[]> {
  const chosen: string[] = [];
  let total = 0;
  for (const name of (await readdir(MODULES)).sort()) {
    const bytes = await apparentSize(join(MODULES, name));
    if (bytes > limit / 3) continue;
    if (total + bytes > limit) break;
    total += bytes;
    chosen.push(name);
  }
  return chosen;
}

async function apparentSize(path: string): Promise<number> {
  const { stdout } = await execute('du', ['-sb', '--', path]);
  return Number.parseInt(stdout, 10);
}

/** Cuts the head of a file into `count` files. */
async function slices(path: string, folder: string, count: number, bytes: number): Promise<string[]> {
  const source = await open(path);
  try {
    const names: string[] = [];
    for (let i = 0; i < count; i++) {
      const { buffer, bytesRead } = await source.read(Buffer.allocUnsafe(bytes), 0, bytes, i * bytes);
      const name = `slice-${i}`;
      await using file = await open(join(folder, name), 'w');
      await file.writeFile(buffer.subarray(0, bytesRead));
      names.push(name);
    }
    return names;
  } finally {
    await source.close();
  }
}
