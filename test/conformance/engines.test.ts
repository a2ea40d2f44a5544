/** Both engines pass the same suite. */
import { openEngine } from '../../src/engine/select.js';
import { engineSuite } from '../../src/testing/engine-suite.js';

for (const engine of ['native', 'js'] as const) {
  engineSuite({ name: engine, scratch: '/var/tmp', factory: () => openEngine({ engine }) });
}
