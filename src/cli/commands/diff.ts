import { formatChange } from '../../index.js';
import type { Command } from '../command.js';

export const diff: Command = {
  name: 'diff',
  summary: 'what changed in an RW layer',
  usage: 'NAME',
  details: 'A line a change: A added, C changed, D deleted.',
  examples: ['layerstore diff box'],
  positionals: [1, 1],
  async run(context, [name = '']) {
    const store = await context.store({ readOnly: true });
    const changes = await (await store.getRWLayer(name)).changes();
    context.terminal.result(changes, () => changes.map(formatChange).join('\n'));
  },
};
