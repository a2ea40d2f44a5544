import { LayerStoreError, type ChainID, type Images, type LayerMetadata, type Store } from '../../index.js';
import type { Command, Context } from '../command.js';
import { shortID } from '../format.js';
import { cliReference } from '../reference.js';
import { findTarget, resolveTarget, TARGET_TYPES, type Target } from '../resolve.js';
import { referencesByChain } from './ls.js';

export const rm: Command = {
  name: 'rm',
  summary: 'remove RW layers, layers and images',
  usage: '[-f] [--type rw|layer|image] NAME or CHAINID or IMAGE …',
  details:
    "An RW layer's name is tried first, then a chain id or a unique prefix of 8 digits, then an image.\n" +
    '-f unmounts RW layers first, and passes over what is not there. Nothing is removed where a name is\n' +
    'wrong. Prints the chain ids of the read-only layers that went.',
  examples: ['layerstore rm box', 'layerstore rm --type image debian:12', 'layerstore rm -f box-1 box-2'],
  options: { force: { type: 'boolean', short: 'f' }, type: { type: 'string' } },
  positionals: [1, 1000],
  completes: ['rw', 'image', 'layer'],
  async run(context, ids, values) {
    const type = values.oneOf('type', TARGET_TYPES);
    const force = values.flag('force');
    const store = await context.store('change');
    const images = (): Promise<Images> => context.images('change');
    const targets = new Map<string, Target>();
    for (const id of ids) {
      const target = await (force ? findTarget : resolveTarget)(store, images, id, type);
      if (target !== undefined) targets.set(id, target);
    }
    const removed: LayerMetadata[] = [];
    for (const [id, target] of targets) removed.push(...(await remove(context, store, id, target, force)));
    context.terminal.result(removed, () => removed.map(({ chainID }) => chainID).join('\n'));
  },
};

async function remove(
  context: Context,
  store: Store,
  id: string,
  target: Target,
  force: boolean,
): Promise<LayerMetadata[]> {
  const images = await context.images('change');
  if (target.type === 'image') return images.remove(id);
  if (target.type === 'layer') return removeLayer(store, images, target.chainID);
  const rw = await store.getRWLayer(target.info.name);
  if (force) while (rw.mountCount > 0) await rw.unmount();
  return store.releaseRWLayer(rw);
}

async function removeLayer(store: Store, images: Images, chainID: ChainID): Promise<LayerMetadata[]> {
  // It went with another argument of the same command.
  if (!store.map().has(chainID)) return [];
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
