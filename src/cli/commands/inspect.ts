import type { Images, Store } from '../../index.js';
import type { Command } from '../command.js';
import { imageJson, layerJson, type InspectJson } from '../json.js';
import { resolveTarget, TARGET_TYPES, type Target } from '../resolve.js';
import { referencesByChain } from './ls.js';

export const inspect: Command = {
  name: 'inspect',
  summary: 'show one layer, RW layer or image whole',
  usage: '[--type rw|layer|image] ID',
  examples: ['layerstore inspect 3f8a1c20', 'layerstore inspect --type image debian:12'],
  options: { type: { type: 'string' } },
  positionals: [1, 1],
  completes: ['rw', 'layer', 'image'],
  async run(context, [id = ''], values) {
    const type = values.oneOf('type', TARGET_TYPES);
    const store = await context.store('read');
    const images = (): Promise<Images> => context.images('read');
    const value = await whole(store, await resolveTarget(store, images, id, type));
    context.terminal.result(value, () => JSON.stringify(value, null, 2));
  },
};

async function whole(store: Store, target: Target): Promise<InspectJson> {
  if (target.type === 'image') return { type: 'image', ...imageJson(target.image), config: target.image.config };
  if (target.type === 'rw') {
    const rw = await store.getRWLayer(target.info.name);
    return { type: 'rw', ...target.info, size: await rw.size(), metadata: await rw.metadata() };
  }
  const layer = await store.get(target.chainID);
  const references = referencesByChain(store).get(target.chainID) ?? [];
  return { type: 'layer', ...(await layerJson(layer)), references, metadata: await layer.metadata() };
}
