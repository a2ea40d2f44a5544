/** Named references: changes that share a write, and writes that fail. */
import assert from 'node:assert/strict';
import { rmdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { parseChainID, type ChainID } from '../../../src/digest.js';
import { References } from '../../../src/store/references.js';

const chain = (digit: string): ChainID => parseChainID(`sha256:${digit.repeat(64)}`);
const [A, B, C] = [chain('a'), chain('b'), chain('c')];
const failed = { code: 'ERR_SYSTEM' };

async function make(t: TestContext): Promise<{ path: string; references: References }> {
  const directory = await mkdtemp(join(tmpdir(), 'layerstore-references-'));
  t.after(() => rm(directory, { recursive: true }));
  const path = join(directory, 'references.json');
  return { path, references: new References(path, { sync: false, docker: [] }) };
}

/** What the references are now, and what another process would read. */
async function both(path: string, references: References): Promise<[string[], string[]]> {
  const stored = new References(path, { sync: false, docker: [] });
  assert.equal(await stored.load(), undefined);
  const lines = (of: References): string[] =>
    of
      .list()
      .map(({ name, chainID }) => `${name} ${chainID.slice(7, 8)}`)
      .sort();
  return [lines(references), lines(stored)];
}

for (const before of [undefined, C]) {
  test(`two changes of one name share a write that fails: ${before === undefined ? 'no reference' : 'the old one'} stays`, async (t) => {
    const { path, references } = await make(t);
    await references.set('other', C, undefined);
    if (before !== undefined) await references.set('name', before, undefined);
    const [was] = await both(path, references);
    await rm(path);
    await mkdir(path);
    const first = references.set('name', A, undefined);
    const second = references.set('name', B, undefined);
    const third = references.drop(['other']);
    await Promise.all([first, second, third].map((change) => assert.rejects(change, failed)));
    await rmdir(path);
    assert.deepEqual(references.list().length, was.length);
    await references.set('later', C, undefined);
    const now = [...was, 'later c'].sort();
    assert.deepEqual(await both(path, references), [now, now]);
  });
}

test('a change that waits for the next write outlives the failure of the one before', async (t) => {
  const { path, references } = await make(t);
  await references.set('name', C, undefined);
  await rm(path);
  await mkdir(path);
  const first = references.set('name', A, undefined);
  await new Promise((resolve) => setImmediate(resolve)); // its write has begun
  const dropped = references.drop(['name']);
  const again = references.set('name', B, undefined);
  // Mended before the second write comes to its rename.
  const mended = first.catch(() => rmdirSync(path));
  await Promise.all([assert.rejects(first, failed), mended, dropped, again]);
  assert.deepEqual(await both(path, references), [['name b'], ['name b']]);
});

test('the next write fails, too: what was on disk before both is true', async (t) => {
  const { path, references } = await make(t);
  await references.set('name', C, undefined);
  await rm(path);
  await mkdir(path);
  const first = references.set('name', A, undefined);
  await new Promise((resolve) => setImmediate(resolve));
  const second = references.set('name', B, undefined);
  await Promise.all([first, second].map((change) => assert.rejects(change, failed)));
  await rmdir(path);
  await references.set('later', A, undefined);
  assert.deepEqual(await both(path, references), [
    ['later a', 'name c'],
    ['later a', 'name c'],
  ]);
});

test('a reference that is being dropped or replaced keeps its layer until that is on disk', async (t) => {
  const { path, references } = await make(t);
  await references.set('dropped', A, undefined);
  await references.set('replaced', B, undefined);
  const done = Promise.all([references.drop(['dropped']), references.set('replaced', C, undefined)]);
  assert.deepEqual(
    [A, B, C].map((id) => references.holds(id)),
    [true, true, true],
  );
  await done;
  assert.deepEqual(
    [A, B, C].map((id) => references.holds(id)),
    [false, false, true],
  );
  await rm(path);
  await mkdir(path);
  await assert.rejects(references.drop(['replaced']), failed);
  assert.equal(references.holds(C), true);
});
