import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openImages } from '../../../src/image/index.js';
import { Bench } from '../store/support.js';

test('images that could not be opened add no reference source; opened after that they add each once', async (t) => {
  const store = await (await Bench.make(t)).open();
  let sources = 0;
  store.addReferenceSource = () => void (sources += 1);
  const content = join(store.root, 'image', 'memory', 'imagedb', 'content');
  await mkdir(content, { recursive: true });
  await writeFile(join(content, 'sha256'), 'no directory');
  await assert.rejects(openImages(store), { code: 'ERR_SYSTEM' });
  assert.equal(sources, 0);
  await rm(join(content, 'sha256'));
  await openImages(store);
  assert.equal(sources, 2);
});
