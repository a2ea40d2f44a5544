import type { Command } from '../command.js';
import { layerJson } from '../json.js';
import { ProgressDisplay, tarProgress } from '../progress.js';
import { cliReference } from '../reference.js';
import { needRWLayer } from '../resolve.js';

export const commit: Command = {
  name: 'commit',
  summary: "make an RW layer's changes a read-only layer",
  usage: 'NAME [--consume]',
  details: '--consume gives the RW layer up: it must not be mounted, and nothing is copied.',
  examples: ['layerstore commit box'],
  options: { consume: { type: 'boolean' } },
  positionals: [1, 1],
  completes: ['rw'],
  async run(context, [name = ''], values) {
    const store = await context.store('change');
    const display = new ProgressDisplay(context.terminal, 'commit');
    const layer = await store.commit((await needRWLayer(store, name)).rw, {
      consume: values.flag('consume'),
      signal: context.signal,
      onProgress: tarProgress(display, 'commit', 'Copying'),
    });
    display.end();
    await store.retain(layer.chainID, cliReference(layer.chainID));
    const value = await layerJson(layer);
    await store.release(layer);
    context.terminal.result(value, () => value.chainID);
  },
};
