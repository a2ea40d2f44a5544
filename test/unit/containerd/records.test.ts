/** The file of snapshot records: what survives, what a crash or damage does to it, and when it is written anew. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { readRecords, recordsPath, type SnapshotRecord, SnapshotRecords } from '../../../src/containerd/records.js';
import { LayerStoreError } from '../../../src/errors.js';
import { silentLogger } from '../../../src/util/logger.js';
import { tempDir } from '../../support/temp.js';

const snapshot = (name: string, more: Partial<SnapshotRecord> = {}): SnapshotRecord => ({
  name,
  kind: 'active',
  parent: '',
  created: '1795813699282911445',
  updated: '1795813699282911445',
  labels: {},
  ...more,
});

function place(t: TestContext): {
  directory: string;
  path: string;
  quarantine: string;
  warnings: string[];
  open(): Promise<SnapshotRecords>;
} {
  const base = tempDir(t, 'records');
  const directory = join(base, 'containerd');
  const quarantine = join(base, 'quarantine');
  const warnings: string[] = [];
  const logger = { ...silentLogger, warn: (_: object, message: string) => void warnings.push(message) };
  return {
    directory,
    path: recordsPath(directory),
    quarantine,
    warnings,
    async open() {
      const records = await SnapshotRecords.open({ directory, quarantine, durability: 'strict', logger });
      t.after(() => records.close());
      return records;
    },
  };
}

test('what was appended is there after a reopen, and a commit is one change', async (t) => {
  const at = place(t);
  const records = await at.open();
  const { prefix } = records;
  assert.match(prefix, /^[0-9a-f]{16}$/);
  await Promise.all([
    records.append({ snapshot: snapshot('a', { labels: { 'with "quotes"': 'and\nlines' } }) }),
    records.append({ snapshot: snapshot('b') }),
  ]);
  await records.append({ gone: 'b', snapshot: snapshot('B', { kind: 'committed', usage: { size: 1, inodes: 2 } }) });
  await records.append({ gone: 'nobody' });
  await records.close();
  const again = await at.open();
  assert.equal(again.prefix, prefix);
  assert.deepEqual(
    [...again.snapshots.values()],
    [
      snapshot('a', { labels: { 'with "quotes"': 'and\nlines' } }),
      snapshot('B', { kind: 'committed', usage: { size: 1, inodes: 2 } }),
    ],
  );
  assert.deepEqual(at.warnings, []);
  assert.equal((statSync(at.path).mode & 0o777).toString(8), '600');
  await assert.rejects(records.append({ gone: 'a' }), (error) => LayerStoreError.is(error, 'ERR_STORE_CLOSED'));
});

test('an append that a crash cut at any byte is as if it had not been made', async (t) => {
  const at = place(t);
  const records = await at.open();
  await records.append({ snapshot: snapshot('kept') });
  const before = statSync(at.path).size;
  await records.append({ gone: 'kept', snapshot: snapshot('new') });
  await records.close();
  const whole = readFileSync(at.path);
  for (let size = before; size <= whole.length; size += 1) {
    writeFileSync(at.path, whole.subarray(0, size));
    const found = await readRecords(at.directory);
    assert.deepEqual([...(found?.snapshots.keys() ?? [])], [size === whole.length ? 'new' : 'kept'], `${size} bytes`);
    assert.equal(found?.damaged, 0);
  }
  truncateSync(at.path, before + 20);
  const again = await at.open();
  assert.equal(again.damaged, false);
  await again.append({ snapshot: snapshot('next') });
  await again.close();
  assert.deepEqual([...((await readRecords(at.directory))?.snapshots.keys() ?? [])], ['kept', 'next']);
});

test('a damaged line in the middle costs itself alone, and the file as it was is kept', async (t) => {
  const at = place(t);
  const records = await at.open();
  for (const name of ['a', 'b', 'c']) await records.append({ snapshot: snapshot(name) });
  await records.close();
  const text = readFileSync(at.path, 'utf8').replace('"name":"b"', '"name":"x"');
  writeFileSync(at.path, text);
  const again = await at.open();
  assert.deepEqual([...again.snapshots.keys()], ['a', 'c']);
  assert.equal(again.damaged, true);
  assert.equal(at.warnings.length, 2);
  const [aside = ''] = readdirSync(at.quarantine);
  assert.equal(readFileSync(join(at.quarantine, aside), 'utf8'), text);
  await again.close();
  assert.equal((await readRecords(at.directory))?.damaged, 0, 'the file was written anew');
  // What was lost is lost for later opens, too: they must not take its tree for nobody's.
  const third = await at.open();
  assert.equal(third.damaged, true);
  assert.deepEqual([...third.snapshots.keys()], ['a', 'c']);
  assert.deepEqual(readdirSync(at.quarantine), [aside], 'set aside once');
  await third.close();
  rmSync(join(at.quarantine, aside));
  assert.equal((await at.open()).damaged, false);
});

test('a file that is none of ours is refused and left as it is', async (t) => {
  const at = place(t);
  const records = await at.open();
  await records.close();
  const ours = readFileSync(at.path, 'utf8');
  for (const [what, make] of Object.entries<() => void>({
    'another format': () => writeFileSync(at.path, 'something else\n'),
    'nothing at all': () => writeFileSync(at.path, ''),
    'a link': () => {
      writeFileSync(join(at.directory, 'target'), ours);
      symlinkSync('target', at.path);
    },
  })) {
    await import('node:fs/promises').then(({ rm }) => rm(at.path));
    make();
    await assert.rejects(at.open(), (error) => LayerStoreError.is(error, 'ERR_LAYER_CORRUPT'), what);
  }
});

test('a file that mostly speaks of what is gone is written anew', async (t) => {
  const at = place(t);
  const records = await at.open();
  await records.append({ snapshot: snapshot('kept') });
  const sizes: number[] = [];
  for (let round = 0; round < 60; round += 1) {
    const names = Array.from({ length: 100 }, (_, index) => `box-${round}-${index}`);
    await Promise.all(names.map((name) => records.append({ snapshot: snapshot(name) })));
    await Promise.all(names.map((name) => records.append({ gone: name })));
    sizes.push(statSync(at.path).size);
  }
  assert.ok(Math.max(...sizes) < 2_000_000, `at most ${Math.max(...sizes)} bytes`);
  assert.ok(
    sizes.some((size, index) => size < (sizes[index - 1] ?? 0)),
    'it became shorter',
  );
  await records.close();
  assert.deepEqual([...((await readRecords(at.directory))?.snapshots.keys() ?? [])], ['kept']);
});

test('ten thousand snapshots are read whole', async (t) => {
  const at = place(t);
  const records = await at.open();
  await Promise.all(
    Array.from({ length: 10_000 }, (_, index) =>
      records.append({
        snapshot: snapshot(`k8s.io/${index}/sha256:${'ab'.repeat(32)}`, {
          tree: `${index}`,
          labels: { 'containerd.io/snapshot.ref': 'x'.repeat(71) },
        }),
      }),
    ),
  );
  await records.close();
  const began = performance.now();
  const again = await at.open();
  t.diagnostic(`${(performance.now() - began).toFixed(0)} ms`);
  assert.equal(again.snapshots.size, 10_000);
});
