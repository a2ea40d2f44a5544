/** Stores made of every built-in driver and engine, with records in files and in memory, pass the same oracle. */
import { createMemoryMetadataStore } from '../../src/metadata/memory-store.js';
import type { MetadataStore } from '../../src/metadata/metadata-store.js';
import { openStore } from '../../src/store/open.js';
import { storeSuite } from '../../src/testing/store-suite.js';

for (const engine of ['native', 'js'] as const) {
  for (const driver of ['overlay2', 'vfs'] as const) {
    storeSuite({
      name: `${driver}, ${engine} engine`,
      scratch: '/var/tmp',
      open: (root) => openStore({ root, driver, engine, durability: 'relaxed' }),
    });
  }
}

/** In memory a record lasts as long as its object: one for each root. */
const inMemory = new Map<string, MetadataStore>();
storeSuite({
  name: 'overlay2, native engine, records in memory',
  scratch: '/var/tmp',
  open: (root) => {
    const metadataStore = inMemory.get(root) ?? createMemoryMetadataStore();
    inMemory.set(root, metadataStore);
    return openStore({ root, driver: 'overlay2', engine: 'native', durability: 'relaxed', metadataStore });
  },
});
