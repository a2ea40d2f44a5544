/** A tar that is unpacked while its file is still written, by both engines. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { GrowingFile } from '../../../src/engine/growing-file.js';
import { openEngine, type Engine } from '../../../src/index.js';
import { buildTar } from '../../../src/testing/index.js';
import { tempDir } from '../../support/temp.js';
import { eventually, openDescriptors } from './native-support.js';

const CONTENT = randomBytes(1024 * 1024 + 1);
const TAR = buildTar([1, 2, 3].map((number) => ({ name: `file${number}`, content: CONTENT })));

/** A file that a test lets grow; what is wanted is asked for and given by hand. */
class Growth {
  readonly source: GrowingFile;
  readonly #path: string;
  readonly #bytes: Buffer;
  #written = 0;
  #failure: unknown;
  #wake: () => void = () => undefined;
  #news = new Promise<void>((resolve) => (this.#wake = resolve));

  constructor(t: TestContext, bytes: Buffer) {
    this.#path = join(tempDir(t, 'growing'), 'blob');
    this.#bytes = bytes;
    this.source = new GrowingFile(async () => ({
      path: this.#path,
      size: bytes.length,
      readable: async (position) => {
        while (this.#failure === undefined && this.#written <= position && this.#written < bytes.length)
          await this.#news;
        if (this.#failure !== undefined) throw this.#failure;
        return this.#written;
      },
    }));
  }

  async grow(count: number): Promise<void> {
    const file = await open(this.#path, 'a');
    await file.write(this.#bytes.subarray(this.#written, this.#written + count));
    await file.close();
    this.#written = Math.min(this.#bytes.length, this.#written + count);
    this.#tell();
  }

  fail(error: unknown): void {
    this.#failure = error;
    this.#tell();
  }

  #tell(): void {
    const wake = this.#wake;
    this.#news = new Promise((resolve) => (this.#wake = resolve));
    wake();
  }
}

function freshDirectory(t: TestContext): string {
  const directory = join(tempDir(t, 'growing'), 'layer');
  mkdirSync(directory);
  return directory;
}

for (const kind of ['native', 'js'] as const) {
  describe(`a tar whose file grows, ${kind}`, () => {
    let engine: Engine;
    const opened = openEngine({ engine: kind }).then((found) => (engine = found));

    for (const [name, bytes] of [
      ['plain', TAR],
      ['gzip', gzipSync(TAR)],
    ] as const) {
      it(`is unpacked as it comes: ${name}`, async (t) => {
        await opened;
        const growth = new Growth(t, bytes);
        const directory = freshDirectory(t);
        const blob = {
          digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` as const,
          size: bytes.length,
        };
        const done = engine.ingest(growth.source, {
          directory,
          whiteouts: 'overlay',
          blob,
        });
        await growth.grow(bytes.length - 10);
        await eventually(() => existsSync(join(directory, 'file1')), 'the first file is there before the last byte');
        await growth.grow(10);
        assert.equal((await done).tarSize, TAR.length);
        assert.deepEqual(await readFile(join(directory, 'file3')), CONTENT);
      });
    }

    it('of no bytes is an empty tar', async (t) => {
      await opened;
      const growth = new Growth(t, Buffer.alloc(0));
      await growth.grow(0);
      const directory = freshDirectory(t);
      assert.equal((await engine.ingest(growth.source, { directory, whiteouts: 'overlay' })).entries, 0);
    });

    it('fails with the error of whoever writes it', async (t) => {
      await opened;
      const growth = new Growth(t, TAR);
      const error = new Error('the connection broke for good');
      const done = assert.rejects(
        engine.ingest(growth.source, { directory: freshDirectory(t), whiteouts: 'overlay' }),
        error,
      );
      await growth.grow(100_000);
      growth.fail(error);
      await done;
    });

    for (const before of [0, 100_000]) {
      it(`is given up by an abort behind ${before} bytes`, async (t) => {
        await opened;
        const descriptors = openDescriptors();
        const growth = new Growth(t, TAR);
        const controller = new AbortController();
        const reason = new Error('enough');
        const { signal } = controller;
        const request = { directory: freshDirectory(t), whiteouts: 'overlay', signal } as const;
        const done = assert.rejects(engine.ingest(growth.source, request), reason);
        if (before > 0) await growth.grow(before);
        await turn();
        controller.abort(reason);
        await done;
        growth.fail(reason); // whoever writes stops too
        await eventually(() => openDescriptors() <= descriptors, 'no descriptor is left');
      });
    }

    it('that ends too early is a broken tar', async (t) => {
      await opened;
      const growth = new Growth(t, TAR.subarray(0, 100_000));
      const done = assert.rejects(
        engine.ingest(growth.source, { directory: freshDirectory(t), whiteouts: 'overlay' }),
        {
          code: 'ERR_BAD_TAR',
        },
      );
      await growth.grow(100_000);
      await done;
    });
  });
}
