import type { Command } from '../command.js';
import { formatBytes, formatTable, shortID } from '../format.js';
import { imageJson } from '../json.js';

export const images: Command = {
  name: 'images',
  summary: 'list images',
  usage: '[-q]',
  details: '-q prints the ids alone.',
  examples: ['layerstore images', 'layerstore rmi $(layerstore images -q)'],
  options: { quiet: { type: 'boolean', short: 'q' } },
  positionals: [0, 0],
  completes: [],
  async run(context, _positionals, values) {
    const list = (await context.images('read')).list();
    const quiet = values.flag('quiet');
    context.terminal.result(list.map(imageJson), () =>
      quiet
        ? list.map(({ id }) => shortID(id)).join('\n')
        : formatTable(
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
