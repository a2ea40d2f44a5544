import { engineFeatures, openEngine } from '../../index.js';
import type { Command } from '../command.js';
import { formatTable } from '../format.js';
import type { InfoJson } from '../json.js';
import { hasStore } from '../opened.js';
import { packageVersion } from '../version.js';
import { defined } from '../../util/defined.js';

/** What a driver's status says of the engine, and the engine itself says too. */
const REPEATED = /^(Engine|Kernel|Feature .*)$/;

export const info: Command = {
  name: 'info',
  summary: 'driver, engine, and the kernel features found',
  usage: '',
  examples: ['layerstore info'],
  positionals: [0, 0],
  completes: [],
  async run(context) {
    const { root, engine: wanted = 'auto' } = context.options;
    const store = hasStore(root) ? await context.store('change') : undefined;
    // Opened anew, to hear why it is not the native one.
    let engineReason: string | undefined;
    const logger = { warn: (fields: { reason?: string }) => (engineReason = fields.reason) };
    const opened = (await openEngine({ engine: wanted, logger })).name;
    const engine = store?.engineName ?? opened;
    const value: InfoJson = {
      version: packageVersion(),
      root,
      ...defined({ driver: store?.driverName }),
      engine,
      ...defined({ engineReason }),
      node: process.version,
      status: Object.fromEntries((store?.driverStatus() ?? []).filter(([key]) => !REPEATED.test(key))),
      features: { ...(await engineFeatures(engine)) },
    };
    context.terminal.result(value, () =>
      formatTable(
        [{ title: 'WHAT' }, { title: 'VALUE' }],
        [
          ['version', value.version],
          ['root', value.root],
          ['driver', value.driver ?? 'none: no store is there yet'],
          ['engine', engineReason === undefined ? engine : `${engine}: ${engineReason}`],
          ['node', value.node],
          ...Object.entries(value.status),
          ...Object.entries(value.features),
        ],
        context.terminal.columns,
      ),
    );
  },
};
