/** Every built-in driver with every engine passes the same suite. */
import { openDriver } from '../../src/driver/select.js';
import { openEngine } from '../../src/engine/select.js';
import { driverSuite } from '../../src/testing/driver-suite.js';
import { silentLogger } from '../../src/util/logger.js';

for (const engineName of ['native', 'js'] as const) {
  const engine = await openEngine({ engine: engineName });
  for (const driver of ['overlay2', 'vfs'] as const) {
    driverSuite({
      name: `${driver}, ${engineName} engine`,
      engine,
      scratch: '/var/tmp',
      factory: (root) =>
        openDriver({
          root,
          driver,
          driverOptions: {},
          engine,
          durability: 'relaxed',
          readOnly: false,
          acceptVolatile: false,
          logger: silentLogger,
        }),
    });
  }
}
