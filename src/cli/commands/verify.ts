import type { ChainID, Images, LayerProblem, Store, VerifyReport } from '../../index.js';
import type { Command } from '../command.js';
import { shortID } from '../format.js';
import { resolveTarget } from '../resolve.js';

export const verify: Command = {
  name: 'verify',
  summary: 're-read and re-hash layers; exit 1 where one is damaged',
  usage: '[CHAINID or IMAGE or NAME …]',
  details: 'An image or an RW layer stands for every layer that it is made of. Without arguments: every layer.',
  examples: ['layerstore verify', 'layerstore verify 3f8a1c20 debian:12'],
  positionals: [0, 1000],
  completes: ['layer', 'image', 'rw'],
  async run(context, ids) {
    const { terminal, signal } = context;
    const store = await context.store('read');
    const chosen = ids.length === 0 ? [undefined] : await layersOf(store, () => context.images('read'), ids);
    const reports: VerifyReport[] = [];
    for (const chainID of chosen) reports.push(await store.verify(chainID, { signal }));
    const value: VerifyReport = {
      layers: reports.flatMap((report) => report.layers),
      ok: reports.every((report) => report.ok),
    };
    terminal.result(value, () =>
      value.layers
        .map(({ chainID, ok, problems }) =>
          [
            `${shortID(chainID)}  ${ok ? terminal.style('green', 'ok') : terminal.style('red', 'DAMAGED')}`,
            ...problems.slice(0, 20).map(problemLine),
            ...(problems.length > 20 ? [`  … and ${problems.length - 20} more`] : []),
          ].join('\n'),
        )
        .join('\n'),
    );
    return value.ok ? 0 : 1;
  },
};

/** The layers that the arguments name, each once. */
async function layersOf(store: Store, images: () => Promise<Images>, ids: readonly string[]): Promise<ChainID[]> {
  const chosen = new Set<ChainID>();
  for (const id of ids) {
    const target = await resolveTarget(store, images, id);
    if (target.type === 'layer') {
      chosen.add(target.chainID);
      continue;
    }
    const top = target.type === 'image' ? target.image.chainID : target.info.parent;
    for (let layer = top && store.map().get(top); layer !== undefined; layer = layer.parent) chosen.add(layer.chainID);
  }
  return [...chosen];
}

function problemLine({ path, what, expected, found, cosmetic }: LayerProblem): string {
  return `  ${path}: ${what} is ${found}, expected ${expected}${cosmetic ? ' (cosmetic)' : ''}`;
}
