/**
 * What an image is made of: which files each layer adds, changes and removes, and which bytes are there in vain. The entries
 * of the layers' tars are read once each, base first; no content is read. What is kept is one node a file.
 */
import { isUtf8 } from 'node:buffer';
import type { LayerEntry } from '../driver/layer-entries.js';
import type { Layer } from '../store/types.js';
import { defined } from '../util/defined.js';
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
  /** As people read it. */
  readonly path: string;
  /** Position of the layer that wrote it. */
  layer: number;
  /** Bytes of content; 0 for what is no regular file and for further names of one. */
  readonly size: number;
  /** Of directories. */
  readonly children: Map<string, Node> | undefined;
}

/** @param layers base first */
export async function analyzeImage(
  config: ConfigBlob,
  layers: readonly Layer[],
  signal: AbortSignal | undefined,
): Promise<ImageAnalysis> {
  const tree = new ImageTree();
  const history = historyOf(config, layers.length);
  const analyzed: LayerAnalysis[] = [];
  for (const [position, layer] of layers.entries()) {
    const changes = new LayerChanges(tree, position);
    for await (const entry of await layer.entries(defined({ signal }))) changes.enter(entry);
    const { files } = changes;
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
  return { image: config.id, layers: analyzed, ...tree.result() };
}

/** The image's files as the layers so far leave them, and what was lost on the way. */
class ImageTree {
  readonly root: Node = { path: '', layer: 0, size: 0, children: new Map() };
  readonly #wasted = new Map<string, { bytes: number; times: number }>();
  readonly #contents = new Map<string, { size: number; files: { path: string; layer: number }[] }>();
  #biggest: { path: string; size: number; layer: number }[] = [];
  #bytes = 0;
  #wastedBytes = 0;

  addFile(path: string, size: number, layer: number, crc64: string | undefined): void {
    this.#bytes += size;
    if (size === 0) return;
    this.#biggest.push({ path, size, layer });
    if (this.#biggest.length >= 10 * TOP) this.#biggest = biggestOf(this.#biggest);
    if (size < MIN_DUPLICATE || crc64 === undefined) return;
    const content = `${crc64} ${size}`;
    const known = this.#contents.get(content);
    if (known === undefined) this.#contents.set(content, { size, files: [{ path, layer }] });
    else known.files.push({ path, layer });
  }

  /** Takes a node out, and counts the bytes below it as wasted; how many that were. */
  remove(parent: Node, name: string, node: Node): number {
    parent.children?.delete(name);
    let bytes = 0;
    const waiting = [node];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      for (const child of next.children?.values() ?? []) waiting.push(child);
      if (next.size === 0) continue;
      bytes += next.size;
      const waste = this.#wasted.get(next.path) ?? { bytes: 0, times: 0 };
      this.#wasted.set(next.path, { bytes: waste.bytes + next.size, times: waste.times + 1 });
    }
    this.#wastedBytes += bytes;
    return bytes;
  }

  result(): Omit<ImageAnalysis, 'image' | 'layers'> {
    const wasted = [...this.#wasted].map(([path, waste]): WastedPath => ({ path, ...waste }));
    const duplicates = [...this.#contents.values()]
      .filter(({ files }) => files.length > 1)
      .map(({ size, files }): DuplicateContent => ({ size, bytes: size * (files.length - 1), files }));
    return {
      bytes: this.#bytes,
      wastedBytes: this.#wastedBytes,
      efficiency: this.#bytes === 0 ? 1 : 1 - this.#wastedBytes / this.#bytes,
      wasted: wasted.sort((a, b) => b.bytes - a.bytes).slice(0, TOP),
      duplicates: duplicates.sort((a, b) => b.bytes - a.bytes).slice(0, TOP),
      biggest: biggestOf(this.#biggest),
    };
  }
}

function biggestOf<T extends { size: number }>(files: T[]): T[] {
  return files.sort((a, b) => b.size - a.size).slice(0, TOP);
}

/** Puts the entries of one layer on top of those before it, and lists what that changed. */
class LayerChanges {
  readonly #tree: ImageTree;
  readonly #layer: number;
  readonly #files: (AnalyzedFile | undefined)[] = [];
  /** Where in the list the removals by an opaque marker or a directory are: what comes back at the path is a change. */
  readonly #removals = new Map<string, number>();

  constructor(tree: ImageTree, layer: number) {
    this.#tree = tree;
    this.#layer = layer;
  }

  /** In the order of the layer's tar. */
  get files(): AnalyzedFile[] {
    return this.#files.filter((file) => file !== undefined);
  }

  enter(entry: LayerEntry): void {
    const names = namesOf(entry);
    const name = names.pop();
    if (name === undefined) return;
    const parent = this.#directory(names);
    if (name === OPAQUE) {
      for (const [key, child] of parent.children ?? [])
        if (child.layer < this.#layer) this.#replaced(parent, key, child);
    } else if (name.startsWith(WHITEOUT)) {
      this.#whiteout(parent, name.slice(WHITEOUT.length));
    } else if (entry.type === 'directory') {
      this.#enterDirectory(parent, name).layer = this.#layer;
    } else {
      this.#enterFile(parent, name, entry);
    }
  }

  #whiteout(parent: Node, name: string): void {
    const child = parent.children?.get(name);
    // Only what lower layers have is hidden, wherever in the tar the whiteout stands.
    const size = child === undefined || child.layer === this.#layer ? 0 : this.#tree.remove(parent, name, child);
    this.#files.push(removal(pathBelow(parent, name), size));
  }

  #enterFile(parent: Node, name: string, { type: tarType, size, crc64 }: LayerEntry): void {
    const before = parent.children?.get(name);
    if (before !== undefined) this.#tree.remove(parent, name, before);
    const path = before?.path ?? pathBelow(parent, name);
    parent.children?.set(name, { path, layer: this.#layer, size, children: undefined });
    this.#tree.addFile(path, size, this.#layer, crc64);
    const removed = this.#removals.get(path);
    if (removed !== undefined) {
      this.#files[removed] = undefined;
      this.#removals.delete(path);
    }
    const kind = before === undefined && removed === undefined ? 'add' : 'modify';
    const type = tarType === 'file' || tarType === 'link' || tarType === 'symlink' ? tarType : 'other';
    this.#files.push({ path, kind, type, size, crc64 });
  }

  /** The node of a directory; what is missing or no directory on the way becomes one, as the unpacking makes it. */
  #directory(names: readonly string[]): Node {
    let current = this.#tree.root;
    for (const name of names) current = this.#enterDirectory(current, name);
    return current;
  }

  #enterDirectory(parent: Node, name: string): Node {
    const before = parent.children?.get(name);
    if (before?.children !== undefined) return before;
    if (before !== undefined) this.#replaced(parent, name, before);
    const made: Node = { path: pathBelow(parent, name), layer: this.#layer, size: 0, children: new Map() };
    parent.children?.set(name, made);
    return made;
  }

  /** Something goes without a whiteout of its own. */
  #replaced(parent: Node, name: string, node: Node): void {
    this.#removals.set(node.path, this.#files.length);
    this.#files.push(removal(node.path, this.#tree.remove(parent, name, node)));
  }
}

function removal(path: string, size: number): AnalyzedFile {
  return { path, kind: 'delete', type: 'other', size, crc64: undefined };
}

function pathBelow(parent: Node, name: string): string {
  const shown = name.startsWith('\0') ? Buffer.from(name.slice(1), 'latin1').toString() : name;
  return parent.path === '' ? shown : `${parent.path}/${shown}`;
}

/**
 * The names on the way to an entry, each once for each sequence of bytes: those that are no UTF-8 are kept as latin1 behind
 * a NUL, which no name holds.
 */
function namesOf({ path, rawPath }: LayerEntry): string[] {
  if (path === '') return [];
  if (rawPath === undefined) return path.split('/');
  const parts = Buffer.from(rawPath).toString('latin1').split('/');
  return parts.map((part) => {
    const bytes = Buffer.from(part, 'latin1');
    return isUtf8(bytes) ? bytes.toString() : `\0${part}`;
  });
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
