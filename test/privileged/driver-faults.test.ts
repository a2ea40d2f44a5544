import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildTar } from '../../src/testing/tar-builder.js';
import { snapshotTree } from '../../src/testing/tree-snapshot.js';
import { tempDir } from '../support/temp.js';
import { js, native, prepare } from './driver-support.js';

const structure = (root: string): string[] => [...snapshotTree(root, { xattrs: false, mtime: false }).keys()];

for (const engine of [native, js]) {
  test(`${engine.name}: where inodes run out, a creation leaves nothing`, async (t) => {
    const disk = tempDir(t, 'disk');
    execFileSync('/bin/mount', ['-t', 'tmpfs', '-o', 'nr_inodes=40', 'small', disk]);
    const { open } = prepare(t, engine, disk);
    const driver = await open();
    await driver.create('base');
    await driver.createReadWrite('first', 'base', {});
    for (let spare = 8; spare >= 0; spare--) {
      const filler = join(disk, `filler${spare}`);
      mkdirSync(filler);
      let made = 0;
      try {
        for (; ; made++) writeFileSync(join(filler, String(made)), '', { flag: 'wx' });
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      }
      // As many inodes are free as this round leaves.
      for (let n = 0; n < Math.min(spare, made); n++) execFileSync('/bin/rm', [join(filler, String(n))]);
      const before = structure(disk);
      const failed = await driver.createReadWrite('rw', 'base', {}).then(
        () => undefined,
        (error: unknown) => error as { code: string; errnoName: string },
      );
      if (failed === undefined) {
        assert.ok(spare >= 6, `six inodes make a layer, and ${spare} were free`);
        await driver.remove('rw');
      } else {
        assert.deepEqual([failed.code, failed.errnoName], ['ERR_SYSTEM', 'ENOSPC']);
        assert.ok(spare < 6);
      }
      assert.deepEqual(structure(disk), before, `with ${spare} inodes free`);
      execFileSync('/bin/rm', ['-r', filler]);
    }
    await driver.createReadWrite('rw', 'base', {});
    await driver.get('rw');
    await driver.put('rw');
  });

  test(`${engine.name}: a file system that turns read-only gives clear errors and loses nothing`, async (t) => {
    const disk = tempDir(t, 'disk');
    execFileSync('/bin/mount', ['-t', 'tmpfs', 'small', disk]);
    const { open } = prepare(t, engine, disk);
    const driver = await open();
    await driver.create('base');
    await driver.createReadWrite('rw', 'base', {});
    const before = structure(disk);
    execFileSync('/bin/mount', ['-o', 'remount,ro', disk]);
    const EROFS = { code: 'ERR_SYSTEM', errnoName: 'EROFS' };
    await assert.rejects(driver.create('other', 'base'), EROFS);
    await assert.rejects(driver.get('rw'), EROFS);
    await assert.rejects(driver.remove('rw'), EROFS);
    await assert.rejects(driver.exchange('base', 'rw'), EROFS);
    assert.deepEqual(structure(disk), before);
    assert.deepEqual((await driver.list()).sort(), ['base', 'rw']);
    execFileSync('/bin/mount', ['-o', 'remount,rw', disk]);
    await driver.get('rw');
    await driver.put('rw');
    await driver.remove('rw');
  });

  test(`${engine.name}: a source that fails in the middle fails the unpacking with its own error`, async (t) => {
    const { open } = prepare(t, engine);
    const driver = await open();
    await driver.create('layer');
    const own = new Error('the network is gone');
    const source = Readable.from(
      (async function* () {
        yield buildTar([{ name: 'file', content: 'x' }], { end: false });
        throw own;
      })(),
    );
    await assert.rejects(driver.applyDiff('layer', undefined, source, {}), (error) => error === own);
    await driver.remove('layer');
    assert.deepEqual(await driver.list(), []);
  });

  test(`${engine.name}: without root vfs does what its user may do, and says what he may not`, (t) => {
    const root = tempDir(t, 'driver');
    chownSync(root, 65534, 65534);
    const script = fileURLToPath(new URL('./driver-without-root.ts', import.meta.url));
    const text = execFileSync(process.execPath, ['--import', 'tsx', script, root, engine.name], {
      uid: 65534,
      gid: 65534,
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: root, HOME: root },
    });
    const found = JSON.parse(text) as Record<string, unknown>;
    assert.deepEqual(found, {
      driver: 'vfs',
      tree: ['own'],
      changes: ['add /new'],
      overlay2: 'ERR_NOT_SUPPORTED',
      foreign: { code: 'ERR_SYSTEM', errnoName: 'EPERM', path: true },
      left: ['base', 'rw'],
    });
  });
}
