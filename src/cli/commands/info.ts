import { engineFeatures } from '../../index.js';
import type { Command } from '../command.js';
import { formatTable } from '../format.js';
import type { InfoJson } from '../json.js';
import { packageVersion } from '../version.js';

/** What a driver's status says of the engine, and the engine itself says too. */
const REPEATED = /^(Engine|Kernel|Feature .*)$/;

export const info: Command = {
  name: 'info',
  summary: 'driver, engine, and the kernel features found',
  usage: '',
  examples: ['layerstore info'],
  positionals: [0, 0],
  async run(context) {
    const store = await context.store();
    const value: InfoJson = {
      version: packageVersion(),
      root: context.options.root,
      driver: store.driverName,
      engine: store.engineName,
      node: process.version,
      status: Object.fromEntries(store.driverStatus().filter(([key]) => !REPEATED.test(key))),
      features: { ...(await engineFeatures(store.engineName)) },
    };
    context.terminal.result(value, () =>
      formatTable(
        [{ title: 'WHAT' }, { title: 'VALUE' }],
        [
          ['version', value.version],
          ['root', value.root],
          ['driver', value.driver],
          ['engine', value.engine],
          ['node', value.node],
          ...Object.entries(value.status),
          ...Object.entries(value.features),
        ],
        context.terminal.columns,
      ),
    );
  },
};
