/** Locks: one holder whatever the process, gone with it. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { runUntilItSpeaks, type OtherProcess } from '../../support/other-process.js';
import { tempDir } from '../../support/temp.js';
import { eventually } from './native-support.js';

const engine = loadNativeEngine();
const module = new URL('../../../src/engine/native/index.ts', import.meta.url).href;

/** A process that takes the lock, says so, and holds it until it is killed. */
async function holder(path: string, mode: 'exclusive' | 'shared'): Promise<OtherProcess> {
  const child = await runUntilItSpeaks(`
    const { loadNativeEngine } = await import(${JSON.stringify(module)});
    const lock = await loadNativeEngine().lock(${JSON.stringify(path)}, ${JSON.stringify(mode)});
    console.log(lock === undefined ? 'refused' : 'held');
    setInterval(() => lock, 1000);`);
  assert.equal(child.said, 'held');
  return child;
}

test('a lock has one holder in a process and between processes', async (t) => {
  const path = join(tempDir(t), 'lock');
  const mine = await engine.lock(path, 'exclusive');
  assert.ok(mine);
  assert.equal(statSync(path).mode & 0o7777, 0o600);
  assert.equal(await engine.lock(path, 'exclusive'), undefined);
  assert.equal(await engine.lock(path, 'shared'), undefined);
  await mine.release();
  await mine.release();

  const other = await holder(path, 'exclusive');
  t.after(() => other.kill());
  assert.equal(await engine.lock(path, 'exclusive'), undefined);
  assert.equal(await engine.lock(path, 'shared'), undefined);
  await other.kill();
  await eventually(async () => {
    const lock = await engine.lock(path, 'exclusive');
    await lock?.release();
    return lock !== undefined;
  }, 'a killed process lets go of its lock');
});

test('shared locks stand side by side and keep an exclusive one out', async (t) => {
  const path = join(tempDir(t), 'lock');
  const other = await holder(path, 'shared');
  t.after(() => other.kill());
  const mine = await engine.lock(path, 'shared');
  assert.ok(mine);
  assert.equal(await engine.lock(path, 'exclusive'), undefined);
  await mine.release();
  assert.equal(await engine.lock(path, 'exclusive'), undefined, 'the other process still shares it');
});
