/**
 * The registered bytes of a layer out again, in the two ways there are: put together from its files and its tar-split
 * record, or given by a driver that reproduces them by itself. Either is hashed on its way.
 */
import { createHash } from 'node:crypto';
import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type {
  Assembled,
  AssembleRequest,
  DiffGetter,
  Engine,
  Privilege,
  TreeProblem,
  WhiteoutForm,
} from '../engine/engine.js';
import { compressTo } from '../engine/js/compression.js';
import { LayerStoreError } from '../errors.js';
import { raceAbort } from '../util/abort.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../util/throttle.js';
import { writeChunks } from '../util/write-target.js';
import type { Driver, ExactLayer, ExactTarOptions, VerifyOptions } from './driver.js';
import { recordedEntries, tarEntries, type LayerEntry } from './layer-entries.js';

export type ExactTars = Pick<Driver, 'exactTar' | 'exactTarTo' | 'exactTarSize' | 'entries' | 'verify'>;

/** How the layers in the directories of a driver were made. */
export interface RecordedTree {
  readonly whiteouts: WhiteoutForm;
  readonly privilege: Privilege;
  /** Owners on disk are not compared with those of the record. */
  readonly ownersShifted: boolean;
}

/** From files and record, by the engine. */
export class RecordedTars implements ExactTars {
  readonly #engine: Engine;
  readonly #getter: (id: string) => Promise<DiffGetter>;
  readonly #tree: RecordedTree | undefined;

  /** `tree`: `undefined` where there is none to compare with the record. */
  constructor(engine: Engine, getter: (id: string) => Promise<DiffGetter>, tree: RecordedTree | undefined) {
    this.#engine = engine;
    this.#getter = getter;
    this.#tree = tree;
  }

  async exactTar(layer: ExactLayer): Promise<Readable> {
    const request = await this.#request(layer);
    try {
      const stream = await this.#engine.assemble(request);
      stream.once('close', () => void request.tree.close());
      return stream;
    } catch (error) {
      await request.tree.close();
      throw error;
    }
  }

  async exactTarTo(layer: ExactLayer, fd: number, options: ExactTarOptions): Promise<Assembled> {
    const request = await this.#request(layer);
    try {
      return await this.#engine.assembleTo({ ...request, ...options }, fd);
    } finally {
      await request.tree.close();
    }
  }

  async exactTarSize(layer: ExactLayer): Promise<number> {
    return this.#engine.recordedSize(await layer.tarSplit());
  }

  async *entries(layer: ExactLayer, signal?: AbortSignal): AsyncGenerator<LayerEntry> {
    yield* recordedEntries(await layer.tarSplit(), signal);
  }

  async verify(layer: ExactLayer, options: VerifyOptions): Promise<TreeProblem[]> {
    const tree = this.#tree;
    if (tree === undefined) return drain(await this.exactTar(layer), options.signal);
    const request = await this.#request(layer);
    try {
      const { ownersShifted, ...made } = tree;
      const problems = await this.#engine.verifyTree({ ...request, ...options, ...made });
      return ownersShifted ? problems.filter(({ what }) => what !== 'owner') : problems;
    } finally {
      await request.tree.close();
    }
  }

  async #request({ id, diffID, tarSplit: open }: ExactLayer): Promise<AssembleRequest> {
    const tarSplit = await open();
    try {
      return { tarSplit, tree: await this.#getter(id), diffID };
    } catch (error) {
      if (!('path' in tarSplit)) tarSplit.destroy();
      throw error;
    }
  }
}

/** From a driver whose differences of read-only layers are the registered bytes. */
export class ReproducedTars implements ExactTars {
  readonly #diff: (id: string, parent: string | undefined) => Promise<Readable>;

  constructor(diff: (id: string, parent: string | undefined) => Promise<Readable>) {
    this.#diff = diff;
  }

  async exactTar(layer: ExactLayer): Promise<Readable> {
    return hashed(await this.#diff(layer.id, layer.parent), layer);
  }

  async exactTarTo(layer: ExactLayer, fd: number, options: ExactTarOptions): Promise<Assembled> {
    return { ...(await writeTar(await this.exactTar(layer), fd, options)), diffID: layer.diffID };
  }

  async exactTarSize(layer: ExactLayer): Promise<number> {
    let bytes = 0;
    for await (const chunk of await this.exactTar(layer)) bytes += (chunk as Uint8Array).length;
    return bytes;
  }

  async *entries(layer: ExactLayer, signal?: AbortSignal): AsyncGenerator<LayerEntry> {
    const tar = await this.exactTar(layer);
    try {
      yield* tarEntries(tar, signal);
    } finally {
      tar.destroy();
    }
  }

  async verify(layer: ExactLayer, { signal }: VerifyOptions): Promise<TreeProblem[]> {
    return drain(await this.exactTar(layer), signal);
  }
}

/** Writes a tar where the descriptor stands, compressed where that is asked for; ends the stream however it goes. */
export async function writeTar(
  tar: Readable,
  fd: number,
  { compression, signal, onProgress }: ExactTarOptions,
): Promise<Omit<Assembled, 'diffID'>> {
  const due = atMostEvery(PROGRESS_INTERVAL);
  let bytes = 0;
  const report = (): void => onProgress?.({ bytesRead: bytes, bytesUnpacked: 0, entries: 0 });
  const counted = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of tar as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (due()) report();
      yield chunk;
    }
  };
  const stop = (): void => void tar.destroy(signal?.reason as Error);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    signal?.throwIfAborted();
    const blob = compression === undefined ? undefined : await compressTo(counted(), compression, fd, signal);
    if (blob === undefined) await writeChunks(fd, counted(), signal);
    report();
    return blob === undefined ? { bytes } : { bytes, blob };
  } catch (error) {
    signal?.throwIfAborted(); // whatever else an abort broke on its way
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
    tar.destroy();
  }
}

/** Passes bytes on and refuses to end where they were not the layer's. */
function hashed(source: Readable, { id, diffID }: ExactLayer): Readable {
  const hash = createHash('sha256');
  const check = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
    flush(done) {
      const found = `sha256:${hash.digest('hex')}`;
      if (found === diffID) return done();
      done(
        new LayerStoreError(
          'ERR_LAYER_CORRUPT',
          `the files of "${id}" give a tar of digest "${found}" instead of "${diffID}": repair the layer from the original tar`,
        ),
      );
    },
  });
  // A failure of the pipeline destroys the stream, so its reader gets the error.
  pipeline(source, check).catch(() => undefined);
  return check;
}

/** Reads a stream that checks itself to its end. */
async function drain(stream: Readable, signal: AbortSignal | undefined): Promise<TreeProblem[]> {
  const ended = (async () => {
    for await (const chunk of stream) void chunk;
  })();
  try {
    await raceAbort(ended, signal);
    return [];
  } finally {
    stream.destroy();
  }
}
