/** Both metadata stores, and the file store without its fast and safe extras, pass the same suite. */
import { openEngine } from '../../src/engine/select.js';
import { openFileMetadataStore } from '../../src/metadata/file-store.js';
import { createMemoryMetadataStore } from '../../src/metadata/memory-store.js';
import { silentLogger } from '../../src/util/logger.js';
import { metadataStoreSuite } from '../../src/testing/metadata-store-suite.js';

for (const engineName of ['native', 'js'] as const) {
  for (const durability of ['strict', 'relaxed'] as const) {
    metadataStoreSuite({
      name: `files, ${durability}, ${engineName} engine`,
      persistent: true,
      factory: async (directory) =>
        openFileMetadataStore({
          directory,
          pendingMounts: `${directory}-pending`,
          durability,
          readOnly: false,
          logger: silentLogger,
          engine: await openEngine({ engine: engineName }),
        }),
    });
  }
}

metadataStoreSuite({ name: 'memory', persistent: false, factory: () => createMemoryMetadataStore() });

/** Only what the interface requires: what a program's own store may be like. */
metadataStoreSuite({
  name: 'the required methods alone',
  persistent: false,
  factory: () => {
    const whole = createMemoryMetadataStore();
    return new Proxy(whole, {
      get(target, key) {
        if (key === 'replaceTarSplit') return undefined;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  },
});
