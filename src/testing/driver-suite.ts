/** What every graph driver has to do, as tests for `node:test`. Asks for capabilities, never for names. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { GraphDriver } from '../driver/graph-driver.js';
import type { Engine } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import { applyChanges } from './apply-changes.js';
import { createFile, mkdir, remove } from './change-list.js';
import { driverID } from './driver-id.js';
import { checkDriverStack } from './driver-oracle.js';
import { rootLayers, sampleLayers, xattrLayers } from './sample-changes.js';
import { buildTar } from './tar-builder.js';
import { assertSameTree, snapshotTree } from './tree-snapshot.js';
import { withSuiteDirectory } from './suite-directory.js';

export interface DriverSuiteOptions {
  /** For the titles of the tests. */
  name: string;
  /** Opens a driver whose state lies below `root` (existing; empty at the first call, as it was left at later ones). */
  factory: (root: string) => Promise<GraphDriver> | GraphDriver;
  /** Gives back tars from tar-split records, where the driver does not itself. */
  engine: Engine;
  /** Owners, devices and `trusted.` attributes can be had here. Default: whether this process is root. */
  privileged?: boolean;
  /** Whether a driver opened later finds what an earlier one made. Default true. */
  persistent?: boolean;
  /** Where the suite makes its directories. Default: the system's place for temporary files. */
  scratch?: string;
}

const [A, B, C, D] = [driverID(1), driverID(2), driverID(3), driverID(4)] as [string, string, string, string];

const baseTar = buildTar([
  { name: 'dir/', type: '5' },
  { name: 'dir/file', content: 'content of the file' },
  { name: 'link', type: '2', linkname: 'dir/file' },
]);
const topTar = buildTar([
  { name: 'dir/.wh.file', content: '' },
  { name: 'dir/other', content: 'other' },
]);

