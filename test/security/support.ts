/** What the tests of attacks share: both engines, a victim that must stay as it is, and tars that never end. */
import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import type { Engine, IngestRequest } from '../../src/engine/engine.js';
import { openEngine } from '../../src/engine/select.js';
import { LayerStoreError, type ErrorCode } from '../../src/errors.js';
import { unpack, type Unpacked } from '../../src/testing/engine-suite-tars.js';
import { buildTar, type TarEntry } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';

export const ENGINES = ['native', 'js'] as const;

export interface Scene {
  t: TestContext;
  engine: Engine;
  directory: string;
  victim: Victim;
  /** Ingests the entries, or the bytes, into a tree of its own. */
  attack: (input: readonly TarEntry[] | Uint8Array | Readable, request?: Partial<IngestRequest>) => Promise<Unpacked>;
}

/** One test for each engine. */
export function attackTest(name: string, body: (scene: Scene) => Promise<void>): void {
  for (const engineName of ENGINES) {
    test(`${name} (${engineName})`, async (t) => {
      const directory = tempDir(t, 'security');
      const engine = await openEngine({ engine: engineName });
      let count = 0;
      await body({
        t,
        engine,
        directory,
        victim: new Victim(join(directory, 'victim')),
        attack: (input, request = {}) => {
          const source =
            input instanceof Readable
              ? input
              : Readable.from([input instanceof Uint8Array ? input : buildTar(input)], { objectMode: false });
          count += 1;
          return unpack(engine, directory, source, { name: `tree${count}`, ...request });
        },
      });
    });
  }
}

/** A directory with a file that every attack is after. */
export class Victim {
  readonly directory: string;
  readonly file: string;
  readonly #before: string;

  constructor(directory: string) {
    this.directory = directory;
    this.file = join(directory, 'file');
    mkdirSync(directory, { mode: 0o700 });
    writeFileSync(this.file, 'secret', { mode: 0o600 });
    this.#before = this.#look();
  }

  #look(): string {
    return [this.directory, this.file]
      .map((path) => {
        const { mode, uid, gid, nlink, mtimeMs, ino } = lstatSync(path);
        return [path, mode, uid, gid, nlink, mtimeMs, ino].join(' ');
      })
      .join('\n');
  }

  /** Nothing was made, read into the layer, changed or removed. */
  assertUntouched(what = ''): void {
    assert.deepEqual(readdirSync(this.directory), ['file'], what);
    assert.equal(readFileSync(this.file, 'utf8'), 'secret', what);
    assert.equal(this.#look(), this.#before, what);
  }
}

/** For `assert.rejects`: one of these codes, said in a sentence. */
export function refusal(...codes: readonly ErrorCode[]): (error: unknown) => true {
  return (error) => {
    if (!LayerStoreError.is(error)) throw error;
    assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
    assert.ok(error.message.length > 20 && error.message.length < 2000, error.message);
    return true;
  };
}

/** Chunks given one after another, never all in memory. */
export function streamOf(chunks: Iterable<Uint8Array>): Readable {
  return Readable.from(chunks, { objectMode: false });
}

export function* repeated(chunk: Uint8Array, times: number): Generator<Uint8Array> {
  for (let i = 0; i < times; i++) yield chunk;
}
