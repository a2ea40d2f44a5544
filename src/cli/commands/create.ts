import { LayerStoreError } from '../../index.js';
import type { Command } from '../command.js';
import type { CreateJson } from '../json.js';
import { resolveChainID } from '../resolve.js';
import { defined } from '../../util/defined.js';

export const create: Command = {
  name: 'create',
  summary: 'make a writable (RW) layer',
  usage: 'NAME [IMAGE or CHAINID] [--size SIZE]',
  details: 'Prints the name, which the other commands take.',
  examples: ['layerstore create box debian:12', 'layerstore create box 3f8a1c20'],
  options: { size: { type: 'string' } },
  positionals: [1, 2],
  completes: ['image', 'layer'],
  async run(context, [name = '', on], values) {
    const store = await context.store('make');
    if (store.mounts().has(name)) {
      throw new LayerStoreError(
        'ERR_MOUNT_NAME_CONFLICT',
        `there is an RW layer named "${name}" already: take another name, or remove that one with \`layerstore rm ${name}\``,
      );
    }
    const parent = on === undefined ? undefined : await resolveChainID(store, () => context.images('make'), on);
    const size = values.text('size');
    await store.createRWLayer(name, parent, defined({ storageOpt: size === undefined ? undefined : { size } }));
    const value: CreateJson = { name, mountID: await store.getMountID(name) };
    context.terminal.result(value, () => name);
  },
};
