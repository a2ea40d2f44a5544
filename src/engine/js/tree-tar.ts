/** The tar of a tree or of a difference between trees: docs/on-disk-format.md, "The tar of an RW layer". */
import type { BigIntStats } from 'node:fs';
import { Readable } from 'node:stream';
import { LayerStoreError, systemError } from '../../errors.js';
import { encodeHeader, padding, type HeaderFields } from '../../tar/encode.js';
import { shown } from '../../tar/errors.js';
import type { TreeTarRequest } from '../engine.js';
import { collectChanges, TreeComparison, type Source, type Visit } from './changes.js';
import { deviceNumbers } from './copy.js';
import { byBytes } from './directory.js';
import * as fs from './fs.js';
import { isOverlayXattr } from './layer-directory.js';
import { defined } from '../../util/defined.js';

const READ_SIZE = 256 * 1024;
const CHUNK = 64 * 1024;

/** A part of a tar: bytes as they are, or a file whose content follows. */
export type TarPiece =
  | { raw: Buffer; entry?: { name: string } }
  | { file: { name: string; size: number; content: () => AsyncGenerator<Buffer> } };

/** See {@link Engine.treeTar}. */
export async function treeTar(request: TreeTarRequest): Promise<Readable> {
  const comparison = await openForTar(request);
  const stream = Readable.from(joined(request, comparison), {
    objectMode: false,
    highWaterMark: 4 * CHUNK,
    ...defined({ signal: request.signal }),
  });
  // A stream that is destroyed before it is read never starts its generator.
  stream.once('close', () => void comparison.close().catch(() => undefined));
  return stream;
}

/** The comparison that {@link tarPieces} walks. In overlay form the lower tree is not looked at. */
export function openForTar(request: TreeTarRequest): Promise<TreeComparison> {
  return TreeComparison.open(request, request.upper.whiteouts === 'plain');
}

async function* joined(request: TreeTarRequest, comparison: TreeComparison): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let bytes = 0;
  const take = function* (chunk: Buffer): Generator<Buffer> {
    held.push(chunk);
    bytes += chunk.length;
    if (bytes < CHUNK) return;
    yield Buffer.concat(held);
    held = [];
    bytes = 0;
  };
  try {
    for await (const piece of tarPieces(request, comparison)) {
      if ('raw' in piece) yield* take(piece.raw);
      else for await (const chunk of piece.file.content()) yield* take(chunk);
    }
    if (held.length > 0) yield Buffer.concat(held);
  } finally {
    await comparison.close();
  }
}

/** Something to write, with the path that tells its place. */
type Item = { key: string } & (
  | { kind: 'entry'; path: string; stat: BigIntStats; source: Source }
  | { kind: 'whiteout'; path: string; source?: Source }
  | { kind: 'opaque'; path: string; stat: BigIntStats }
);

/** A whiteout that the tar leaves out, since what it hides is not in `whiteoutsOf`. */
export interface DroppedWhiteout {
  path: string;
  source: Source | undefined;
}

/**
 * The tar in pieces; file contents must be read in their turn, and to their end.
 * @param dropped gets the whiteouts that are left out, all of them before the first piece comes
 */
export async function* tarPieces(
  request: TreeTarRequest,
  comparison: TreeComparison,
  dropped: DroppedWhiteout[] = [],
): AsyncGenerator<TarPiece> {
  const all = request.upper.whiteouts === 'plain' ? await plainItems(comparison) : await overlayItems(comparison);
  const items = await withoutNeedless(request, all, dropped);
  items.sort((a, b) => byBytes(a.key, b.key));
  const names = new Map<string, string>();
  for (const item of items) {
    request.signal?.throwIfAborted();
    if (item.kind === 'entry') yield* entryPieces(item, names, request.sparse === true);
    else yield { raw: encodeHeader(markerFields(item)), entry: { name: markerName(item) } };
  }
  yield { raw: Buffer.alloc(1024) };
}

async function withoutNeedless(request: TreeTarRequest, items: Item[], dropped: DroppedWhiteout[]): Promise<Item[]> {
  const { whiteoutsOf, signal } = request;
  if (whiteoutsOf === undefined) return items;
  const tree =
    whiteoutsOf.directories.length === 0
      ? undefined // nothing to hide anything of
      : await TreeComparison.open({ upper: whiteoutsOf, ...defined({ signal }) });
  try {
    const kept: Item[] = [];
    for (const item of items) {
      if (item.kind !== 'whiteout' || (await tree?.has(item.path)) === true) kept.push(item);
      else dropped.push({ path: item.path, source: item.source });
    }
    return kept;
  } finally {
    await tree?.close();
  }
}

/** The tar that puts whiteouts back. */
export function whiteoutTar(paths: readonly string[]): Buffer {
  const headers = paths.map((path) => encodeHeader(markerFields({ key: path, kind: 'whiteout', path })));
  return Buffer.concat([...headers, Buffer.alloc(1024)]);
}

