import type { Command } from '../command.js';
import { formatBytes, formatTable, shortID } from '../format.js';
import { imageJson } from '../json.js';

export const images: Command = {
  name: 'images',
  summary: 'list images',
  usage: '',
  examples: ['layerstore images'],
  positionals: [0, 0],
  async run(context) {
    const list = (await context.images({ readOnly: true })).list();
    context.terminal.result(list.map(imageJson), () =>
      formatTable(
        [
          { title: 'NAME', flexible: true },
          { title: 'IMAGE ID' },
          { title: 'TOP LAYER' },
          { title: 'SIZE', right: true },
        ],
        list.flatMap((image) =>
          (image.names.length === 0 ? ['<none>'] : image.names).map((name) => [
            name,
            shortID(image.id),
            image.chainID === undefined ? '' : shortID(image.chainID),
            formatBytes(image.size),
          ]),
        ),
        context.terminal.columns,
      ),
    );
  },
};
