import type { Images, Store } from '../../index.js';
import { UsageError, type Command } from '../command.js';
import { imageJson, layerJson, type InspectJson } from '../json.js';
import { isTargetType, resolveTarget, type Target } from '../resolve.js';
import { referencesByChain } from './ls.js';

export const inspect: Command = {
  name: 'inspect',
  summary: 'show one layer, RW layer or image whole',
  usage: '[--type rw|layer|image] ID',
  examples: ['layerstore inspect 3f8a1c20', 'layerstore inspect --type image debian:12'],
  options: { type: { type: 'string' } },
  positionals: [1, 1],
  async run(context, [id = ''], values) {
    const type = values['type'];
    if (type !== undefined && (typeof type !== 'string' || !isTargetType(type))) {
      throw new UsageError('--type takes rw, layer or image');
    }
    const store = await context.store({ readOnly: true });
    const images = (): Promise<Images> => context.images({ readOnly: true });
    const value = await whole(store, await resolveTarget(store, images, id, type));
    context.terminal.result(value, () => JSON.stringify(value, null, 2));
  },
};

async function whole(store: Store, target: Target): Promise<InspectJson> {
  if (target.type === 'image') return { type: 'image', ...imageJson(target.image), config: target.image.config };
  if (target.type === 'rw') {
    const rw = await store.getRWLayer(target.name);
    const info = store.mounts().get(target.name);
    if (info === undefined) throw new Error(`RW layer "${target.name}" went away meanwhile`);
    return { type: 'rw', ...info, size: await rw.size(), metadata: await rw.metadata() };
  }
  const layer = await store.get(target.chainID);
  const references = referencesByChain(store).get(target.chainID) ?? [];
  return { type: 'layer', ...(await layerJson(layer)), references, metadata: await layer.metadata() };
}