/** Every name of the upper directories, as it is. */
async function overlayItems(comparison: TreeComparison): Promise<Item[]> {
  const items: Item[] = [];
  for await (const visit of comparison.walk()) {
    if (visit.kind === 'whiteout') {
      if (comparison.hasLower)
        items.push({ key: visit.path, kind: 'whiteout', path: visit.path, source: visit.source });
    } else if (visit.kind === 'present') {
      addPresent(items, visit);
      if (visit.opaque && comparison.hasLower)
        items.push({ key: `${visit.path}/`, kind: 'opaque', path: visit.path, stat: visit.stat });
    }
  }
  return items;
}

/** What differs between two plain trees. */
async function plainItems(comparison: TreeComparison): Promise<Item[]> {
  const items: Item[] = [];
  for (const { path, kind, visit } of await collectChanges(comparison)) {
    if (kind === 'delete') items.push({ key: path, kind: 'whiteout', path });
    else if (visit.kind === 'present') addPresent(items, visit);
  }
  return items;
}

function addPresent(items: Item[], visit: Extract<Visit, { kind: 'present' }>): void {
  const { path, stat, source } = visit;
  if (stat.isSocket()) return; // a tar has no sockets
  if (path.slice(path.lastIndexOf('/') + 1).startsWith('.wh.')) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `"${shown(path)}" cannot be put into a layer: its name is that of a whiteout; rename it`,
      {
        path: shown(path),
      },
    );
  }
  items.push({ key: path, kind: 'entry', path, stat, source });
}

function markerName(item: Extract<Item, { kind: 'whiteout' | 'opaque' }>): string {
  if (item.kind === 'opaque') return `${item.path}/.wh..wh..opq`;
  const slash = item.path.lastIndexOf('/') + 1;
  return `${item.path.slice(0, slash)}.wh.${item.path.slice(slash)}`;
}

function markerFields(item: Extract<Item, { kind: 'whiteout' | 'opaque' }>): HeaderFields {
  const common = { name: markerName(item), type: '0' as const, size: 0, mtimeNs: 0n };
  if (item.kind === 'whiteout') return { ...common, mode: 0o600, uid: 0, gid: 0 };
  return { ...common, mode: Number(item.stat.mode) & 0o777, uid: Number(item.stat.uid), gid: Number(item.stat.gid) };
}

async function* entryPieces(
  item: Extract<Item, { kind: 'entry' }>,
  names: Map<string, string>,
  sparse: boolean,
): AsyncGenerator<TarPiece> {
  const { path, stat, source } = item;
  const fields: HeaderFields = {
    name: stat.isDirectory() ? `${path}/` : path,
    type: '0',
    mode: Number(stat.mode),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: 0,
    mtimeNs: stat.mtimeNs,
  };
  if (!stat.isDirectory() && stat.nlink > 1n) {
    const inode = `${String(stat.dev)}:${String(stat.ino)}`;
    const first = names.get(inode);
    if (first !== undefined) {
      yield { raw: encodeHeader({ ...fields, type: '1', linkName: first }), entry: { name: path } };
      return;
    }
    names.set(inode, path);
  }
  fields.xattrs = (await source.layer.xattrs(source.path)).filter(([name]) => !isOverlayXattr(name));
  if (stat.isFile()) {
    yield* filePieces(item, fields, sparse);
    return;
  }
  if (stat.isDirectory()) fields.type = '5';
  else if (stat.isSymbolicLink()) {
    fields.type = '2';
    fields.linkName = await source.layer.readlink(source.path);
  } else if (stat.isFIFO()) fields.type = '6';
  else {
    fields.type = stat.isCharacterDevice() ? '3' : '4';
    [fields.major, fields.minor] = deviceNumbers(stat.rdev);
  }
  yield { raw: encodeHeader(fields), entry: { name: fields.name } };
}

async function* filePieces(
  item: Extract<Item, { kind: 'entry' }>,
  fields: HeaderFields,
  sparse: boolean,
): AsyncGenerator<TarPiece> {
  const { source, stat } = item;
  const size = Number(stat.size);
  if (sparse && stat.blocks * 512n < stat.size) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `"${shown(item.path)}" may have holes, and Node cannot ask where (SEEK_HOLE); leave "sparse" out, or use the native engine`,
      { path: shown(item.path) },
    );
  }
  fields.size = size;
  yield { raw: encodeHeader(fields), ...(size === 0 ? { entry: { name: fields.name } } : {}) };
  if (size === 0) return;
  yield { file: { name: fields.name, size, content: () => fileContent(source, size) } };
  yield { raw: padding(size) };
}

/** Exactly `size` bytes: of a file that grew meanwhile its first ones, of one that shrank zeros at the end. */
async function* fileContent(source: Source, size: number): AsyncGenerator<Buffer> {
  let fd: number;
  try {
    fd = await source.layer.root.openFile(source.path);
  } catch (error) {
    throw systemError(error, 'read the file', undefined, { path: source.layer.root.describe(source.path) });
  }
  try {
    for (let at = 0; at < size;) {
      const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, size - at));
      const count = await fs.read(fd, buffer, 0, buffer.length, at);
      const chunk = count === 0 ? buffer.fill(0) : buffer.subarray(0, count);
      at += chunk.length;
      yield chunk;
    }
  } catch (error) {
    throw systemError(error, 'read the file', undefined, { path: source.layer.root.describe(source.path) });
  } finally {
    await fs.close(fd);
  }
}
