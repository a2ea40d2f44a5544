import { formatChange } from '../../index.js';
import type { Command } from '../command.js';
import { needRWLayer } from '../resolve.js';

export const diff: Command = {
  name: 'diff',
  summary: 'what changed in an RW layer',
  usage: 'NAME',
  details: 'A line a change: A added, C changed, D deleted.',
  examples: ['layerstore diff box'],
  positionals: [1, 1],
  completes: ['rw'],
  async run(context, [name = '']) {
    const store = await context.store('read');
    const changes = await (await needRWLayer(store, name)).rw.changes();
    context.terminal.result(changes, () => changes.map(formatChange).join('\n'));
  },
};
