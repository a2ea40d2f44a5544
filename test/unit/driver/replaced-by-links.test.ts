/**
 * Directories of the store that a link has replaced, at the next open or while the store is open: whatever a driver does
 * with the layer is refused, and nothing behind the link is shown, changed or mounted on.
 */
import assert from 'node:assert/strict';
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { GraphDriver } from '../../../src/driver/graph-driver.js';
import { LayerStoreError } from '../../../src/errors.js';
import { tempDir } from '../../support/temp.js';
import { overlay2, snapshot, vfs } from './fixture.js';

const refused = (error: unknown): boolean =>
  LayerStoreError.is(error, 'ERR_LAYER_CORRUPT') || LayerStoreError.is(error, 'ERR_LAYER_DOES_NOT_EXIST');

type Use = (driver: GraphDriver) => Promise<unknown>;

const uses = (id: string): Record<string, Use> => ({
  view: (driver) => driver.view?.(id) as Promise<string>,
  get: (driver) => driver.get(id),
  diff: (driver) => driver.diff(id),
  changes: (driver) => driver.changes(id),
  diffSize: (driver) => driver.diffSize(id),
  diffGetter: (driver) => driver.diffGetter(id),
  usage: (driver) => driver.usage?.(id) as Promise<unknown>,
  applyDiff: (driver) => driver.applyDiff(id, undefined, Readable.from([]), {}),
  commitDiff: (driver) =>
    driver.commitDiff?.('new', undefined, id, undefined, {
      consume: false,
      tarSplit: { path: '/nonexistent/tar-split' },
    }) as Promise<unknown>,
});

/** Which directory becomes a link, and what must not follow it. */
const CASES: { name: string; directory: string; uses: Record<string, Use> }[] = [
  { name: 'diff of a base layer', directory: 'overlay2/base/diff', uses: uses('base') },
  { name: 'diff of an RW layer', directory: 'overlay2/rw/diff', uses: uses('rw') },
  { name: "a layer's own directory", directory: 'overlay2/rw', uses: uses('rw') },
  {
    name: 'diff of a lower layer',
    directory: 'overlay2/base/diff',
    uses: {
      view: (driver) => driver.view?.('top') as Promise<string>,
      get: (driver) => driver.get('rw'),
      diff: (driver) => driver.diff('top'),
      changes: (driver) => driver.changes('rw', 'base'),
    },
  },
  { name: 'work', directory: 'overlay2/rw/work', uses: { get: (driver) => driver.get('rw') } },
  { name: 'mount point', directory: 'overlay2/rw/merged', uses: { get: (driver) => driver.get('rw') } },
  {
    name: 'mount point of a view',
    directory: 'overlay2/top/merged',
    uses: { view: (driver) => driver.view?.('top') as Promise<string> },
  },
  { name: 'vfs tree', directory: 'vfs/dir/base', uses: uses('base') },
  {
    name: 'mount point of a vfs view',
    directory: 'layerstore/views/base',
    uses: { view: (driver) => driver.view?.('base') as Promise<string> },
  },
  {
    name: 'mount points of vfs views',
    directory: 'layerstore/views',
    uses: { view: (driver) => driver.view?.('base') as Promise<string> },
  },
];

for (const { name, directory, uses: all } of CASES) {
  for (const [use, run] of Object.entries(all)) {
    for (const when of ['while the store is open', 'before it is opened']) {
      test(`${name} is a link, ${when}: ${use}`, async (t) => {
        const { root, engine, driver, reopen } = directory.startsWith('overlay2') ? overlay2(t) : vfs(t);
        await driver.create('base');
        await driver.create('top', 'base');
        await driver.createReadWrite('rw', 'base', {});
        const host = tempDir(t, 'host');
        for (const below of ['diff', 'work', 'work/work']) mkdirSync(join(host, below));
        writeFileSync(join(host, 'secret'), 'of the host');
        const before = snapshot(host);
        const replaced = join(root, directory);
        mkdirSync(replaced, { recursive: true });
        renameSync(replaced, `${replaced}-moved`);
        symlinkSync(host, replaced);
        await assert.rejects(run(when.startsWith('while') ? driver : reopen()), refused);
        assert.deepEqual(snapshot(host), before);
        assert.deepEqual(engine.table, [], 'nothing is mounted');
      });
    }
  }
}

test('what a volatile mount left is not removed through a link', async (t) => {
  const { root, driver, reopen } = overlay2(t, {}, 'volatile');
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.get('rw');
  const host = tempDir(t, 'host');
  mkdirSync(join(host, 'incompat/volatile'), { recursive: true });
  const before = snapshot(host);
  symlinkSync(host, join(root, 'overlay2/rw/work/work'));
  await assert.rejects(driver.put('rw'), refused);
  await assert.rejects(reopen({ acceptVolatile: true }).get('rw'), refused);
  assert.deepEqual(snapshot(host), before);
});

test('a consumed layer that is a link takes no whiteouts back', async (t) => {
  const { root, engine, driver } = overlay2(t);
  await driver.create('base');
  await driver.createReadWrite('rw', 'base', {});
  await driver.create('new', 'base');
  const host = tempDir(t, 'host');
  renameSync(join(root, 'overlay2/rw/diff'), join(root, 'moved'));
  renameSync(join(root, 'overlay2/new/diff'), join(root, 'moved-too'));
  symlinkSync(host, join(root, 'overlay2/new/diff'));
  writeFileSync(join(root, 'overlay2/rw/dropped-whiteouts.tar'), '');
  await assert.rejects(driver.undoConsume('new', 'rw'), refused);
  assert.deepEqual(snapshot(host), {});
  assert.ok(!engine.log.some((step) => step.startsWith('ingest')));
});
