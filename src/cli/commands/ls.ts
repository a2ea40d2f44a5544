import type { ChainID, Image, Store } from '../../index.js';
import type { Command } from '../command.js';
import { formatBytes, formatTable, shortID } from '../format.js';
import { layerJson, type LsJson } from '../json.js';

export const ls: Command = {
  name: 'ls',
  summary: 'layers as a tree with sizes, and RW layers',
  usage: '',
  examples: ['layerstore ls', 'layerstore ls --json | jq .layers[].chainID'],
  positionals: [0, 0],
  completes: [],
  async run(context) {
    const store = await context.store('read');
    const value = await list(store);
    const images = context.options.json ? [] : (await context.images('read')).list();
    const { root } = store;
    context.terminal.result(value, () => describe(value, imageNames(images), root, context.terminal.columns));
  },
};

async function list(store: Store): Promise<LsJson> {
  const names = referencesByChain(store);
  const layers: LsJson['layers'] = [];
  for (const layer of store.map().values()) {
    layers.push({ ...(await layerJson(layer)), references: names.get(layer.chainID) ?? [] });
  }
  return { layers, rwLayers: [...store.mounts().values()] };
}

/** Names of the named references, by the layer they keep. */
export function referencesByChain(store: Store): Map<ChainID, string[]> {
  const names = new Map<ChainID, string[]>();
  for (const { name, chainID } of store.references()) names.set(chainID, [...(names.get(chainID) ?? []), name]);
  return names;
}

/** Names of images, by their top layer. */
function imageNames(images: readonly Image[]): Map<string, string[]> {
  const names = new Map<string, string[]>();
  for (const image of images) {
    if (image.chainID === undefined) continue;
    const own = image.names.length > 0 ? image.names : [`image:${shortID(image.id)}`];
    names.set(image.chainID, [...(names.get(image.chainID) ?? []), ...own]);
  }
  return names;
}

function describe(
  { layers, rwLayers }: LsJson,
  images: ReadonlyMap<string, readonly string[]>,
  root: string,
  width: number,
): string {
  const children = new Map<string, LsJson['layers']>();
  for (const layer of layers) children.set(layer.parent ?? '', [...(children.get(layer.parent ?? '') ?? []), layer]);
  const rows: string[][] = [];
  // A stack instead of recursion: chains may be raised far beyond 125.
  const waiting = [...(children.get('') ?? [])].reverse().map((layer) => ({ layer, depth: 0 }));
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { layer, depth } = next;
    const indent = depth === 0 ? '' : `${' '.repeat(Math.min(depth - 1, 12))}└ `;
    rows.push([
      `${indent}${shortID(layer.chainID)}`,
      formatBytes(layer.diffSize),
      formatBytes(layer.size),
      [...(images.get(layer.chainID) ?? []), ...layer.references]
        .map((name) => name.replace(/sha256:([a-f0-9]{12})[a-f0-9]{52}/, '$1'))
        .join(' '),
    ]);
    for (const child of [...(children.get(layer.chainID) ?? [])].reverse())
      waiting.push({ layer: child, depth: depth + 1 });
  }
  const layerTable = formatTable(
    [
      { title: 'LAYER' },
      { title: 'SIZE', right: true },
      { title: 'TOTAL', right: true },
      { title: 'KEPT BY', flexible: true },
    ],
    rows,
    width,
  );
  if (rwLayers.length === 0) return layerTable;
  const rwTable = formatTable(
    [
      { title: 'RW LAYER', flexible: true },
      { title: 'PARENT' },
      { title: 'MOUNTS', right: true },
      { title: 'MOUNTED AT', flexible: true },
    ],
    rwLayers.map((info) => [
      info.name,
      info.parent === undefined ? '' : shortID(info.parent),
      String(info.mountCount),
      info.path?.startsWith(`${root}/`) === true ? info.path.slice(root.length + 1) : (info.path ?? ''),
    ]),
    width,
  );
  return `${layerTable}\n\n${rwTable}`;
}
