import { once } from 'node:events';
import { resolve } from 'node:path';
import { serveContainerd } from '../../containerd/index.js';
import { defined } from '../../util/defined.js';
import type { Command } from '../command.js';
import { UsageError } from '../usage-error.js';

export const containerd: Command = {
  name: 'containerd',
  summary: "serve the store as containerd's snapshotter and differ",
  usage: '--address SOCKET [--content DIR] [--containerd SOCKET] [--no-reuse]',
  details: `Takes the packages @grpc/grpc-js and @grpc/proto-loader. --content is containerd's root, where blobs are read
without passing through containerd; those that cannot be read there are asked for on --containerd, its own socket. With
neither, containerd unpacks by itself. --no-reuse has containerd fetch and unpack layers that the store has already, which
those need who push or export from containerd. The guide "Under containerd" has the configuration of the other side.`,
  examples: ['layerstore containerd --address /run/layerstore/containerd.sock --content /var/lib/containerd'],
  options: {
    address: { type: 'string' },
    content: { type: 'string' },
    containerd: { type: 'string' },
    'no-reuse': { type: 'boolean' },
  },
  positionals: [0, 0],
  completes: [],
  async run(context, _, values) {
    const address = values.text('address');
    if (address === undefined) throw new UsageError('containerd needs --address SOCKET');
    const content = values.text('content');
    const socket = values.text('containerd');
    const { signal, terminal } = context;
    const say = (_fields: object, message: string): void => terminal.note(message);
    const server = await serveContainerd({
      store: await context.store('make'),
      address: resolve(address),
      ...defined({
        contentRoot: content === undefined ? undefined : resolve(content),
        contentAddress: socket === undefined ? undefined : resolve(socket),
      }),
      reuseLayers: !values.flag('no-reuse'),
      logger: { debug: () => undefined, info: () => undefined, warn: say, error: say },
    });
    try {
      terminal.note(`layerstore: serving on ${server.address}`);
      if (!signal.aborted) await once(signal, 'abort');
    } finally {
      await server.close();
    }
  },
};
