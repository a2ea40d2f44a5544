/** A layer's bytes out again: its exact tar, verified; a difference between layers; into a stream, a descriptor or a file. */
import { createHash } from 'node:crypto';
import { Transform, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ChainID } from '../digest.js';
import type { AssembleRequest } from '../engine/engine.js';
import { compressTo } from '../engine/js/compress.js';
import { LayerStoreError, systemError } from '../errors.js';
import { atMostEvery } from '../util/throttle.js';
import { writeChunks, writeTarget } from '../util/write-target.js';
import { checkExportOptions, checkOptions, checkText, invalid } from './arguments.js';
import type { StoreContext } from './context.js';
import type { LayerNode, Readers } from './layer-map.js';
import type { Exported, ExportOptions } from './types.js';
import { formatValue } from '../util/quote.js';

/** Milliseconds between two reports of progress. */
export const PROGRESS_INTERVAL = 100;

/** The registered bytes; the stream errors with ERR_LAYER_CORRUPT rather than end on others. */
export async function tarStream(ctx: StoreContext, node: LayerNode): Promise<Readable> {
  return guard(ctx, node.readers, async () => {
    if (ctx.driver.capabilities.reproducesExactDiffs) {
      const raw = await ctx.driver.diff(node.cacheID, node.parent?.cacheID);
      return verifying(raw, node);
    }
    const { request, release } = await assembly(ctx, node);
    try {
      const stream = await ctx.engine.assemble(request);
      stream.once('close', () => void release());
      return stream;
    } catch (error) {
      await release();
      throw error;
    }
  });
}

/** What differs from an ancestor; without one the whole tree. */
export async function tarStreamFrom(ctx: StoreContext, node: LayerNode, ancestor?: ChainID): Promise<Readable> {
  let base: string | undefined;
  if (ancestor !== undefined) {
    let found = node.parent;
    while (found !== undefined && found.chainID !== ancestor) found = found.parent;
    if (found === undefined) throw invalid(`"${ancestor}" is no ancestor of layer "${node.chainID}"`);
    base = found.cacheID;
  }
  return guard(ctx, node.readers, () =>
    ctx.driver.diffFrom === undefined ? ctx.driver.diff(node.cacheID, base) : ctx.driver.diffFrom(node.cacheID, base),
  );
}

/** Keeps the files until the stream is closed, and ends the stream with the store. */
export async function guard(ctx: StoreContext, readers: Readers, start: () => Promise<Readable>): Promise<Readable> {
  const leave = readers.enter();
  let stream: Readable;
  try {
    stream = await start();
  } catch (error) {
    leave();
    throw error;
  }
  const atClose = (): Promise<void> =>
    new Promise((closed) => {
      stream.once('close', closed);
      // Without a listener this error would end the process; a reader who listens hears it all the same.
      stream.once('error', () => undefined);
      stream.destroy(new LayerStoreError('ERR_STORE_CLOSED', 'the store was closed while this stream was read'));
    });
  const ended = (): void => {
    ctx.open.delete(atClose);
    leave();
  };
  if (stream.closed) {
    ended();
  } else {
    ctx.open.add(atClose);
    stream.once('close', ended);
  }
  return stream;
}

export async function exportTo(
  ctx: StoreContext,
  node: LayerNode,
  target: { path: string } | { fd: number },
  given?: ExportOptions,
): Promise<Exported> {
  const { path, fd } = checkTarget(target);
  const options = checkExportOptions(given);
  options.signal?.throwIfAborted();
  const write = (descriptor: number): Promise<Exported> => exportToDescriptor(ctx, node, descriptor, options);
  return fd === undefined ? intoFile(path, ctx.durability === 'strict', write) : intoDescriptor(fd, write);
}

/** A caller's descriptor stays open; its failures are told as those of a path are. */
export async function intoDescriptor<T>(fd: number, write: (fd: number) => Promise<T>): Promise<T> {
  try {
    return await write(fd);
  } catch (error) {
    throw systemError(error, 'write the export to its descriptor', 'give one that is open for writing');
  }
}

export function checkTarget(target: unknown): { path: string; fd?: undefined } | { path?: undefined; fd: number } {
  checkOptions(target, 'the target of an export', ['path', 'fd']);
  const { path, fd } = (target ?? {}) as { path?: unknown; fd?: unknown };
  if ((path === undefined) === (fd === undefined)) throw invalid('the target of an export is { path } or { fd }');
  if (path !== undefined) {
    checkText(path, 'the target\'s "path"');
    return { path: path as string };
  }
  if (!Number.isSafeInteger(fd) || (fd as number) < 0)
    throw invalid(`the target's "fd" must be an open descriptor, not ${formatValue(fd)}`);
  return { fd: fd as number };
}

/** {@link writeTarget} for code that writes to a descriptor. */
export async function intoFile<T>(path: string, sync: boolean, write: (fd: number) => Promise<T>): Promise<T> {
  try {
    return await writeTarget(path, sync, ({ fd }) => write(fd));
  } catch (error) {
    throw systemError(error, 'write the export to', 'choose a place that can be written to');
  }
}

async function exportToDescriptor(
  ctx: StoreContext,
  node: LayerNode,
  fd: number,
  options: ExportOptions,
): Promise<Exported> {
  if (ctx.driver.capabilities.reproducesExactDiffs) {
    return { ...(await writeTar(await tarStream(ctx, node), fd, options)), diffID: node.diffID };
  }
  const { request, release } = await assembly(ctx, node);
  try {
    return await ctx.engine.assembleTo({ ...request, ...options }, fd);
  } finally {
    await release();
  }
}

/** Writes a tar where the descriptor stands, compressed where that is asked for; ends the stream however it goes. */
export async function writeTar(
  tar: Readable,
  fd: number,
  { compression, signal, onProgress }: ExportOptions,
): Promise<Omit<Exported, 'diffID'>> {
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

/** Bytes of a layer's tar. */
export async function tarSize(ctx: StoreContext, node: LayerNode): Promise<number> {
  if (!ctx.driver.capabilities.reproducesExactDiffs) {
    return ctx.engine.recordedSize(await ctx.metadata.tarSplit(node.chainID));
  }
  let bytes = 0;
  for await (const chunk of await tarStream(ctx, node)) bytes += (chunk as Uint8Array).length;
  return bytes;
}

/** What an engine needs to put the tar together, and what gives it back. */
export async function assembly(
  ctx: StoreContext,
  node: LayerNode,
): Promise<{ request: AssembleRequest; release: () => Promise<void> }> {
  const tarSplit = await ctx.metadata.tarSplit(node.chainID);
  try {
    const tree = await ctx.driver.diffGetter(node.cacheID);
    return { request: { tarSplit, tree, diffID: node.diffID }, release: () => tree.close() };
  } catch (error) {
    if (!('path' in tarSplit)) tarSplit.destroy();
    throw error;
  }
}

/** Passes bytes on and refuses to end where they were not the layer's. */
function verifying(source: Readable, node: LayerNode): Readable {
  const hash = createHash('sha256');
  const check = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      hash.update(chunk);
      done(null, chunk);
    },
    flush(done) {
      const found = `sha256:${hash.digest('hex')}`;
      if (found === node.diffID) return done();
      done(
        new LayerStoreError(
          'ERR_LAYER_CORRUPT',
          `layer "${node.chainID}" gives a tar of digest "${found}" instead of "${node.diffID}": repair the layer from the original tar`,
        ),
      );
    },
  });
  // The pipeline's own failure is the stream's: whoever reads it hears it there.
  pipeline(source, check).catch(() => undefined);
  return check;
}
