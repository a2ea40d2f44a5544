/** The addon in worker threads: several at once, and terminated in the middle of everything it does. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { tempDir } from '../../support/temp.js';
import { addonThreads, eventually, makeTar, openDescriptors } from './native-support.js';

const engine = loadNativeEngine();
function start(workerData: Record<string, string>): Worker {
  return new Worker(new URL('native-worker.mjs', import.meta.url), { workerData });
}

function firstMessage(worker: Worker): Promise<unknown> {
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

test('several workers register and export at once', async (t) => {
  const dir = tempDir(t);
  const tar = makeTar(dir, 10, 300_000);
  const { diffID, size } = await engine.hashFile(tar);
  const workers = ['a', 'b', 'c'].map((name) => {
    mkdirSync(join(dir, name));
    return start({ dir: join(dir, name), tar, what: 'once' });
  });
  const results = await Promise.all(workers.map(firstMessage));
  await Promise.all(workers.map((worker) => worker.terminate()));
  for (const result of results) assert.deepEqual(result, { diffID, bytes: size });
});

for (const what of ['push', 'file', 'stall', 'read', 'kernel']) {
  test(`a worker that is terminated in the middle leaves the process whole: ${what}`, async (t) => {
    const dir = tempDir(t);
    const tar = makeTar(dir, 20, 200_000);
    const { diffID } = await engine.hashFile(tar);
    const before = openDescriptors();
    for (let round = 0; round < 3; round++) {
      const own = join(dir, `round-${round}`);
      mkdirSync(own);
      const worker = start({ dir: own, tar, what });
      await firstMessage(worker);
      await new Promise((resolve) => setTimeout(resolve, 7 * round));
      await worker.terminate();
    }
    assert.equal((await engine.hashFile(tar)).diffID, diffID, 'the addon works on in this thread');
    await eventually(() => openDescriptors() <= before, 'the descriptors of the workers are closed');
    await eventually(() => addonThreads().length === 0, 'the threads of the workers have ended');
  });
}
