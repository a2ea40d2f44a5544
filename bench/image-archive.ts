/** The image of the image trials as `docker save` archives: the corpus's own, or one made of the inputs. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { hashFile } from '../src/index.js';
import type { Input } from './inputs.js';

const execute = promisify(execFile);

export type ArchiveForm = 'plain' | 'gzip';

/** Nothing is made before it is asked for, and nothing twice. */
export class ImageArchive {
  readonly paths: Readonly<Record<ArchiveForm, string>>;
  readonly #scratch: string;
  readonly #inputs: readonly Input[];
  readonly #made = new Map<ArchiveForm, Promise<void>>();

  constructor(scratch: string, corpus: string | undefined, inputs: readonly Input[]) {
    const given = corpus === undefined ? '' : join(corpus, 'image.docker.tar');
    this.#scratch = scratch;
    this.#inputs = inputs;
    this.paths = {
      plain: existsSync(given) ? given : join(scratch, 'image.tar'),
      gzip: join(scratch, 'image-gzip.tar'),
    };
  }

  make(form: ArchiveForm): Promise<void> {
    let made = this.#made.get(form);
    if (made === undefined) this.#made.set(form, (made = this.#make(form)));
    return made;
  }

  /** Bytes of the plain archive. */
  async bytes(): Promise<number> {
    await this.make('plain');
    return (await stat(this.paths.plain)).size;
  }

  async #make(form: ArchiveForm): Promise<void> {
    const path = this.paths[form];
    if (existsSync(path)) return;
    const folder = join(this.#scratch, `image-${form}`);
    await mkdir(folder, { recursive: true });
    const diffIDs: string[] = [];
    const layers: string[] = [];
    for (const [index, input] of this.#inputs.entries()) {
      await input.make('plain');
      await input.make(form);
      diffIDs.push((await hashFile(input.paths.plain)).diffID);
      layers.push(`layer-${index}.tar`);
      await symlink(input.paths[form], join(folder, `layer-${index}.tar`));
    }
    const config = JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: {},
      rootfs: { type: 'layers', diff_ids: diffIDs },
    });
    const name = `${createHash('sha256').update(config).digest('hex')}.json`;
    await writeFile(join(folder, name), config);
    const manifest = [{ Config: name, RepoTags: ['bench:1'], Layers: layers }];
    await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest));
    await execute('tar', ['-chf', path, '-C', folder, 'manifest.json', name, ...layers]);
    await rm(folder, { recursive: true });
  }
}
