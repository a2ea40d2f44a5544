import { pipeline } from 'node:stream/promises';
import { UsageError, type Command } from '../command.js';
import { formatBytes, formatDuration, formatRate } from '../format.js';
import { needChainID } from '../resolve.js';

export const exportLayer: Command = {
  name: 'export',
  summary: "write a layer's tar, byte for byte and verified",
  usage: 'CHAINID [-o FILE]',
  examples: ['layerstore export 3f8a1c20 -o layer.tar', 'layerstore export 3f8a1c20 | sha256sum'],
  options: { output: { type: 'string', short: 'o' } },
  positionals: [1, 1],
  async run(context, [id = ''], values) {
    const { terminal } = context;
    const output = values['output'];
    if (output === undefined && terminal.output.isTTY === true) {
      throw new UsageError('export needs -o FILE or a pipe: a tar is not for a terminal');
    }
    const store = await context.store({ readOnly: true });
    const layer = await store.get(needChainID(store, id));
    if (typeof output !== 'string') {
      await pipeline(await layer.tarStream(), terminal.output, { signal: context.signal, end: false });
      return;
    }
    const started = performance.now();
    const { bytes, diffID } = await layer.exportTo({ path: output });
    const elapsed = performance.now() - started;
    if (terminal.interactive) {
      terminal.note(`${formatBytes(bytes)} in ${formatDuration(elapsed)}, ${formatRate(bytes, elapsed)}, verified`);
    }
    terminal.result({ bytes, diffID }, () => '');
  },
};
