/** A program's own driver and its own metadata store, with the required methods alone, through what the package exports. */
import { mkdir } from 'node:fs/promises';
import { openEngine, openStore } from 'layerstore';
import { createMemoryMetadataStore, driverSuite, metadataStoreSuite, storeSuite } from 'layerstore/testing';
import { CopiesDriver } from './copies-driver.js';
import { GuardedMetadataStore } from './guarded-metadata-store.js';

const engine = await openEngine({ engine: 'auto' });

driverSuite({
  name: 'one of whole copies',
  engine,
  scratch: '/var/tmp',
  factory: (root) => new CopiesDriver(root, engine),
});

metadataStoreSuite({
  name: 'one that guards another',
  persistent: false,
  factory: () => new GuardedMetadataStore(createMemoryMetadataStore()),
});

// The records of a root outlive a closed store, as those in a database of the program's would.
const records = new Map<string, GuardedMetadataStore>();
storeSuite({
  name: 'a driver and a metadata store of the program',
  scratch: '/var/tmp',
  open: async (root) => {
    const metadataStore = records.get(root) ?? new GuardedMetadataStore(createMemoryMetadataStore());
    records.set(root, metadataStore);
    const home = `${root}-copies`;
    await mkdir(home, { recursive: true });
    return openStore({ root, driver: new CopiesDriver(home, engine), metadataStore, durability: 'relaxed' });
  },
});
