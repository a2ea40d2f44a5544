import type { Command } from '../command.js';
import { blobProgress, ProgressDisplay } from '../progress.js';
import { defined } from '../../util/defined.js';

export const push: Command = {
  name: 'push',
  summary: 'send an image to a registry',
  usage: '[-q] [--compression gzip|zstd] IMAGE [REFERENCE]',
  details:
    'Without REFERENCE the image goes where its name says. Layers that the registry has are not sent. Prints the digest of\n' +
    'the manifest. -q shows no progress.',
  examples: ['layerstore push registry.example/team/app:1', 'layerstore push app:1 localhost:5000/app:1'],
  options: { compression: { type: 'string' }, quiet: { type: 'boolean', short: 'q' } },
  positionals: [1, 2],
  completes: ['image'],
  async run(context, [image = '', reference], values) {
    const compression = values.oneOf('compression', ['gzip', 'zstd']);
    const images = await context.images('change');
    const display = new ProgressDisplay(context.terminal, 'push', values.flag('quiet'));
    const manifest = await images.push(image, reference, {
      signal: context.signal,
      ...defined({ compression }),
      onProgress: blobProgress(display, 'Pushed'),
    });
    display.end();
    context.terminal.result(manifest, () => manifest.digest);
  },
};
