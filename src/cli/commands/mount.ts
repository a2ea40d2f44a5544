import { LayerStoreError } from '../../index.js';
import type { Command } from '../command.js';
import type { MountJson } from '../json.js';
import { needRWLayer } from '../resolve.js';
import { defined } from '../../util/defined.js';

export const mount: Command = {
  name: 'mount',
  summary: 'mount an RW layer and leave it mounted',
  usage: 'NAME [--label LABEL]',
  examples: ['root=$(layerstore mount box)'],
  options: { label: { type: 'string' } },
  positionals: [1, 1],
  completes: ['rw'],
  async run(context, [name = ''], values) {
    const { rw, info } = await needRWLayer(await context.store('change'), name);
    // Mounted already, by an earlier call: that mount is the one, and one `umount` takes it away.
    const path = info.path ?? (await rw.mount(values.text('label')));
    const value: MountJson = { name, path, mountCount: rw.mountCount };
    context.terminal.result(value, () => path);
  },
};

export const umount: Command = {
  name: 'umount',
  summary: 'unmount an RW layer',
  usage: 'NAME',
  examples: ['layerstore umount box'],
  positionals: [1, 1],
  completes: ['rw'],
  async run(context, [name = '']) {
    const { rw, info } = await needRWLayer(await context.store('change'), name);
    if (info.mountCount === 0) throw new LayerStoreError('ERR_NOT_MOUNTED', `RW layer "${name}" is not mounted`);
    await rw.unmount();
    const value: MountJson = {
      name,
      ...defined({ path: info.path }),
      mountCount: rw.mountCount,
    };
    context.terminal.result(value, () => info.path ?? '');
  },
};
