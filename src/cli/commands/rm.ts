import { LayerStoreError, type ChainID, type Images, type LayerMetadata, type Store } from '../../index.js';
import { UsageError, type Command } from '../command.js';
import { shortID } from '../format.js';
import { cliReference } from '../reference.js';
import { isTargetType, resolveTarget } from '../resolve.js';
import { referencesByChain } from './ls.js';

export const rm: Command = {
  name: 'rm',
  summary: 'remove an RW layer, a layer or an image',
  usage: '[--type rw|layer|image] NAME or CHAINID or IMAGE',
  details:
    "An RW layer's name is tried first, then a chain id or a unique prefix of 8 digits, then an image.\n" +
    'Prints the chain ids of the read-only layers that went with it.',
  examples: ['layerstore rm box', 'layerstore rm --type image debian:12'],
  options: { type: { type: 'string' } },
  positionals: [1, 1],
  async run(context, [id = ''], values) {
    const type = values['type'];
    if (type !== undefined && (typeof type !== 'string' || !isTargetType(type))) {
      throw new UsageError('--type takes rw, layer or image');
    }
    const store = await context.store();
    const target = await resolveTarget(store, () => context.images(), id, type);
    let removed: LayerMetadata[];
    if (target.type === 'rw') removed = await store.releaseRWLayer(await store.getRWLayer(target.name));
    else if (target.type === 'image') removed = await (await context.images()).remove(id);
    else removed = await removeLayer(store, await context.images(), target.chainID);
    context.terminal.result(removed, () => removed.map(({ chainID }) => chainID).join('\n'));
  },
};

async function removeLayer(store: Store, images: Images, chainID: ChainID): Promise<LayerMetadata[]> {
  const users = [
    ...[...store.map().values()]
      .filter((layer) => layer.parent?.chainID === chainID)
      .map((layer) => `layer ${shortID(layer.chainID)}`),
    ...[...store.mounts().values()].filter((info) => info.parent === chainID).map((info) => `RW layer ${info.name}`),
    ...images
      .list()
      .filter((image) => image.chainID === chainID)
      .map((image) => `image ${image.names[0] ?? shortID(image.id)}`),
    ...(referencesByChain(store).get(chainID) ?? [])
      .filter((name) => name !== cliReference(chainID))
      .map((name) => `reference ${name}`),
  ];
  if (users.length > 0) {
    const more = users.length > 3 ? ` and ${users.length - 3} more` : '';
    throw new LayerStoreError(
      'ERR_LAYER_IN_USE',
      `layer ${shortID(chainID)} is in use by ${users.slice(0, 3).join(', ')}${more}: remove that first`,
    );
  }
  const layer = await store.get(chainID);
  if (store.references().some(({ name }) => name === cliReference(chainID))) {
    await store.dropReference(cliReference(chainID));
  }
  return store.release(layer);
}
