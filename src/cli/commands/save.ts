import type { Command } from '../command.js';
import { ProgressDisplay, saveProgress } from '../progress.js';
import { needImage } from '../resolve.js';
import { UsageError } from '../usage-error.js';
import { defined } from '../../util/defined.js';

export const save: Command = {
  name: 'save',
  summary: 'write images to an archive',
  usage: '[-q] IMAGE … -o FILE [--format docker|oci] [--compression none|gzip|zstd]',
  examples: [
    'layerstore save app:1 app:2 -o app.tar',
    'layerstore save app:1 --format oci --compression zstd -o app.oci.tar',
  ],
  options: {
    output: { type: 'string', short: 'o' },
    format: { type: 'string' },
    compression: { type: 'string' },
    quiet: { type: 'boolean', short: 'q' },
  },
  positionals: [1, 1000],
  completes: ['image'],
  async run(context, names, values) {
    const output = values.text('output');
    if (output === undefined && context.terminal.output.isTTY === true) {
      throw new UsageError('save needs -o FILE or a pipe: a tar is not for a terminal');
    }
    const format = values.oneOf('format', ['docker', 'oci']);
    const compression = values.oneOf('compression', ['none', 'gzip', 'zstd']);
    const images = await context.images('read');
    for (const name of names) await needImage(images, name);
    const display = new ProgressDisplay(context.terminal, 'save', values.flag('quiet'));
    await images.save(names, output === undefined ? context.terminal.output : { path: output }, {
      ...defined({ format, compression }),
      signal: context.signal,
      onProgress: saveProgress(display),
    });
    display.end();
    if (output !== undefined) context.terminal.result({ path: output }, () => '');
  },
};
