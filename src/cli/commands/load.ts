import { stat } from 'node:fs/promises';
import type { Command } from '../command.js';
import { inputSource } from '../input.js';
import { imageJson } from '../json.js';
import { showImageProgress } from '../progress.js';

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
    const loaded = await images.load(inputSource(archive), {
      signal: context.signal,
      ...(typeof values['platform'] === 'string' ? { platform: values['platform'] } : {}),
      onProgress: showImageProgress(context.terminal, 'load', await sizeOf(archive)),
    });
    context.terminal.result(loaded.map(imageJson), () =>
      loaded.map((image) => `${image.names[0] ?? image.id} ${image.chainID ?? '-'}`).join('\n'),
    );
  },
};

/** Bytes of an archive; unknown for standard input and for a layout's directory. */
async function sizeOf(archive: string): Promise<number | undefined> {
  // A path that cannot be looked at is told by the load itself.
  const found = archive === '-' ? undefined : await stat(archive).catch(() => undefined);
  return found?.isFile() === true ? found.size : undefined;
}
