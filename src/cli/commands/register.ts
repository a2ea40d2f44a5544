import { parseDiffID } from '../../index.js';
import type { Command } from '../command.js';
import { inputSource } from '../input.js';
import { layerJson } from '../json.js';
import { ProgressDisplay, tarProgress } from '../progress.js';
import { cliReference } from '../reference.js';
import { resolveChainID } from '../resolve.js';
import { defined } from '../../util/defined.js';

export const register: Command = {
  name: 'register',
  summary: 'make a read-only layer from a tar',
  usage: '[--parent CHAINID or IMAGE] [--diff-id DIFFID] TAR',
  details:
    'TAR is plain, gzip or zstd, told by its content; "-" reads standard input.\n' +
    'The named reference cli:CHAINID keeps the layer until `layerstore rm`.',
  examples: ['layerstore register base.tar', 'zstdcat app.tar.zst | layerstore register --parent 3f8a1c20 -'],
  options: { parent: { type: 'string', short: 'p' }, 'diff-id': { type: 'string' } },
  positionals: [1, 1],
  completes: ['file'],
  async run(context, [tar = ''], values) {
    const store = await context.store('make');
    const on = values.text('parent');
    const parent = on === undefined ? undefined : await resolveChainID(store, () => context.images('make'), on);
    const diffID = values.text('diff-id');
    const display = new ProgressDisplay(context.terminal, 'register');
    const layer = await store.register(inputSource(tar), parent, {
      signal: context.signal,
      onProgress: tarProgress(display, 'register', 'Extracting'),
      ...defined({ diffID: diffID === undefined ? undefined : parseDiffID(diffID) }),
    });
    display.end();
    await store.retain(layer.chainID, cliReference(layer.chainID));
    const value = await layerJson(layer);
    await store.release(layer);
    context.terminal.result(value, () => value.chainID);
  },
};
