import { UsageError, type Command } from '../command.js';
import { showSaveProgress } from '../progress.js';
import { oneOf } from '../values.js';

export const save: Command = {
  name: 'save',
  summary: 'write an image to an archive',
  usage: 'IMAGE -o FILE [--format docker|oci] [--compression none|gzip|zstd]',
  examples: [
    'layerstore save app:1 -o app.tar',
    'layerstore save app:1 --format oci --compression zstd -o app.oci.tar',
  ],
  options: {
    output: { type: 'string', short: 'o' },
    format: { type: 'string' },
    compression: { type: 'string' },
  },
  positionals: [1, 1],
  async run(context, [name = ''], values) {
    const output = values['output'];
    if (typeof output !== 'string') {
      if (context.terminal.output.isTTY === true)
        throw new UsageError('save needs -o FILE: a tar is not for a terminal');
    }
    const format = oneOf('--format', values['format'], ['docker', 'oci'] as const);
    const compression = oneOf('--compression', values['compression'], ['none', 'gzip', 'zstd'] as const);
    const images = await context.images({ readOnly: true });
    await images.save(name, typeof output === 'string' ? { path: output } : context.terminal.output, {
      ...(format === undefined ? {} : { format }),
      ...(compression === undefined ? {} : { compression }),
      signal: context.signal,
      onProgress: showSaveProgress(context.terminal, 'save'),
    });
    if (typeof output === 'string') context.terminal.result({ path: output }, () => '');
  },
};
