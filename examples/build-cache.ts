/**
 * A build cache: a step is a command run on a layer; its changes become a layer that is found again by a key made of the
 * parent and the command. The second run of the same steps does nothing.
 *
 *   node --import tsx examples/build-cache.ts ROOT BASE.tar 'echo hi > $ROOT/hi' 'mkdir $ROOT/srv'
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { formatChange, openStore, type ChainID, type Store } from 'layerstore';

const execute = promisify(execFile);

/** Runs one step on `parent`, or finds what an earlier run of it gave. */
async function step(store: Store, parent: ChainID, command: string): Promise<ChainID> {
  const key = `build:${createHash('sha256').update(`${parent}\n${command}`).digest('hex')}`;
  const cached = store.references().find(({ name }) => name === key);
  if (cached !== undefined) {
    console.log(`cached  ${command}`);
    return cached.chainID;
  }
  const rw = await store.createRWLayer(`build-${process.pid}-${key.slice(6, 22)}`, parent);
  try {
    {
      await using mounted = await rw.mounted();
      // A build of one's own commands; for commands from strangers enter the root in a container first.
      await execute('/bin/sh', ['-ec', command], { env: { ...process.env, ROOT: mounted.path } });
    }
    const changes = (await rw.changes()).map(formatChange);
    const layer = await store.commit(rw);
    await store.retain(layer.chainID, key, { expires: new Date(Date.now() + 30 * 24 * 3600 * 1000) });
    await store.release(layer); // the named reference keeps it
    console.log(`ran     ${command}\n          ${changes.join('\n          ')}`);
    return layer.chainID;
  } finally {
    await store.releaseRWLayer(rw);
  }
}

async function main(root: string, tar: string, commands: readonly string[]): Promise<void> {
  await using store = await openStore({ root });
  const base = await store.register({ path: tar });
  await store.retain(base.chainID, `base:${base.diffID}`);
  let chainID = base.chainID;
  for (const command of commands) chainID = await step(store, chainID, command);
  await store.release(base);
  console.log(`result  ${chainID}`);
}

const [root, tar, ...commands] = process.argv.slice(2);
if (root === undefined || tar === undefined) throw new Error('usage: build-cache.ts ROOT BASE.tar COMMAND…');
await main(root, tar, commands);
