/**
 * What an image is made of: which files each layer adds, changes and removes, and which bytes are there in vain. The tars
 * of the layers are read once each, base first, as streams; what is kept is one node a file, without its content.
 */
import { createHash } from 'node:crypto';
import type { Layer } from '../store/types.js';
import { ByteReader } from '../tar/byte-reader.js';
import { treePath } from '../tar/path.js';
import { TarReader, type TarEntry } from '../tar/reader.js';
import type { ConfigBlob } from './config.js';
import { isObject } from './json.js';
import type {
  AnalyzedFile,
  DuplicateContent,
  HistoryEntry,
  ImageAnalysis,
  LayerAnalysis,
  WastedPath,
} from './types.js';

/** Lists of the largest are cut here. */
const TOP = 100;
/** Smaller contents are not looked at as duplicates: what they cost is their names. */
const MIN_DUPLICATE = 512;
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** One path of the image as the layers so far leave it. */
interface Node {
  readonly path: string;
  /** Position of the layer that wrote it. */
  layer: number;
  /** Bytes of content; 0 for what is no regular file and for further names of one. */
  size: number;
  /** Of directories. */
  children: Map<string, Node> | undefined;
}

/** @param layers base first */
export async function analyzeImage(
  config: ConfigBlob,
  layers: readonly Layer[],
  signal: AbortSignal | undefined,
): Promise<ImageAnalysis> {
  const analysis = new Analysis();
  const history = historyOf(config, layers.length);
  const analyzed: LayerAnalysis[] = [];
  for (const [position, layer] of layers.entries()) {
    const files = await analysis.add(layer, position, signal);
    analyzed.push({
      chainID: layer.chainID,
      diffID: layer.diffID,
      history: history[position],
      added: summary(files, 'add'),
      changed: summary(files, 'modify'),
      removed: summary(files, 'delete'),
      files,
    });
  }
  return { image: config.id, layers: analyzed, ...analysis.result() };
}

class Analysis {
  readonly #root: Node = { path: '', layer: 0, size: 0, children: new Map() };
  readonly #wasted = new Map<string, { bytes: number; times: number }>();
  readonly #contents = new Map<string, { size: number; places: { path: string; layer: number }[] }>();
  #biggest: { path: string; size: number; layer: number }[] = [];
  #bytes = 0;
  #wastedBytes = 0;

