/** What a report page gets to show: plain data, written into the page as JSON. */
import type { AnalyzedFile, Image, ImageAnalysis, LayerAnalysis } from '../../index.js';

export type Report = ImageReport;

export interface ImageReport {
  kind: 'image';
  /** Paths as a tree of numbered nodes: the name and the parent of each. Node 0 is the root; parents come first. */
  names: string[];
  parents: number[];
  /** The image, and the one that it is compared with. */
  images: [ReportedImage, ...ReportedImage[]];
}

export interface ReportedImage {
  name: string;
  id: string;
  /** As the configuration tells them; `''` where it does not. */
  created: string;
  platform: string;
  bytes: number;
  wastedBytes: number;
  efficiency: number;
  layers: LayerData[];
  wasted: { path: string; bytes: number; times: number }[];
  /** `files` are the first {@link MAX_COPIES} of all `copies`. */
  duplicates: { size: number; bytes: number; copies: number; files: { path: string; layer: number }[] }[];
  biggest: { path: string; size: number; layer: number }[];
}

/** One layer; its files are columns of equal length, since there may be 100,000. */
export interface LayerData {
  chainID: string;
  diffID: string;
  createdBy: string;
  comment: string;
  added: { files: number; bytes: number };
  changed: { files: number; bytes: number };
  removed: { files: number; bytes: number };
  nodes: number[];
  /** A letter a file: `a`dded, `m`odified, `d`eleted. */
  kinds: string;
  sizes: number[];
  /** Equal numbers are equal contents, in all images of the report; 0: no content. */
  contents: number[];
}

/** Copies of one content that are named. */
const MAX_COPIES = 20;

/** The first image, and the one that it is compared with. */
export function imageReport(analyzed: readonly { image: Image; analysis: ImageAnalysis }[]): ImageReport {
  const paths = new PathTable();
  const contents = new Map<string, number>();
  const contentNumber = ({ size, crc64 }: AnalyzedFile): number => {
    if (crc64 === undefined) return 0;
    const key = `${crc64} ${size}`;
    const number = contents.get(key) ?? contents.size + 1;
    contents.set(key, number);
    return number;
  };
  const layerData = ({ history, chainID, diffID, added, changed, removed, files }: LayerAnalysis): LayerData => ({
    chainID,
    diffID,
    createdBy: textOf(history?.created_by),
    comment: textOf(history?.comment),
    added,
    changed,
    removed,
    nodes: files.map(({ path }) => paths.node(path)),
    kinds: files.map(({ kind }) => kind.charAt(0)).join(''),
    sizes: files.map(({ size }) => size),
    contents: files.map(contentNumber),
  });
  const images = analyzed.map(({ image, analysis }): ReportedImage => {
    const { config } = image;
    return {
      name: image.names[0] ?? image.id,
      id: image.id,
      created: textOf(config.created),
      platform: [config.os, config.architecture, config.variant]
        .map(textOf)
        .filter((part) => part !== '')
        .join('/'),
      bytes: analysis.bytes,
      wastedBytes: analysis.wastedBytes,
      efficiency: analysis.efficiency,
      layers: analysis.layers.map(layerData),
      wasted: [...analysis.wasted],
      duplicates: analysis.duplicates.map(({ size, bytes, files }) => ({
        size,
        bytes,
        copies: files.length,
        files: files.slice(0, MAX_COPIES),
      })),
      biggest: [...analysis.biggest],
    };
  });
  const [first, ...others] = images;
  if (first === undefined) throw new TypeError('a report needs an image');
  return { kind: 'image', names: paths.names, parents: paths.parents, images: [first, ...others] };
}

/** A configuration is somebody else's: what should be text need not be. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Gives each path a number. */
class PathTable {
  readonly names = [''];
  readonly parents = [0];
  readonly #children = [new Map<string, number>()];

  node(path: string): number {
    let node = 0;
    for (const name of path.split('/')) {
      const children = this.#children[node] as Map<string, number>; // every number given out has one
      let next = children.get(name);
      if (next === undefined) {
        next = this.names.length;
        this.names.push(name);
        this.parents.push(node);
        this.#children.push(new Map());
        children.set(name, next);
      }
      node = next;
    }
    return node;
  }
}
