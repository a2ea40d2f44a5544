import type { Command } from '../command.js';
import { imageJson } from '../json.js';
import { blobProgress, ProgressDisplay } from '../progress.js';
import { defined } from '../../util/defined.js';

export const pull: Command = {
  name: 'pull',
  summary: 'fetch an image from a registry',
  usage: '[-q] [--platform OS/ARCH[/VARIANT]] REFERENCE',
  details:
    'REFERENCE is [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]; without a host it is at Docker Hub. Credentials are those of\n' +
    '`docker login` and `podman login`; mirrors and authorities come from /etc/containerd/certs.d or /etc/docker/certs.d.\n' +
    'A pull that was interrupted goes on where it was. -q shows no progress.',
  examples: ['layerstore pull debian:12', 'layerstore pull --platform linux/arm64 ghcr.io/team/app:1.0'],
  options: { platform: { type: 'string' }, quiet: { type: 'boolean', short: 'q' } },
  positionals: [1, 1],
  completes: [],
  async run(context, [reference = ''], values) {
    const platform = values.text('platform');
    const images = await context.images('make');
    const display = new ProgressDisplay(context.terminal, 'pull', values.flag('quiet'));
    const image = await images.pull(reference, {
      signal: context.signal,
      ...defined({ platform }),
      onProgress: blobProgress(display, 'Pull complete'),
    });
    display.end();
    context.terminal.result(imageJson(image), () => image.id);
  },
};
