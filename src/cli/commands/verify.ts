import type { LayerProblem, VerifyReport } from '../../index.js';
import type { Command } from '../command.js';
import { shortID } from '../format.js';
import { needChainID } from '../resolve.js';

export const verify: Command = {
  name: 'verify',
  summary: 're-read and re-hash layers; exit 1 where one is damaged',
  usage: '[CHAINID…]',
  examples: ['layerstore verify', 'layerstore verify 3f8a1c20'],
  positionals: [0, 1000],
  async run(context, ids) {
    const store = await context.store({ readOnly: true });
    const options = { signal: context.signal };
    const chosen = ids.map((id) => needChainID(store, id));
    const reports: VerifyReport[] = [];
    if (chosen.length === 0) reports.push(await store.verify(undefined, options));
    for (const chainID of chosen) reports.push(await store.verify(chainID, options));
    const value: VerifyReport = {
      layers: reports.flatMap((report) => report.layers),
      ok: reports.every((report) => report.ok),
    };
    const { terminal } = context;
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

function problemLine({ path, what, expected, found, cosmetic }: LayerProblem): string {
  return `  ${path}: ${what} is ${found}, expected ${expected}${cosmetic ? ' (cosmetic)' : ''}`;
}
