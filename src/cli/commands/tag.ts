import type { Command } from '../command.js';
import { imageJson } from '../json.js';
import { needImage } from '../resolve.js';

export const tag: Command = {
  name: 'tag',
  summary: 'give an image one more name',
  usage: 'IMAGE NAME',
  details: 'Another image that has the name loses it.',
  examples: ['layerstore tag debian:12 registry.example/base:1'],
  positionals: [2, 2],
  completes: ['image'],
  async run(context, [id = '', name = '']) {
    const images = await context.images('change');
    const { id: digest } = await needImage(images, id);
    await images.tag(id, name);
    context.terminal.result(imageJson(await images.get(digest)), () => '');
  },
};
