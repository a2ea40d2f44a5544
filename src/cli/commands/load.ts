import type { Command } from '../command.js';
import { inputSource } from '../input.js';
import { imageJson } from '../json.js';
import { loadProgress, ProgressDisplay } from '../progress.js';
import { UsageError } from '../usage-error.js';
import { defined } from '../../util/defined.js';

export const load: Command = {
  name: 'load',
  summary: 'take in every image of an archive or an OCI layout',
  usage: '[-q] [--platform OS/ARCH] [ARCHIVE or -i ARCHIVE]',
  details:
    'ARCHIVE is a `docker save` archive, an OCI archive or an OCI layout directory. Without it, or with "-",\n' +
    'standard input is read. -q shows no progress.',
  examples: ['docker save debian:12 | layerstore load', 'layerstore load ./oci-layout'],
  options: {
    input: { type: 'string', short: 'i' },
    platform: { type: 'string' },
    quiet: { type: 'boolean', short: 'q' },
  },
  positionals: [0, 1],
  completes: ['file'],
  async run(context, [given], values) {
    const archive = given ?? values.text('input') ?? '-';
    if (given !== undefined && values.text('input') !== undefined)
      throw new UsageError('load takes one archive: as an argument or with -i');
    if (archive === '-' && process.stdin.isTTY)
      throw new UsageError('load needs an archive: a path, or a pipe on standard input');
    const platform = values.text('platform');
    const images = await context.images('make');
    const display = new ProgressDisplay(context.terminal, 'load', values.flag('quiet'));
    const loaded = await images.load(inputSource(archive), {
      signal: context.signal,
      ...defined({ platform }),
      onProgress: loadProgress(display),
    });
    display.end();
    context.terminal.result(loaded.map(imageJson), () =>
      loaded.map((image) => `${image.names[0] ?? image.id} ${image.chainID ?? '-'}`).join('\n'),
    );
  },
};
