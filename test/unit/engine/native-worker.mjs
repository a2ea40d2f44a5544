// What the workers of native-workers.test.ts do: `what` says it. JavaScript, so that a worker starts it on every Node.
import { createReadStream, mkdirSync, readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { register } from 'tsx/esm/api';

register();
const { loadNativeEngine } = await import('../../../src/engine/native/index.ts');

const engine = loadNativeEngine();
const { dir, tar, what } = workerData;
const forEver = () => new Promise(() => {});
let round = 0;

function request() {
  const directory = `${dir}/layer-${round++}`;
  mkdirSync(directory);
  return { directory, whiteouts: 'overlay', tarSplit: { path: `${directory}.gz` } };
}

const layer = request();
const { diffID } = await engine.ingest(createReadStream(tar), layer);
const assemble = () => engine.assemble({ tarSplit: layer.tarSplit, tree: { directory: layer.directory }, diffID });

async function* stalling() {
  yield readFileSync(tar);
  await forEver();
}

const WORK = {
  push: () => [engine.ingest(createReadStream(tar, { highWaterMark: 5000 }), request())],
  file: () => [engine.ingest({ path: tar }, request())],
  stall: () => [engine.ingest(stalling(), request())],
  read: async () => {
    (await assemble()).read(1);
    await forEver();
  },
  kernel: () =>
    Array.from({ length: 20 }, () => [
      engine.syncFs([dir]),
      engine.mounts('/'),
      engine.lock(`${dir}/lock`, 'exclusive'),
    ]).flat(),
};

if (what === 'once') {
  let bytes = 0;
  for await (const part of await assemble()) bytes += part.length;
  parentPort.postMessage({ diffID, bytes });
} else {
  parentPort.postMessage('running');
  for (;;) await Promise.all(await WORK[what]());
}
