import type { Command } from '../command.js';

export const mount: Command = {
  name: 'mount',
  summary: 'mount an RW layer and leave it mounted',
  usage: 'NAME [--label LABEL]',
  examples: ['root=$(layerstore mount box)'],
  options: { label: { type: 'string' } },
  positionals: [1, 1],
  async run(context, [name = ''], values) {
    const rw = await (await context.store()).getRWLayer(name);
    const label = values['label'];
    // Mounted already, by an earlier call: that mount is the one, and one `umount` takes it away.
    const there = (await context.store()).mounts().get(name);
    const path = there?.path ?? (await rw.mount(typeof label === 'string' ? label : undefined));
    context.terminal.result({ name, path, mountCount: rw.mountCount }, () => path);
  },
};

export const umount: Command = {
  name: 'umount',
  summary: 'unmount an RW layer',
  usage: 'NAME',
  examples: ['layerstore umount box'],
  positionals: [1, 1],
  async run(context, [name = '']) {
    const store = await context.store();
    const rw = await store.getRWLayer(name);
    const path = store.mounts().get(name)?.path;
    await rw.unmount();
    context.terminal.result(
      { name, ...(path === undefined ? {} : { path }), mountCount: rw.mountCount },
      () => path ?? '',
    );
  },
};
