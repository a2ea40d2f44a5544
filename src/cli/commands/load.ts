import type { Command } from '../command.js';
import { inputSource } from '../input.js';
import { imageJson } from '../json.js';
import { progressLine } from '../progress.js';

export const load: Command = {
  name: 'load',
  summary: 'take in every image of an archive or an OCI layout',
  usage: '[--platform OS/ARCH] ARCHIVE',
  details: 'ARCHIVE is a `docker save` archive, an OCI archive or an OCI layout directory; "-" reads standard input.',
  examples: ['docker save debian:12 | layerstore load -', 'layerstore load ./oci-layout'],
  options: { platform: { type: 'string' } },
  positionals: [1, 1],
  async run(context, [archive = ''], values) {
    const images = await context.images();
    const started = performance.now();
    const loaded = await images.load(inputSource(archive), {
      signal: context.signal,
      ...(typeof values['platform'] === 'string' ? { platform: values['platform'] } : {}),
      onProgress: (progress) => {
        const { layer, layers, bytesRead, totalBytes } = progress;
        context.terminal.status(
          progressLine(`layer ${layer + 1} of ${layers}`, bytesRead, totalBytes, performance.now() - started),
        );
      },
    });
    context.terminal.result(loaded.map(imageJson), () =>
      loaded.map((image) => `${image.names[0] ?? image.id} ${image.chainID}`).join('\n'),
    );
  },
};
