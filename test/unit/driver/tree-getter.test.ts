import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buffer } from 'node:stream/consumers';
import { TreeGetter } from '../../../src/driver/tree-getter.js';

test('files of a layer are found inside it and nowhere else', async (t) => {
  const top = await mkdtemp(join(tmpdir(), 'tree-getter-'));
  t.after(() => rm(top, { recursive: true }));
  const layer = join(top, 'diff');
  await mkdir(join(layer, 'a/b'), { recursive: true });
  await mkdir(join(layer, 'etc'));
  await writeFile(join(layer, 'a/b/file'), 'inside');
  await writeFile(join(layer, 'etc/passwd'), "the layer's own");
  await writeFile(join(top, 'secret'), 'outside');
  await symlink('a/b', join(layer, 'relative'));
  await symlink('/etc', join(layer, 'absolute'));
  await symlink('../../../../../..', join(layer, 'up'));
  await symlink('loop', join(layer, 'loop'));
  await symlink('../secret', join(layer, 'last'));
  execFileSync('/usr/bin/mkfifo', [join(layer, 'fifo')]);
  const raw = Buffer.from([0x72, 0xff, 0x77]);
  await writeFile(Buffer.concat([Buffer.from(`${layer}/`), raw]), 'no UTF-8');

  const getter = new TreeGetter(layer);
  const read = async (name: string | Buffer): Promise<string> =>
    (await buffer(await getter.open(Buffer.from(name as string)))).toString();
  assert.equal(await read('a/b/file'), 'inside');
  assert.equal(await read('./a//b/./file'), 'inside');
  assert.equal(await read('/a/b/file'), 'inside');
  assert.equal(await read('relative/file'), 'inside');
  assert.equal(await read('absolute/passwd'), "the layer's own", "an absolute link begins at the layer's top");
  assert.equal(await read('up/a/b/file'), 'inside', 'no ".." leaves the layer');
  assert.equal(await read('../../a/b/file'), 'inside');
  assert.equal(await read(raw), 'no UTF-8');
  for (const name of [
    '../secret',
    'up/secret',
    'last',
    'loop/x',
    'fifo',
    'a',
    '',
    'nothing',
    'a/b/file/x',
    'up/etc/shadow',
  ]) {
    await assert.rejects(getter.open(Buffer.from(name)), { code: 'ERR_LAYER_CORRUPT' }, name);
  }
});
