/**
 * A store in memory for the tests of images: it checks what a store checks (digests, sizes, diff ids, parents) and counts
 * handles and reads, so that a test can say that nothing was left and nothing was read twice.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import { createChainID, type ChainID, type DiffID } from '../../../src/digest.js';
import { LayerStoreError } from '../../../src/errors.js';
import type { TarSource } from '../../../src/engine/engine.js';
import { tarEntries } from '../../../src/driver/layer-entries.js';
import { compressTo } from '../../../src/engine/js/compression.js';
import type { Descriptor } from '../../../src/metadata/metadata-store.js';
import type {
  ChainLink,
  ExportOptions,
  Layer,
  LayerMetadata,
  RegisterOptions,
  Store,
} from '../../../src/store/types.js';

interface Node {
  chainID: ChainID;
  diffID: DiffID;
  parent: Node | undefined;
  tar: Buffer;
  descriptor: Descriptor | undefined;
  handles: Set<Layer>;
}

function sha256(bytes: Uint8Array): `sha256:${string}` {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

async function readSource(source: TarSource): Promise<Buffer> {
  const stream =
    'path' in source ? createReadStream(source.path, range(source)) : (source as AsyncIterable<Uint8Array>);
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part as Uint8Array);
  return Buffer.concat(parts);
}

function range({ offset, length }: { offset?: number; length?: number }): { start?: number; end?: number } {
  return offset === undefined || length === undefined ? {} : { start: offset, end: offset + length - 1 };
}

export class FakeStore {
  readonly driverName = 'overlay2';
  readonly durability = 'relaxed';
  readOnly = false;
  closed = false;
  /** Diff ids in the order in which their bytes were read. */
  readonly read: DiffID[] = [];
  readonly sources: (() => Promise<Iterable<ChainID>>)[] = [];
  readonly rwLayers = new Map<string, { name: string; mountID: string; parent: ChainID; mountCount: number }>();
  readonly nodes = new Map<ChainID, Node>();

  private constructor(readonly root: string) {}

  static async open(): Promise<FakeStore & Store> {
    const root = await mkdtemp(join(tmpdir(), 'layerstore-image-test-'));
    await mkdir(join(root, 'layerstore'));
    return new FakeStore(root) as unknown as FakeStore & Store;
  }

  async dispose(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }

  /** Every handle that is out. */
  get handles(): number {
    return [...this.nodes.values()].reduce((sum, node) => sum + node.handles.size, 0);
  }

  addReferenceSource(source: () => Promise<Iterable<ChainID>>): void {
    this.sources.push(source);
  }

  addLeftoverSource(): void {
    // Nothing is pulled into it.
  }

  map(): ReadonlyMap<ChainID, Layer> {
    return new Map([...this.nodes].map(([chain, node]) => [chain, this.#layer(node)]));
  }

  mounts(): ReadonlyMap<string, unknown> {
    return this.rwLayers;
  }

  async refresh(): Promise<void> {
    // One process, one state.
  }

  async get(chainID: ChainID): Promise<Layer> {
    const node = this.nodes.get(chainID);
    if (node === undefined) throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `no ${chainID}`);
    return this.#handle(node);
  }

  async register(tar: TarSource, parent?: ChainID, options?: RegisterOptions): Promise<Layer> {
    return this.registerChain([{ tar, diffID: undefined as unknown as DiffID }], parent, options);
  }

  async registerChain(links: readonly ChainLink[], parent?: ChainID, options?: RegisterOptions): Promise<Layer> {
    options?.signal?.throwIfAborted();
    let node = parent === undefined ? undefined : this.nodes.get(parent);
    if (parent !== undefined && node === undefined)
      throw new LayerStoreError('ERR_LAYER_DOES_NOT_EXIST', `no ${parent}`);
    const settled = await Promise.allSettled(links.map((link) => this.#ingest(link)));
    const failure = settled.find((result) => result.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
    for (const [index, result] of settled.entries()) {
      const { tar, diffID } = (result as PromiseFulfilledResult<{ tar: Buffer; diffID: DiffID }>).value;
      const chainID = createChainID([diffID], node?.chainID) as ChainID;
      const there = this.nodes.get(chainID);
      node = there ?? { chainID, diffID, parent: node, tar, descriptor: links[index]?.descriptor, handles: new Set() };
      this.nodes.set(chainID, node);
    }
    return this.#handle(node as Node);
  }

  async release(layer: Layer): Promise<LayerMetadata[]> {
    let node = this.nodes.get(layer.chainID);
    if (node === undefined || !node.handles.delete(layer))
      throw new LayerStoreError('ERR_LAYER_NOT_RETAINED', 'no handle');
    const removed: LayerMetadata[] = [];
    while (
      node !== undefined &&
      node.handles.size === 0 &&
      ![...this.nodes.values()].some(({ parent }) => parent === node)
    ) {
      if ([...this.rwLayers.values()].some(({ parent }) => parent === node?.chainID)) break;
      this.nodes.delete(node.chainID);
      removed.push({ chainID: node.chainID, diffID: node.diffID, size: 0, diffSize: 0 });
      node = node.parent;
    }
    return removed;
  }

  async #ingest({ tar, diffID, descriptor, onProgress }: ChainLink): Promise<{ tar: Buffer; diffID: DiffID }> {
    const bytes = await readSource(tar);
    if (descriptor !== undefined && (descriptor.size !== bytes.length || descriptor.digest !== sha256(bytes))) {
      throw new LayerStoreError('ERR_DIGEST_MISMATCH', 'the blob is not what its descriptor says');
    }
    const plain = bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes;
    if (plain.length > 0 && plain.length % 512 !== 0)
      throw new LayerStoreError('ERR_BAD_TAR', 'the tar ends in the middle');
    const found = sha256(plain) as DiffID;
    if (diffID !== undefined && diffID !== found)
      throw new LayerStoreError('ERR_DIGEST_MISMATCH', `diff id ${found}, not ${diffID}`);
    this.read.push(found);
    onProgress?.({ bytesRead: bytes.length, bytesUnpacked: plain.length, entries: 1 });
    return { tar: plain, diffID: found };
  }

  #handle(node: Node): Layer {
    const layer = this.#layer(node);
    node.handles.add(layer);
    return layer;
  }

  #layer(node: Node): Layer {
    const parent = (): Layer | undefined => (node.parent === undefined ? undefined : this.#layer(node.parent));
    return {
      chainID: node.chainID,
      diffID: node.diffID,
      descriptor: node.descriptor,
      get parent() {
        return parent();
      },
      size: async () => node.tar.length + ((await parent()?.size()) ?? 0),
      diffSize: async () => node.tar.length,
      tarStream: async () => Readable.from([node.tar]),
      tarSize: async () => node.tar.length,
      entries: async () => tarEntries(Readable.from([node.tar]), undefined),
      exportTo: async ({ fd }: { fd: number }, { compression }: ExportOptions = {}) => {
        const exported = { bytes: node.tar.length, diffID: node.diffID };
        if (compression !== undefined) {
          const blob = await compressTo(Readable.from([node.tar]), compression, fd);
          return { ...exported, blob };
        }
        writeSync(fd, node.tar);
        return exported;
      },
    } as unknown as Layer;
  }
}
