/**
 * Docker's directory layout of overlay2 (moby, daemon/graphdriver/overlay2/overlay.go): paths, names, and the
 * steps that make a layer. No state, no I/O.
 */
import type { BatchOp } from '../../engine/engine.js';
import { LayerStoreError } from '../../errors.js';
import { quote } from '../../util/quote.js';
import { randomBytes } from '../../util/random-id.js';
import { isLayerID } from '../context.js';

/** Name of the directory of short links; never a layer's id. */
export const LINK_DIRECTORY = 'l';
/** Most directories that overlayfs stacks below one mount. */
export const MAX_LOWERS = 500;

const LINK_LENGTH = 26;
const LINK_ID = /^[A-Z2-7]{26}$/;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
/** `l/` and a link id, and what stands between two. */
export const LOWER_ENTRY_BYTES = LINK_DIRECTORY.length + 1 + LINK_LENGTH + 1;

/** One directory of a stack, nearest first; parents are shared by all of their children. */
export interface Lower {
  readonly id: string;
  /** The name in `l/` that stands for it. */
  readonly link: string;
  readonly next: Lower | undefined;
  /** Of this one and all below it. */
  readonly depth: number;
}

/** Where the parts of a layer lie. */
export class Layout {
  readonly home: string;
  readonly links: string;

  constructor(root: string) {
    this.home = `${root === '/' ? '' : root}/overlay2`;
    this.links = `${this.home}/${LINK_DIRECTORY}`;
  }

  directory(id: string): string {
    return `${this.home}/${id}`;
  }
  diff(id: string): string {
    return `${this.home}/${id}/diff`;
  }
  work(id: string): string {
    return `${this.home}/${id}/work`;
  }
  merged(id: string): string {
    return `${this.home}/${id}/merged`;
  }
  /** In the directory of an RW layer while it is consumed: the whiteouts that its layer does without. */
  removedWhiteoutsTar(id: string): string {
    return `${this.home}/${id}/dropped-whiteouts.tar`;
  }
  link(link: string): string {
    return `${this.links}/${link}`;
  }
}

/** A new name for `l/`: 26 base32 characters of 17 random bytes. */
export function newLinkID(): string {
  const bytes = randomBytes(17);
  let text = '';
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(held >>> bits) & 31];
    }
    held &= (1 << bits) - 1;
  }
  return text.slice(0, LINK_LENGTH);
}

export function isLinkID(text: string): boolean {
  return LINK_ID.test(text);
}

/** The id that a link of `l/` points to; `undefined` for anything but `../<id>/diff`. */
export function linkTarget(target: string): string | undefined {
  const id = /^\.\.\/([^/]+)\/diff$/.exec(target)?.[1];
  return id !== undefined && isLayerID(id) && id !== LINK_DIRECTORY ? id : undefined;
}

/** Directories of a stack, nearest first, as `path` names each. */
export function lowerPaths(lower: Lower | undefined, path: (lower: Lower) => string): string[] {
  const paths: string[] = [];
  for (let next = lower; next !== undefined; next = next.next) paths.push(path(next));
  return paths;
}

/** The content of a layer's `lower` file. */
export function lowerText(lower: Lower): string {
  return lowerPaths(lower, ({ link }) => `${LINK_DIRECTORY}/${link}`).join(':');
}

/** The link ids of a `lower` file, nearest first; ERR_LAYER_CORRUPT for whatever Docker would not have written. */
export function parseLowerText(text: string, path: string): string[] {
  const links = text.split(':').map((part) => {
    const link = part.startsWith(`${LINK_DIRECTORY}/`) ? part.slice(LINK_DIRECTORY.length + 1) : '';
    if (isLinkID(link)) return link;
    throw corrupt(path, `${quote(part)} is no "l/" and 26 characters of A-Z and 2-7`);
  });
  if (links.length > MAX_LOWERS)
    throw corrupt(path, `it names ${links.length} layers, more than the ${MAX_LOWERS} that overlayfs stacks`);
  if (new Set(links).size !== links.length) throw corrupt(path, 'it names a layer twice');
  return links;
}

/** The error for a record or a link that is not as the driver writes it. */
export function corrupt(path: string, why: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_CORRUPT',
    `cannot use "${path}": ${why}; remove the layer and register it again`,
    { path },
  );
}

export interface NewLayer {
  id: string;
  link: string;
  lower: Lower | undefined;
  /** `false`: `diff` comes from elsewhere. */
  diff: boolean;
  /** What is made is on disk at the end; only its own few files and directories are synced. */
  sync: boolean;
}

/**
 * The steps that put a layer made without a parent on `lower`. What an interrupted run left is replaced; `lower` is written
 * last and whole, since by it the layer has a parent.
 */
export function stackingSteps(layout: Layout, id: string, lower: Lower, sync: boolean): BatchOp[] {
  const directory = layout.directory(id);
  const unfinished = `${directory}/lower.new`;
  return [
    { op: 'mkdir', path: layout.work(id), mode: 0o700, existOk: true },
    { op: 'unlink', path: unfinished, missingOk: true },
    { op: 'write', path: unfinished, mode: 0o644, data: lowerText(lower), sync },
    { op: 'rename', path: unfinished, dest: `${directory}/lower` },
    ...(sync ? [layout.work(id), directory] : []).map((path) => ({ op: 'fsync' as const, path })),
  ];
}

/** The steps that make a layer; a batch takes them back when one fails. */
export function creationSteps(layout: Layout, { id, link, lower, diff, sync }: NewLayer): BatchOp[] {
  const directory = layout.directory(id);
  const steps: BatchOp[] = [{ op: 'mkdir', path: directory, mode: 0o710 }];
  if (diff) steps.push({ op: 'mkdir', path: layout.diff(id), mode: 0o755 });
  steps.push(
    { op: 'symlink', target: `../${id}/diff`, path: layout.link(link) },
    { op: 'write', path: `${directory}/link`, mode: 0o644, data: link },
  );
  if (lower !== undefined) {
    steps.push(
      { op: 'mkdir', path: layout.work(id), mode: 0o700 },
      { op: 'write', path: `${directory}/lower`, mode: 0o644, data: lowerText(lower) },
    );
  }
  if (sync) {
    // Files first: the directories that name them are synced when their contents are on disk.
    const made = steps.filter((step) => step.op === 'write').map((step) => step.path);
    if (lower !== undefined) made.push(layout.work(id));
    if (diff) made.push(layout.diff(id));
    for (const path of [...made, directory, layout.links, layout.home]) steps.push({ op: 'fsync', path });
  }
  return steps;
}
