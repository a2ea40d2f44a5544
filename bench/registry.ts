/** A registry for the trials of pulls: Debian's docker-registry on loopback, in a process of its own, with what is pulled in it. */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openImages, openStore } from '../src/index.js';
import type { ImageArchive } from './image-archive.js';

const execute = promisify(execFile);

/** Fixed, since contestants are described before anything runs. */
const PORT = 15_871;
const CAPPED_PORT = 15_872;
/** Images of the trial that pulls many at once, and megabytes of each. */
export const MANY = { images: 30, megabytes: 4 };
const HOST = `127.0.0.1:${PORT}`;

/** Nothing is started or made before it is asked for, and nothing twice. `close` ends the servers. */
export class LocalRegistry {
  /** The image of the image trials, with gzip layers. */
  readonly image = `${HOST}/bench/image:1`;
  /** The same, by connections of 20 MB a second each. */
  readonly cappedImage = `127.0.0.1:${CAPPED_PORT}/bench/image:1`;
  readonly many = Array.from({ length: MANY.images }, (_, index) => `${HOST}/bench/many${index}:1`);
  readonly #scratch: string;
  readonly #archive: ImageArchive;
  readonly #servers: ChildProcess[] = [];
  #started: Promise<void> | undefined;
  #imageMade: Promise<void> | undefined;
  #manyMade: Promise<void> | undefined;
  #capped: Promise<void> | undefined;

  constructor(scratch: string, archive: ImageArchive) {
    this.#scratch = join(scratch, 'registry');
    this.#archive = archive;
  }

  async withImage(): Promise<void> {
    await (this.#imageMade ??= this.#makeImage());
  }

  async withMany(): Promise<void> {
    await (this.#manyMade ??= this.#makeMany());
  }

  async withCap(): Promise<void> {
    await this.withImage();
    await (this.#capped ??= this.#startCapped());
  }

  close(): void {
    for (const server of this.#servers) server.kill('SIGKILL');
  }

  async #makeImage(): Promise<void> {
    await (this.#started ??= this.#start());
    await this.#archive.make('gzip');
    const store = await openStore({ root: join(this.#scratch, 'image'), durability: 'relaxed' });
    try {
      const images = await openImages(store);
      const [image] = await images.load({ path: this.#archive.paths.gzip });
      await images.push(image?.id ?? '', this.image);
    } finally {
      await store.close();
    }
  }

  async #makeMany(): Promise<void> {
    await (this.#started ??= this.#start());
    const store = await openStore({ root: join(this.#scratch, 'many'), durability: 'relaxed' });
    try {
      const images = await openImages(store);
      for (const name of this.many) {
        const directory = join(this.#scratch, 'content');
        await mkdir(directory, { recursive: true });
        for (let file = 0; file < MANY.megabytes; file++)
          await writeFile(join(directory, `file${file}`), randomBytes(1024 * 1024));
        const tar = join(this.#scratch, 'content.tar');
        await execute('tar', ['-cf', tar, '-C', directory, '.']);
        const layer = await store.register({ path: tar });
        const image = await images.create({ chainID: layer.chainID, names: [name] });
        await store.release(layer);
        await images.push(image.id);
      }
    } finally {
      await store.close();
    }
  }

  async #start(): Promise<void> {
    await mkdir(this.#scratch, { recursive: true });
    const config = join(this.#scratch, 'config.yml');
    const lines = [
      'version: 0.1',
      'log: { level: error, accesslog: { disabled: true } }',
      `storage: { filesystem: { rootdirectory: ${join(this.#scratch, 'data')} } }`,
      `http: { addr: "${HOST}" }`,
    ];
    await writeFile(config, lines.join('\n'));
    await this.#serve('docker-registry', ['serve', config], HOST);
  }

  #startCapped(): Promise<void> {
    const script = new URL('./capped-proxy.mjs', import.meta.url).pathname;
    return this.#serve(process.execPath, [script, String(CAPPED_PORT), String(PORT)], `127.0.0.1:${CAPPED_PORT}`);
  }

  async #serve(program: string, args: readonly string[], host: string): Promise<void> {
    const server = spawn(program, args, { stdio: 'ignore' });
    this.#servers.push(server);
    for (let attempt = 0; attempt < 100; attempt++) {
      if (server.exitCode !== null) break;
      const answered = await fetch(`http://${host}/v2/`).then(
        ({ ok }) => ok,
        () => false,
      );
      if (answered) return;
      await sleep(100);
    }
    throw new Error(`${program} does not answer at ${host}`);
  }
}