/** Registers the tests. */
export function driverSuite(options: DriverSuiteOptions): void {
  const { factory, engine, scratch, privileged = process.getuid?.() === 0, persistent = true } = options;

  const withDriver = (
    title: string,
    run: (driver: GraphDriver, root: string, directory: string) => Promise<void>,
  ): void => {
    it(title, async () => {
      await withSuiteDirectory(scratch, async (directory) => {
        const root = join(directory, 'root');
        mkdirSync(root);
        const driver = await factory(root);
        try {
          await run(driver, root, directory);
        } finally {
          await driver.close();
        }
      });
    });
  };
  const apply = async (driver: GraphDriver, id: string, parent: string | undefined, tar: Buffer): Promise<void> => {
    await driver.create(id, parent);
    await driver.applyDiff(id, parent, Readable.from([tar]), {});
  };
  const treeOf = async (driver: GraphDriver, id: string): Promise<string[]> => {
    const path = await (driver.view?.(id) ?? driver.get(id));
    try {
      return [...snapshotTree(path, { xattrs: false }).keys()];
    } finally {
      await driver.put(id);
    }
  };

  describe(`driver: ${options.name}`, () => {
    withDriver('says what it is and is empty at first', async (driver) => {
      assert.ok(driver.name.length > 0);
      for (const flag of ['independentDiffs', 'reproducesExactDiffs', 'hardSizeLimit', 'mounts'] as const) {
        assert.equal(typeof driver.capabilities[flag], 'boolean', flag);
      }
      assert.deepEqual(await driver.list(), []);
      assert.equal(await driver.exists(A), false);
      for (const [key, value] of driver.status()) assert.equal(`${typeof key} ${typeof value}`, 'string string');
    });

    withDriver('makes, lists and removes layers', async (driver) => {
      await apply(driver, A, undefined, baseTar);
      await apply(driver, B, A, topTar);
      assert.deepEqual(new Set(await driver.list()), new Set([A, B]));
      assert.equal(await driver.exists(B), true);
      assert.deepEqual(await treeOf(driver, A), ['/dir', '/dir/file', '/link']);
      assert.deepEqual(await treeOf(driver, B), ['/dir', '/dir/other', '/link']);
      for (const [key, value] of Object.entries(await driver.metadata(B))) assert.equal(typeof value, 'string', key);
      await driver.remove(B);
      assert.equal(await driver.exists(B), false);
      assert.deepEqual(await treeOf(driver, A), ['/dir', '/dir/file', '/link']);
      await apply(driver, B, A, topTar); // the same id again
      await driver.remove(B);
      await driver.remove(A);
      assert.deepEqual(await driver.list(), []);
      await driver.cleanup();
    });

    withDriver(
      'refuses ids that could leave its directory, parents that are not there, and ids that are taken',
      async (driver) => {
        for (const id of ['', '.', '..', '../x', 'a/b', '/etc']) {
          await assert.rejects(driver.create(id), (error) => error instanceof LayerStoreError);
          await assert.rejects(driver.remove(id), (error) => error instanceof LayerStoreError);
        }
        await assert.rejects(driver.create(A, B), (error) => error instanceof LayerStoreError);
        assert.equal(await driver.exists(A), false);
        await driver.create(A);
        await assert.rejects(driver.create(A), (error) => error instanceof LayerStoreError);
        assert.deepEqual(await driver.list(), [A]);
      },
    );

    withDriver('gives digests, sizes and the exact tar back', async (driver, _root, directory) => {
      await driver.create(A);
      const path = join(directory, 'record.gz');
      const result = await driver.applyDiff(A, undefined, Readable.from([baseTar]), { tarSplit: { path } });
      const digest = `sha256:${createHash('sha256').update(baseTar).digest('hex')}`;
      assert.equal(result.diffID, digest);
      assert.equal(result.tarSize, baseTar.length);
      assert.equal(result.size, 'content of the file'.length + 'dir/file'.length);
      assert.equal(result.entries, 3);
      const tar = driver.capabilities.reproducesExactDiffs
        ? await driver.diff(A)
        : await engine.assemble({ tarSplit: { path }, tree: await driver.diffGetter(A), diffID: result.diffID });
      assert.ok((await buffer(tar)).equals(baseTar));
      const getter = await driver.diffGetter(A);
      assert.equal((await buffer(await getter.open(Buffer.from('dir/file')))).toString(), 'content of the file');
      await assert.rejects(async () => buffer(await getter.open(Buffer.from('no/such'))), {
        code: 'ERR_LAYER_CORRUPT',
      });
      await getter.close();
    });

    withDriver('refuses what is not what was promised, and stops when told to', async (driver) => {
      await driver.create(A);
      const other = `sha256:${'0'.repeat(64)}` as const;
      const source = (): Readable => Readable.from([baseTar]);
      await assert.rejects(
        driver.applyDiff(A, undefined, source(), { blob: { digest: other, size: baseTar.length } }),
        {
          code: 'ERR_DIGEST_MISMATCH',
        },
      );
      await driver.remove(A);
      await driver.create(A);
      const reason = new Error('enough');
      const signal = AbortSignal.abort(reason);
      await assert.rejects(driver.applyDiff(A, undefined, source(), { signal }), (error) => error === reason);
      await driver.remove(A);
      await driver.create(A);
      await assert.rejects(driver.applyDiff(A, undefined, Readable.from([baseTar.subarray(0, 700)]), {}), {
        code: 'ERR_BAD_TAR',
      });
      await driver.remove(A);
      assert.deepEqual(await driver.list(), []);
    });

    withDriver('counts what it gave, and keeps what was written', async (driver) => {
      await apply(driver, A, undefined, baseTar);
      await driver.createReadWrite(B, A, {});
      const path = await driver.get(B);
      assert.equal(await driver.get(B), path);
      applyChanges(path, [createFile('new', 'written'), remove('link')]);
      await driver.put(B);
      assert.ok(lstatSync(join(path, 'new')).isFile(), 'still there after the first put of two');
      await driver.put(B);
      assert.equal(await driver.get(B), path);
      assert.deepEqual(readdirSync(path).sort(), ['dir', 'new']);
      await driver.put(B);
      assert.deepEqual(await treeOf(driver, A), ['/dir', '/dir/file', '/link']);
      await driver.remove(B);
      await driver.remove(A);
    });

    withDriver('keeps RW layers of one parent apart', async (driver) => {
      await apply(driver, A, undefined, baseTar);
      const ids = [B, C, D];
      await Promise.all(ids.map((id) => driver.createReadWrite(id, A, {})));
      const paths = await Promise.all(ids.map((id) => driver.get(id)));
      for (const [i, path] of paths.entries()) writeFileSync(join(path, 'mine'), String(i).repeat(i + 1));
      for (const [i, id] of ids.entries()) assert.equal(await driver.diffSize(id, A), i + 1);
      await Promise.all(ids.map((id) => driver.put(id)));
      for (const [i, id] of ids.entries()) {
        assert.deepEqual(
          (await driver.changes(id, A)).map(({ kind, path }) => `${kind} ${path}`),
          ['add /mine'],
          String(i),
        );
      }
      await Promise.all(ids.map((id) => driver.remove(id)));
      assert.deepEqual(await driver.list(), [A]);
    });

    withDriver('has an RW layer without a parent', async (driver) => {
      await driver.createReadWrite(A, undefined, {});
      const path = await driver.get(A);
      applyChanges(path, [mkdir('only'), createFile('only/file', '12345')]);
      await driver.put(A);
      assert.equal(await driver.diffSize(A), 5);
      assert.deepEqual(
        (await driver.changes(A)).map((each) => `${each.kind} ${each.path}`),
        ['add /only', 'add /only/file'],
      );
      await driver.remove(A);
    });

    withDriver('enforces a size, or refuses to promise one', async (driver) => {
      if (driver.capabilities.hardSizeLimit) {
        await driver.createReadWrite(A, undefined, { storageOpt: { size: '4M' } });
        const path = await driver.get(A);
        assert.throws(() => writeFileSync(join(path, 'large'), Buffer.alloc(16 << 20)));
        await driver.put(A);
      } else {
        await assert.rejects(driver.createReadWrite(A, undefined, { storageOpt: { size: '4M' } }), {
          code: 'ERR_NOT_SUPPORTED',
        });
        assert.equal(await driver.exists(A), false);
      }
      await assert.rejects(driver.createReadWrite(B, undefined, { storageOpt: { colour: 'red' } }), {
        code: 'ERR_INVALID_ARGUMENT',
      });
      assert.equal(await driver.exists(B), false);
    });

    withDriver('applies a child before its parent where it says so', async (driver) => {
      await driver.create(A);
      await driver.create(B, A);
      if (!driver.capabilities.independentDiffs) {
        await driver.applyDiff(A, undefined, Readable.from([baseTar]), {});
        return;
      }
      await driver.applyDiff(B, A, Readable.from([topTar]), {});
      await driver.applyDiff(A, undefined, Readable.from([baseTar]), {});
      assert.deepEqual(await treeOf(driver, B), ['/dir', '/dir/other', '/link']);
    });

    withDriver('takes away at once and deletes later', async (driver) => {
      if (driver.detach === undefined) return;
      await apply(driver, A, undefined, baseTar);
      const unlink = await driver.detach(A);
      assert.equal(await driver.exists(A), false);
      assert.deepEqual(await driver.list(), []);
      await apply(driver, A, undefined, buildTar([{ name: 'another', content: 'one' }]));
      await unlink();
      assert.deepEqual(await treeOf(driver, A), ['/another']);
    });

    withDriver('exchanges the contents of two layers', async (driver) => {
      if (driver.exchange === undefined) return;
      await apply(driver, A, undefined, baseTar);
      await apply(driver, B, undefined, buildTar([{ name: 'another', content: 'one' }]));
      const before = [await treeOf(driver, A), await treeOf(driver, B)];
      await driver.exchange(A, B);
      assert.deepEqual([await treeOf(driver, B), await treeOf(driver, A)], before);
      await driver.sync?.([A, B]);
    });

    it('finds its layers again', async () => {
      if (!persistent) return;
      await withSuiteDirectory(scratch, async (root) => {
        const first = await factory(root);
        await apply(first, A, undefined, baseTar);
        await apply(first, B, A, topTar);
        await first.createReadWrite(C, B, {});
        applyChanges(await first.get(C), [createFile('kept', 'k')]);
        await first.put(C);
        await first.close();
        const second = await factory(root);
        assert.deepEqual(new Set(await second.list()), new Set([A, B, C]));
        assert.deepEqual(await treeOf(second, B), ['/dir', '/dir/other', '/link']);
        assert.deepEqual(
          (await second.changes(C, B)).map(({ path }) => path),
          ['/kept'],
        );
        await second.close();
      });
    });

    const stacks = {
      'files of every kind': sampleLayers,
      ...(privileged ? { 'owners and devices': rootLayers, 'extended attributes': xattrLayers } : {}),
    };
    for (const [what, layers] of Object.entries(stacks)) {
      withDriver(
        `a stack of layers is the same tree as a flat directory: ${what}`,
        async (driver, _root, directory) => {
          await checkDriverStack({ driver, layers, directory });
        },
      );
    }

    withDriver('a copy made through its tar is the same tree', async (driver, _root, directory) => {
      await driver.createReadWrite(A, undefined, {});
      const flat = join(directory, 'flat');
      mkdirSync(flat);
      applyChanges(await driver.get(A), sampleLayers[0] ?? []);
      applyChanges(flat, sampleLayers[0] ?? []);
      await driver.put(A);
      await apply(driver, B, undefined, await buffer(await driver.diff(A)));
      const path = await (driver.view?.(B) ?? driver.get(B));
      assertSameTree(snapshotTree(flat), snapshotTree(path), 'through a tar');
      await driver.put(B);
    });
  });
}
