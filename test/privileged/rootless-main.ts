/** Run by rootless.test.ts without the machine's root: makes layers, and prints what became of them, as JSON. */
import { lstatSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { LayerStoreError, openStore, type VerifyReport } from '../../src/index.js';
import { OPTION, TARS } from './rootless-tars.js';

const [root, engine, what] = process.argv.slice(2) as [string, 'native' | 'js', 'make' | 'open' | 'ignore'];

const problemsOf = ({ layers }: VerifyReport): unknown[] => layers.flatMap((layer) => layer.problems);

async function main(): Promise<unknown> {
  await using store = await openStore({
    root,
    engine,
    durability: 'relaxed',
    ...(what === 'ignore' ? { driverOptions: OPTION } : {}),
  });
  if (what === 'open') {
    const problems = problemsOf(await store.verify());
    const rw = await store.getRWLayer('box');
    const box = readdirSync(join(await rw.mount(), 'opaque'));
    await rw.unmount();
    await store.releaseRWLayer(rw);
    return { driver: store.driverName, layers: store.map().size, problems, box };
  }
  const base = await store.register(Readable.from([TARS.base]));
  await store.retain(base.chainID, 'base');
  const top = await store.register(Readable.from([TARS.top]), base.chainID);
  await store.retain(top.chainID, 'top');
  const exact = [
    (await buffer(await base.tarStream())).equals(TARS.base),
    (await buffer(await top.tarStream())).equals(TARS.top),
  ];
  const problems = problemsOf(await store.verify());
  const rw = await store.createRWLayer('box', top.chainID);
  const path = await rw.mount();
  const tree = readdirSync(path).sort();
  const hidden = readdirSync(join(path, 'opaque'));
  const node = lstatSync(join(path, 'null'));
  writeFileSync(join(path, 'written'), 'x');
  const changes = (await rw.changes()).map((change) => `${change.kind} ${change.path}`);
  await rw.unmount();
  const committed = await store.commit(rw);
  await store.retain(committed.chainID, 'committed');
  const after = await store.verify();
  const foreign = await store.register(Readable.from([TARS.foreign])).then(
    () => 'it was taken',
    (error: unknown) => (error instanceof LayerStoreError ? error.message : String(error)),
  );
  return {
    driver: store.driverName,
    privilege: store.driverStatus().find(([key]) => key === 'Privilege')?.[1],
    exact,
    problems: [...problems, ...problemsOf(after)],
    tree,
    hidden,
    standIn: node.isFile() && node.size === 0,
    changes,
    foreign,
  };
}

try {
  console.log(JSON.stringify(await main()));
} catch (error) {
  if (!(error instanceof LayerStoreError)) throw error;
  console.log(JSON.stringify({ code: error.code, message: error.message }));
}
