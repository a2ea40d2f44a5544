/** Exports a layer: its exact tar, verified, or its difference from an ancestor, to a stream, a descriptor or a file. */
import { Readable } from 'node:stream';
import type { ChainID } from '../digest.js';
import type { Driver, ExactLayer } from '../driver/driver.js';
import type { LayerEntry } from '../driver/layer-entries.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import type { FullMetadataStore } from '../metadata/metadata-store.js';
import { formatValue } from '../util/quote.js';
import { writeTarget } from '../util/write-target.js';
import { checkExportOptions, checkOptions, checkText } from './arguments.js';
import type { LayerNode, Readers } from './layer-map.js';
import type { Lifecycle } from './lifecycle.js';
import type { Exported, ExportOptions } from './types.js';

interface ExportParts {
  readonly driver: Driver;
  readonly durability: 'strict' | 'relaxed';
  readonly metadata: FullMetadataStore;
  readonly lifecycle: Lifecycle;
}

export class Exports {
  readonly #parts: ExportParts;

  constructor(parts: ExportParts) {
    this.#parts = parts;
  }

  /** The registered bytes. If the digest differs, the stream fails with ERR_LAYER_CORRUPT instead of ending. */
  async tarStream(node: LayerNode): Promise<Readable> {
    return this.guard(node.readers, () => this.#parts.driver.exactTar(this.exactLayer(node)));
  }

  /** The difference from an ancestor; without one the whole tree. */
  async tarStreamFrom(node: LayerNode, ancestor?: ChainID): Promise<Readable> {
    let base: string | undefined;
    if (ancestor !== undefined) {
      let found = node.parent;
      while (found !== undefined && found.chainID !== ancestor) found = found.parent;
      if (found === undefined) throw invalidArgument(`"${ancestor}" is not an ancestor of layer "${node.chainID}"`);
      base = found.cacheID;
    }
    return this.guard(node.readers, () => this.#parts.driver.diff(node.cacheID, base));
  }

  /** Keeps the files until the stream is closed, and ends the stream with the store. */
  async guard(readers: Readers, start: () => Promise<Readable>): Promise<Readable> {
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
        // Without a listener this error would end the process; other listeners still get it.
        stream.once('error', () => undefined);
        stream.destroy(new LayerStoreError('ERR_STORE_CLOSED', 'the store was closed while this stream was read'));
      });
    const ended = (): void => {
      this.#parts.lifecycle.ended(atClose);
      leave();
    };
    if (stream.closed) {
      ended();
    } else {
      this.#parts.lifecycle.opened(atClose);
      stream.once('close', ended);
    }
    return stream;
  }

  async exportTo(node: LayerNode, target: { path: string } | { fd: number }, given?: ExportOptions): Promise<Exported> {
    const { path, fd } = checkTarget(target);
    const options = checkExportOptions(given);
    options.signal?.throwIfAborted();
    const write = (descriptor: number): Promise<Exported> =>
      this.#parts.driver.exactTarTo(this.exactLayer(node), descriptor, options);
    return fd === undefined ? intoFile(path, this.#parts.durability === 'strict', write) : intoDescriptor(fd, write);
  }

  /** Bytes of a layer's tar. */
  async tarSize(node: LayerNode): Promise<number> {
    return this.#parts.driver.exactTarSize(this.exactLayer(node));
  }

  /** The entries of a layer's tar without their content. */
  async entries(node: LayerNode, signal: AbortSignal | undefined): Promise<AsyncIterable<LayerEntry>> {
    return this.guard(node.readers, async () =>
      Readable.from(this.#parts.driver.entries(this.exactLayer(node), signal)),
    );
  }

  /** What a driver needs to give a layer's registered bytes. */
  exactLayer(node: LayerNode): ExactLayer {
    return {
      id: node.cacheID,
      parent: node.parent?.cacheID,
      diffID: node.diffID,
      tarSplit: () => this.#parts.metadata.tarSplit(node.chainID),
    };
  }
}

/** Writes to a caller's descriptor, which stays open. Its errors become ERR_SYSTEM, as for a path. */
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
  if ((path === undefined) === (fd === undefined))
    throw invalidArgument('the target of an export is { path } or { fd }');
  if (path !== undefined) {
    checkText(path, 'the target\'s "path"');
    return { path: path as string };
  }
  if (!Number.isSafeInteger(fd) || (fd as number) < 0)
    throw invalidArgument(`the target's "fd" must be an open descriptor, not ${formatValue(fd)}`);
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