  /** Reads one layer's tar on top of those before it; its files in the order of the tar. */
  async add(layer: Layer, position: number, signal: AbortSignal | undefined): Promise<AnalyzedFile[]> {
    signal?.throwIfAborted();
    const stream = await layer.tarStream();
    const files: AnalyzedFile[] = [];
    try {
      // The registration has held these to its limits already.
      const reader = new TarReader(new ByteReader(stream), {
        maxHeaderBytes: Infinity,
        maxXattrs: Infinity,
        maxXattrBytes: Infinity,
        keepRaw: false,
      });
      for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
        signal?.throwIfAborted();
        if (entry.type === 'g') {
          await reader.skipContent();
          continue;
        }
        const digest = await this.#content(reader, entry);
        const file = this.#enter(entry, position, digest);
        if (file !== undefined) files.push(file);
      }
      while ((await reader.trailing(1 << 20)) !== undefined) continue; // so that the stream checks its digest
      return files;
    } finally {
      stream.destroy();
    }
  }

  result(): Omit<ImageAnalysis, 'image' | 'layers'> {
    const wasted = [...this.#wasted].map(([path, waste]): WastedPath => ({ path, ...waste }));
    const duplicates = [...this.#contents.values()]
      .filter(({ places }) => places.length > 1)
      .map(({ size, places }): DuplicateContent => ({ size, bytes: size * (places.length - 1), files: places }));
    const efficiency = this.#bytes === 0 ? 1 : 1 - this.#wastedBytes / this.#bytes;
    return {
      bytes: this.#bytes,
      wastedBytes: this.#wastedBytes,
      efficiency,
      wasted: wasted.sort((a, b) => b.bytes - a.bytes).slice(0, TOP),
      duplicates: duplicates.sort((a, b) => b.bytes - a.bytes).slice(0, TOP),
      biggest: this.#biggest.sort((a, b) => b.size - a.size).slice(0, TOP),
    };
  }

  /** Reads an entry's content; its digest where it could be a duplicate. */
  async #content(reader: TarReader, entry: TarEntry): Promise<string | undefined> {
    if (entry.size < MIN_DUPLICATE || entry.stored === 0 || entry.regions !== undefined) {
      await reader.skipContent();
      return undefined;
    }
    const hash = createHash('sha256');
    for (let part = await reader.content(); part !== undefined; part = await reader.content()) hash.update(part);
    return hash.digest('base64');
  }

  #enter(entry: TarEntry, layer: number, digest: string | undefined): AnalyzedFile | undefined {
    const path = treePath(entry.name, entry.offset);
    if (path === '') return undefined;
    const names = path.split('/');
    const name = names.pop() as string;
    const parent = this.#directory(names, layer);
    if (name === OPAQUE) {
      for (const [key, child] of parent.children ?? []) if (child.layer < layer) this.#remove(parent, key, child);
      return undefined;
    }
    if (name.startsWith(WHITEOUT)) {
      const hidden = name.slice(WHITEOUT.length);
      const child = parent.children?.get(hidden);
      // Only what lower layers have is hidden, wherever in the tar the whiteout stands.
      const size = child === undefined || child.layer === layer ? 0 : this.#remove(parent, hidden, child);
      return { path: utf8([...names, hidden].join('/')), kind: 'delete', type: 'other', size };
    }
    const type = entryType(entry);
    const before = parent.children?.get(name);
    if (type === 'directory' && before?.children !== undefined) {
      before.layer = layer;
      return undefined;
    }
    if (before !== undefined) this.#remove(parent, name, before);
    const size = type === 'file' ? entry.size : 0;
    const node: Node = { path, layer, size, children: type === 'directory' ? new Map() : undefined };
    parent.children?.set(name, node);
    this.#bytes += size;
    if (type === 'directory') return undefined;
    const shownPath = utf8(path);
    if (digest !== undefined && type === 'file') this.#addContent(digest, shownPath, layer, size);
    this.#addBiggest({ path: shownPath, size, layer });
    return { path: shownPath, kind: before === undefined ? 'add' : 'modify', type, size };
  }

  /** The node of a directory; what is missing or no directory on the way becomes one, as the unpacking makes it. */
  #directory(names: readonly string[], layer: number): Node {
    let current = this.#root;
    for (const name of names) {
      let next = current.children?.get(name);
      if (next?.children === undefined) {
        if (next !== undefined) this.#remove(current, name, next);
        next = { path: current.path === '' ? name : `${current.path}/${name}`, layer, size: 0, children: new Map() };
        current.children?.set(name, next);
      }
      current = next;
    }
    return current;
  }

  /** Takes a node out, and counts the bytes below it as wasted; how many that were. */
  #remove(parent: Node, name: string, node: Node): number {
    parent.children?.delete(name);
    let bytes = 0;
    const waiting = [node];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      for (const child of next.children?.values() ?? []) waiting.push(child);
      if (next.size === 0) continue;
      bytes += next.size;
      const path = utf8(next.path);
      const waste = this.#wasted.get(path) ?? { bytes: 0, times: 0 };
      this.#wasted.set(path, { bytes: waste.bytes + next.size, times: waste.times + 1 });
    }
    this.#wastedBytes += bytes;
    return bytes;
  }

  #addContent(digest: string, path: string, layer: number, size: number): void {
    const known = this.#contents.get(digest);
    if (known === undefined) this.#contents.set(digest, { size, places: [{ path, layer }] });
    else known.places.push({ path, layer });
  }

  #addBiggest(file: { path: string; size: number; layer: number }): void {
    if (file.size === 0) return;
    this.#biggest.push(file);
    if (this.#biggest.length < 10 * TOP) return;
    this.#biggest = this.#biggest.sort((a, b) => b.size - a.size).slice(0, TOP);
  }
}

function summary(files: readonly AnalyzedFile[], kind: AnalyzedFile['kind']): { files: number; bytes: number } {
  let count = 0;
  let bytes = 0;
  for (const file of files) {
    if (file.kind !== kind) continue;
    count++;
    bytes += file.size;
  }
  return { files: count, bytes };
}

/** The history entry of each layer, base first: those that made one. */
function historyOf({ parsed }: ConfigBlob, layers: number): (HistoryEntry | undefined)[] {
  const entries: readonly unknown[] = Array.isArray(parsed.history) ? parsed.history : [];
  const made = entries.filter((entry): entry is HistoryEntry => isObject(entry) && entry['empty_layer'] !== true);
  return Array.from({ length: layers }, (_, index) => made[index]);
}

function entryType({ type, name }: TarEntry): AnalyzedFile['type'] | 'directory' {
  if (type === '5') return 'directory';
  if (type === '1') return 'link';
  if (type === '2') return 'symlink';
  if (type === '3' || type === '4' || type === '6') return 'other';
  return name.endsWith('/') ? 'directory' : 'file';
}

/** Names of a tar are bytes as latin1; for people they are UTF-8. */
function utf8(path: string): string {
  return Buffer.from(path, 'latin1').toString('utf8');
}
