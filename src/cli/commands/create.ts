import { LayerStoreError, type ChainID } from '../../index.js';
import type { Command } from '../command.js';
import { resolveTarget } from '../resolve.js';

export const create: Command = {
  name: 'create',
  summary: 'make a writable (RW) layer',
  usage: 'NAME [IMAGE or CHAINID] [--size SIZE]',
  examples: ['layerstore create box debian:12', 'layerstore create box 3f8a1c20'],
  options: { size: { type: 'string' } },
  positionals: [1, 2],
  async run(context, [name = '', on], values) {
    const store = await context.store();
    let parent: ChainID | undefined;
    if (on !== undefined) {
      const target = await resolveTarget(store, () => context.images(), on);
      if (target.type === 'rw') {
        throw new LayerStoreError(
          'ERR_INVALID_ARGUMENT',
          `"${on}" is an RW layer: commit it first, then create on the layer that this gives`,
        );
      }
      parent = target.type === 'layer' ? target.chainID : target.image.chainID;
    }
    const size = values['size'];
    await store.createRWLayer(name, parent, typeof size === 'string' ? { storageOpt: { size } } : {});
    const mountID = await store.getMountID(name);
    context.terminal.result({ name, mountID }, () => mountID);
  },
};
