/** What an open by the native engine sees: it looks for the layers' directories where it reads their records. */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { openStore, type ChainID, type Store } from '../../../src/index.js';
import { tempDir } from '../../support/temp.js';
import { streamOf, tarOf } from './support.js';

interface Filled {
  chain: ChainID[];
  /** The trees of the chain, base first. */
  trees: string[];
  open: () => Promise<Store>;
  writable: () => Promise<Store>;
  root: string;
  warnings: string[];
}

/** Three layers on each other, each kept by a reference, in a store that is closed; `open` is what is tested. */
async function fill(t: TestContext, readOnly: boolean): Promise<Filled> {
  const root = tempDir(t);
  const warnings: string[] = [];
  const silent = (): void => undefined;
  const warn = (fields: object, message = ''): void => void warnings.push(`${message}: ${JSON.stringify(fields)}`);
  const logger = { debug: silent, info: silent, warn, error: warn };
  const options = { root, engine: 'native', driver: 'vfs', durability: 'relaxed', logger } as const;
  const store = await openStore(options);
  const chain: ChainID[] = [];
  const trees: string[] = [];
  for (const name of ['a', 'b', 'c']) {
    const { chainID } = await store.register(streamOf(tarOf(name)), chain.at(-1));
    await store.retain(chainID, name);
    chain.push(chainID);
    const record = join(root, 'image/vfs/layerdb/sha256', chainID.slice('sha256:'.length));
    trees.push(join(root, 'vfs/dir', readFileSync(join(record, 'cache-id'), 'latin1')));
  }
  await store.close();
  return {
    chain,
    trees,
    warnings,
    root,
    open: () => openStore({ ...options, readOnly }),
    writable: () => openStore(options),
  };
}

for (const readOnly of [false, true]) {
  const who = readOnly ? 'a reader' : 'a writer';

  test(`${who} sees all layers where each has its directory`, async (t) => {
    const { open, chain, warnings } = await fill(t, readOnly);
    const store = await open();
    assert.deepEqual([...store.map().keys()].sort(), [...chain].sort());
    await store.close();
    assert.deepEqual(warnings, []);
  });

  for (const what of ['nothing', 'a file']) {
    test(`${who} leaves out a layer with ${what} for a directory, and what is on it`, async (t) => {
      const { open, chain, trees, warnings } = await fill(t, readOnly);
      const [base, middle, top] = chain as [ChainID, ChainID, ChainID];
      const tree = trees[1] as string;
      renameSync(tree, `${tree}-elsewhere`);
      if (what === 'a file') writeFileSync(tree, '');
      const store = await open();
      assert.deepEqual([...store.map().keys()], [base]);
      await store.close();
      if (readOnly) return;
      assert.equal(warnings.filter((text) => text.startsWith('a record cannot be used and is set aside')).length, 2);
      const dangling = warnings.filter((text) => text.startsWith('a named reference is on a layer that is not there'));
      assert.equal(dangling.length, 2);
      for (const id of [middle, top]) assert.ok(dangling.some((text) => text.includes(id)));
    });
  }

  test(`${who} leaves out an RW layer without its directory, and keeps the others`, async (t) => {
    const { open, writable, chain, root } = await fill(t, readOnly);
    const store = await writable();
    for (const name of ['kept', 'lost']) await store.createRWLayer(name, chain[2]);
    await store.close();
    const id = readFileSync(join(root, 'image/vfs/layerdb/mounts/lost/mount-id'), 'latin1');
    renameSync(join(root, 'vfs/dir', id), join(root, 'elsewhere'));
    const opened = await open();
    assert.deepEqual([...opened.mounts().keys()], ['kept']);
    assert.equal(opened.map().size, 3);
    await opened.close();
  });
}
