import type { CleanupReport, FreedItem } from '../../index.js';
import type { Command } from '../command.js';
import { formatBytes } from '../format.js';

export const gc: Command = {
  name: 'gc',
  summary: 'remove leftovers and layers that nothing refers to',
  usage: '[--dry-run]',
  examples: ['layerstore gc --dry-run', 'layerstore gc'],
  options: { 'dry-run': { type: 'boolean' } },
  positionals: [0, 0],
  completes: [],
  async run(context, _positionals, values) {
    const dryRun = values.flag('dry-run');
    // Images are references too: their source is known to the store once they are open.
    await context.images('change');
    const store = await context.store('change');
    const none: CleanupReport = { items: [], foreign: [], bytes: 0 };
    const cleanup = dryRun ? none : await store.cleanup();
    const report = await store.gc({ dryRun });
    context.terminal.result(context.terminal.json ? report.removed : undefined, () => {
      const items: FreedItem[] = [...cleanup.items, ...report.items];
      const verb = dryRun ? 'would free' : 'freed';
      return [
        ...items.map(({ kind, what, why, bytes }) => `${kind}  ${what}  ${formatBytes(bytes)}  ${why}`),
        ...report.foreign.map(({ what, why }) => `left alone  ${what}  ${why}`),
        ...(report.refused === undefined ? [] : [`nothing removed: ${report.refused}`]),
        `${verb} ${formatBytes(cleanup.bytes + report.bytes)}`,
      ].join('\n');
    });
  },
};
